-- Job: which node. All strategies choose among the Ready, and among the Suspect when no Ready one is left.
-- Error replies: BADARGUMENT and a text.

local WINDOW = 64
local PROBES = 21
local RING = 4503599627370496
local NOBODY = {}
local OFFERED = { 'Ready', 'Suspect' }

local function freshness(meta)
  local stored = read('HMGET', meta, 'stampMs', 'complete') or {}
  return { whole(stored[1]) and stored[1] or '', stored[2] == '1' and 1 or 0, now_ms() }
end

-- Whether nobody vouches for the projection, or did so too long ago; max_age '' asks for nothing.
local function stale(fresh, max_age)
  if max_age == '' then return false end
  return fresh[1] == '' or fresh[2] ~= 1 or fresh[3] - tonumber(fresh[1]) > whole(max_age)
end

-- The names from `first` on that are members: name to rank, and the ranks in order.
local function ruled_out(key, names, first)
  local barred, ranks = {}, {}
  for place = first, #names do
    local rank = not barred[names[place]] and redis.call('ZRANK', key, names[place])
    if rank then
      barred[names[place]] = rank
      table.insert(ranks, rank)
    end
  end
  table.sort(ranks)
  return barred, ranks
end

-- Uniform over the members not excluded: a rank among these, shifted past each excluded rank below it. Also returns
-- what is left of the chance, which is a chance again.
local function drawn(chance, free, ranks)
  local rank = math.min(math.floor(chance * free), free - 1)
  local rest = math.min(math.max(chance * free - rank, 0), 1 - 2 ^ -32)
  for _, excluded in ipairs(ranks) do
    if excluded > rank then break end
    rank = rank + 1
  end
  return rank, rest
end

local function uniform(key, chance, free, _, ranks)
  local rank = drawn(chance, free, ranks)
  return redis.call('ZRANGE', key, rank, rank)[1]
end

-- Up to WINDOW members from a rank on, around the ring, as if the excluded were not there.
local function window(key, first, free, barred, ranks)
  local wanted = math.min(WINDOW, free)
  local names = redis.call('ZRANGE', key, first, first + wanted + #ranks - 1)
  local found = {}
  for turn = 1, 2 do
    for _, name in ipairs(names) do
      if #found < wanted and not barred[name] then table.insert(found, name) end
    end
    if turn == 1 and #found < wanted then names = redis.call('ZRANGE', key, 0, wanted - #found + #ranks - 1) end
    if #found == wanted then break end
  end
  return found
end

-- Of the window, or of all members where there are no more: the smallest load, ties drawn.
local function least_loaded(key, chance, free, barred, ranks, load)
  local first, rest = drawn(chance, free, ranks)
  local names = window(key, first, free, barred, ranks)
  local loads = read('ZMSCORE', load, unpack(names)) or {}
  local least, ties
  for place, name in ipairs(names) do
    local value = tonumber(loads[place] or 0)
    if not least or value < least then least, ties = value, {} end
    if value == least then table.insert(ties, name) end
  end
  return ties[1 + math.floor(rest * #ties)]
end

-- The first member that is not excluded at or after a place on the ring, and its score.
local function at_or_after(key, place, barred)
  local from, skipped = place, 0
  while true do
    local found = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', skipped, 1)
    if not found[1] then
      from, skipped = '-inf', 0
    elseif not barred[found[1]] then
      return found[1], tonumber(found[2])
    else
      skipped = skipped + 1
    end
  end
end

-- Multi-probe consistent hashing (docs/design/0004): of all probes the one that lies nearest before a member.
local function affinity(key, text, _, barred)
  local hash = redis.sha1hex(text)
  local probe, step = tonumber(string.sub(hash, 1, 13), 16), tonumber(string.sub(hash, 14, 26), 16)
  local nearest, node
  for _ = 1, PROBES do
    local name, score = at_or_after(key, probe, barred)
    local distance = (score - probe) % RING
    if not nearest or distance < nearest then nearest, node = distance, name end
    probe = (probe + step) % RING
  end
  return node
end

local STRATEGIES = { uniform = uniform, ['least-loaded'] = least_loaded, affinity = affinity }

-- What is wrong with the arguments of a pick, nil for nothing.
local function wrong(choose, chance, max_age)
  if not choose then return 'strategy: uniform, least-loaded or affinity' end
  if choose == affinity and chance == '' then return 'affinity needs a key' end
  if choose ~= affinity and not (chance and chance >= 0 and chance < 1) then return 'chance: 0 up to 1' end
  if max_age ~= '' and not whole(max_age) then return 'max age: ms' end
  return nil
end

-- KEYS: meta, facts, ready, suspect, draining, load. ARGV from `first`: strategy, chance in [0, 1) or the key of an
-- affinity, index entry ('' = any), max age in ms ('' = any), excluded names.
-- Returns freshness, '', version, node, state; or without a node freshness, the reason, version, ready, suspect,
-- draining, excluded. It counts only where it must: calls are what a pick costs.
local function decide(keys, args, first)
  local choose, chance, max_age = STRATEGIES[args[first]], args[first + 1], args[first + 3]
  if choose ~= affinity then chance = tonumber(chance) end
  local refused = wrong(choose, chance, max_age)
  if refused then return redis.error_reply('BADARGUMENT ' .. refused) end
  local fresh = freshness(keys[1])
  local facts = redis.call('HMGET', keys[2], 'version', 'generator', 'key')
  local known = facts[1] and (args[first + 2] == '' or field(facts[2], facts[3] or '') == args[first + 2])
  local old = stale(fresh, max_age)
  if not known then return { fresh, old and 'Stale' or 'PoolUnknown', '', 0, 0, 0, 0 } end
  local counts = {}
  if old then
    for state = 1, STATES do counts[state] = redis.call('ZCARD', keys[2 + state]) end
    return { fresh, 'Stale', facts[1], counts[1], counts[2], counts[3], 0 }
  end
  local excluded = 0
  for state, word in ipairs(OFFERED) do
    local key = keys[2 + state]
    local size, barred, ranks = redis.call('ZCARD', key), NOBODY, NOBODY
    if size > 0 and args[first + 4] then barred, ranks = ruled_out(key, args, first + 4) end
    if size > #ranks then
      return { fresh, '', facts[1], choose(key, chance, size - #ranks, barred, ranks, keys[6]), word }
    end
    counts[state], excluded = size, excluded + #ranks
  end
  local draining = redis.call('ZCARD', keys[5])
  local reason = excluded > 0 and 'AllExcluded' or draining > 0 and 'OnlyDraining' or 'Empty'
  return { fresh, reason, facts[1], counts[1], counts[2], draining, excluded }
end

local function pick(keys, args)
  return decide(keys, args, 1)
end

-- KEYS as in pick, then entries and expiries. ARGV: id, weight, ms from now, then as in pick. An id that is there
-- already came with a call of which the answer was lost: it is replaced. Returns as pick, with a node also the expiry.
local function reserve(keys, args)
  local weight, span = weight_of(args[2]), span_of(args[3])
  if args[1] == '' or not weight or not span then
    return redis.error_reply('BADARGUMENT id, weight: 0.001 to 1e9, ms: 1 to 86400000')
  end
  local account, now = { keys[6], keys[7], keys[8] }, now_ms()
  tidy(account, now)
  forget(account, args[1])
  local reply = decide(keys, args, 4)
  if reply[2] == '' then
    enter(account, args[1], reply[4], weight, now + span)
    table.insert(reply, now + span)
  end
  return reply
end

register('pick', pick, { 'no-writes' })
register('reserve', reserve, {})
