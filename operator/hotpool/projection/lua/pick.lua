-- Job: which node. All strategies choose among the Ready, and among the Suspect when no Ready one is left.
-- Error replies: BADARGUMENT and a text.

local WINDOW = 64
local PROBES = 21
local RING = 4503599627370496
local NOBODY = {}
local OFFERED = { 'Ready', 'Suspect' }

-- How long ago the leader vouched for the projection, in ms (-1: never), and whether all of it is there ('1' or '0').
local function freshness(meta)
  local stored, age = read('HMGET', meta, 'stampMs', 'complete') or NOBODY, -1
  local stamp = tonumber(stored[1])
  if stamp and stamp > 0 then
    age = now_ms() - stamp
    if age < 0 then age = 0 end -- the clock of Redis was set back
  end
  return age, stored[2] == '1' and '1' or '0'
end

-- Whether nobody vouches for the projection, or did so too long ago; without max_age nobody asks.
local function stale(age, complete, max_age)
  return max_age and (age < 0 or complete ~= '1' or age > whole(max_age))
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
-- what is left of the chance, which is a chance again. No whole number times a double below 1 is rounded up to itself.
local function drawn(chance, free, ranks)
  local place = chance * free
  local rank = math.floor(place)
  local rest = place - rank
  for number = 1, #ranks do
    if ranks[number] > rank then break end
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
local function wrong(choose, chance, max_age, load)
  if not choose then return 'strategy: uniform, least-loaded or affinity' end
  if choose == affinity and (chance or '') == '' then return 'affinity needs a key' end
  if choose ~= affinity and not (chance and chance >= 0 and chance < 1) then return 'chance: 0 up to 1' end
  if choose == least_loaded and not load then return 'least-loaded needs the key load' end
  if max_age and not whole(max_age) then return 'max age: ms' end
  return nil
end

-- Version of the pool, nil where there is none, or not that of an index entry.
local function version_of(facts, wanted)
  if not wanted then return redis.call('HGET', facts, 'version') end
  local stored = redis.call('HMGET', facts, 'version', 'generator', 'key')
  return field(stored[2], stored[3] or '') == wanted and stored[1]
end

-- An argument, nil for one that is empty or not there.
local function given(text)
  return text ~= '' and text or nil
end

-- A node out of one set, nil where all are excluded; how many there are, and how many of these are excluded.
local function from(key, load, choose, chance, args, excluded)
  local size, barred, ranks = redis.call('ZCARD', key), NOBODY, NOBODY
  if size > 0 and args[excluded] then barred, ranks = ruled_out(key, args, excluded) end
  if size == #ranks then return nil, size, size end
  return choose(key, chance, size - #ranks, barred, ranks, load), size, #ranks
end

-- KEYS: meta, facts, ready, suspect [, load]. ARGV from `first`: strategy, chance in [0, 1) or the key of an affinity
-- [, index entry ('' = any), max age in ms ('' = any), excluded names]. Returns a line `node state version age
-- complete`; without a node `- reason version age complete ready suspect draining excluded`, the version - where the
-- pool is unknown. A line, for a client parses each element of an array by itself. It counts only where it must: calls
-- are what a pick costs. Also returns the node.
local function decide(keys, args, first)
  local choose, chance, max_age = STRATEGIES[args[first]], args[first + 1], given(args[first + 3])
  if choose ~= affinity then chance = tonumber(chance) end
  local refused = wrong(choose, chance, max_age, keys[5])
  if refused then return redis.error_reply('BADARGUMENT ' .. refused) end
  local age, complete = freshness(keys[1])
  local version, old = version_of(keys[2], given(args[first + 2])), stale(age, complete, max_age)
  local fresh = ' ' .. age .. ' ' .. complete
  if not version then return '- ' .. (old and 'Stale' or 'PoolUnknown') .. ' -' .. fresh .. ' 0 0 0 0' end
  local state, node, ready, suspect, barred, others = 'Ready', nil, nil, 0, nil, 0
  if old then
    ready, suspect, barred = redis.call('ZCARD', keys[3]), redis.call('ZCARD', keys[4]), 0
  else
    node, ready, barred = from(keys[3], keys[5], choose, chance, args, first + 4)
    if not node then
      state, node, suspect, others = 'Suspect', from(keys[4], keys[5], choose, chance, args, first + 4)
    end
  end
  if node then return node .. ' ' .. state .. ' ' .. version .. fresh, node end
  local draining, excluded = tonumber(redis.call('HGET', keys[2], 'draining')) or 0, barred + others
  local reason = old and 'Stale' or excluded > 0 and 'AllExcluded' or draining > 0 and 'OnlyDraining' or 'Empty'
  return table.concat({ '-', reason, version .. fresh, ready, suspect, draining, excluded }, ' ')
end

local function pick(keys, args)
  return (decide(keys, args, 1))
end

-- KEYS as in pick with load, then entries and expiries. ARGV: id, weight, ms from now, then as in pick. An id that is
-- there already came with a call of which the answer was lost: it is replaced. Returns as pick, with a node also the
-- expiry.
local function reserve(keys, args)
  local weight, span = weight_of(args[2]), span_of(args[3])
  if args[1] == '' or not weight or not span then
    return redis.error_reply('BADARGUMENT id, weight: 0.001 to 1e9, ms: 1 to 86400000')
  end
  local account, now = { keys[5], keys[6], keys[7] }, now_ms()
  tidy(account, now)
  forget(account, args[1])
  local reply, node = decide(keys, args, 4)
  if not node then return reply end
  enter(account, args[1], node, weight, now + span)
  return reply .. ' ' .. string.format('%.0f', now + span)
end

register('pick', pick, { 'no-writes' })
register('reserve', reserve, {})
