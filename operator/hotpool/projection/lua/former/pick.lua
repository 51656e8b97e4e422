-- Picks of a node. Every strategy chooses among the Ready members, or among the Suspect ones if no Ready one is left.
-- Error replies: BADARGUMENT and a text.

local WINDOW = 64
local PROBES = 21
local RING = 4503599627370496
local NONE = {}

-- Returns the ms since the leader's last stamp (-1: never), and '1' if the projection is complete, else '0'.
local function freshness(meta)
  local stored, age = read_or_nil('HMGET', meta, 'stampMs', 'complete') or NONE, -1
  local stamp = tonumber(stored[1])
  if stamp and stamp > 0 then
    age = now_ms() - stamp
    if age < 0 then age = 0 end -- the clock of Redis was set back
  end
  return age, stored[2] == '1' and '1' or '0'
end

-- Returns true if the projection has no stamp, is incomplete or is older than max_age. Without max_age it is not stale.
local function is_stale(age, complete, max_age)
  return max_age and (age < 0 or complete ~= '1' or age > parse_number(max_age))
end

-- Returns the members among the names from `first` on: a table from name to rank, and the sorted ranks.
local function excluded_ranks(key, names, first)
  local excluded, ranks = {}, {}
  for i = first, #names do
    local rank = not excluded[names[i]] and redis.call('ZRANK', key, names[i])
    if rank then
      excluded[names[i]] = rank
      table.insert(ranks, rank)
    end
  end
  table.sort(ranks)
  return excluded, ranks
end

-- Draws a rank uniformly from the members not excluded: a rank among these, shifted past each excluded rank below it.
-- Also returns the rest of the chance, uniform in [0, 1) again. An integer times a double below 1 never rounds up to
-- the integer.
local function draw_rank(chance, available, ranks)
  local product = chance * available
  local rank = math.floor(product)
  local rest = product - rank
  for i = 1, #ranks do
    if ranks[i] > rank then break end
    rank = rank + 1
  end
  return rank, rest
end

local function uniform(key, chance, available, _, ranks)
  local rank = draw_rank(chance, available, ranks)
  return redis.call('ZRANGE', key, rank, rank)[1]
end

-- Returns up to WINDOW members from a rank on, around the ring, without the excluded ones.
local function window(key, first, available, excluded, ranks)
  local wanted = math.min(WINDOW, available)
  local names = redis.call('ZRANGE', key, first, first + wanted + #ranks - 1)
  local members = {}
  for turn = 1, 2 do
    for _, name in ipairs(names) do
      if #members < wanted and not excluded[name] then table.insert(members, name) end
    end
    if turn == 1 and #members < wanted then names = redis.call('ZRANGE', key, 0, wanted - #members + #ranks - 1) end
    if #members == wanted then break end
  end
  return members
end

-- Picks the smallest load of the window, which holds all members of a small pool. Ties are drawn.
local function least_loaded(key, chance, available, excluded, ranks, load)
  local first, rest = draw_rank(chance, available, ranks)
  local names = window(key, first, available, excluded, ranks)
  local loads = read_or_nil('ZMSCORE', load, unpack(names)) or {}
  local least, ties
  for i, name in ipairs(names) do
    local value = tonumber(loads[i] or 0)
    if not least or value < least then least, ties = value, {} end
    if value == least then table.insert(ties, name) end
  end
  return ties[1 + math.floor(rest * #ties)]
end

-- Returns the first member not excluded at or after a position on the ring, and its score.
local function successor(key, position, excluded)
  local start, skipped = position, 0
  while true do
    local found = redis.call('ZRANGEBYSCORE', key, start, '+inf', 'WITHSCORES', 'LIMIT', skipped, 1)
    if not found[1] then
      start, skipped = '-inf', 0
    elseif not excluded[found[1]] then
      return found[1], tonumber(found[2])
    else
      skipped = skipped + 1
    end
  end
end

-- Multi-probe consistent hashing (docs/design/0004): the member at the smallest distance after any probe wins.
local function affinity(key, text, _, excluded)
  local hash = redis.sha1hex(text)
  local probe, step = tonumber(string.sub(hash, 1, 13), 16), tonumber(string.sub(hash, 14, 26), 16)
  local nearest, node
  for _ = 1, PROBES do
    local name, score = successor(key, probe, excluded)
    local distance = (score - probe) % RING
    if not nearest or distance < nearest then nearest, node = distance, name end
    probe = (probe + step) % RING
  end
  return node
end

local STRATEGIES = { uniform = uniform, ['least-loaded'] = least_loaded, affinity = affinity }

-- Returns the error in the arguments of a pick, or nil.
local function argument_error(choose, chance, max_age, load)
  if not choose then return 'strategy: uniform, least-loaded or affinity' end
  if choose == affinity and (chance or '') == '' then return 'affinity needs a key' end
  if choose ~= affinity and not (chance and chance >= 0 and chance < 1) then return 'chance: 0 up to 1' end
  if choose == least_loaded and not load then return 'least-loaded needs the key load' end
  if max_age and not parse_number(max_age) then return 'max age: ms' end
  return nil
end

-- Returns the version of the pool, or nil if there is none, or if the pool does not have the wanted index field.
local function pool_version(facts, wanted)
  if not wanted then return redis.call('HGET', facts, 'version') end
  local stored = redis.call('HMGET', facts, 'version', 'generator', 'key')
  return index_field(stored[2], stored[3] or '') == wanted and stored[1]
end

-- Returns an argument, or nil for an empty or missing one.
local function non_empty(text)
  return text ~= '' and text or nil
end

-- Returns a node of one set, nil if all members are excluded, then the size of the set and the number excluded.
local function choose_from(key, load, choose, chance, args, first_excluded)
  local size, excluded, ranks = redis.call('ZCARD', key), NONE, NONE
  if size > 0 and args[first_excluded] then excluded, ranks = excluded_ranks(key, args, first_excluded) end
  if size == #ranks then return nil, size, size end
  return choose(key, chance, size - #ranks, excluded, ranks, load), size, #ranks
end

-- KEYS: meta, facts, ready, suspect [, load]. ARGV from `first`: strategy, chance in [0, 1) or the key of an affinity
-- [, index field ('' = any), max age in ms ('' = any), excluded names]. Returns a line `node state version age
-- complete`; without a node `- reason version age complete ready suspect draining excluded`, with the version - for an
-- unknown pool. The reply is one line because a client parses each element of an array separately. Members are counted
-- only if needed, because the calls dominate the cost of a pick. Also returns the node.
local function decide(keys, args, first)
  local choose, chance, max_age = STRATEGIES[args[first]], args[first + 1], non_empty(args[first + 3])
  if choose ~= affinity then chance = tonumber(chance) end
  local refused = argument_error(choose, chance, max_age, keys[5])
  if refused then return redis.error_reply('BADARGUMENT ' .. refused) end
  local age, complete = freshness(keys[1])
  local version, stale = pool_version(keys[2], non_empty(args[first + 2])), is_stale(age, complete, max_age)
  local fresh = ' ' .. age .. ' ' .. complete
  if not version then return '- ' .. (stale and 'Stale' or 'PoolUnknown') .. ' -' .. fresh .. ' 0 0 0 0' end
  local state, node, ready, suspect, ready_excluded, suspect_excluded = 'Ready', nil, nil, 0, nil, 0
  if stale then
    ready, suspect, ready_excluded = redis.call('ZCARD', keys[3]), redis.call('ZCARD', keys[4]), 0
  else
    node, ready, ready_excluded = choose_from(keys[3], keys[5], choose, chance, args, first + 4)
    if not node then
      state = 'Suspect'
      node, suspect, suspect_excluded = choose_from(keys[4], keys[5], choose, chance, args, first + 4)
    end
  end
  if node then return node .. ' ' .. state .. ' ' .. version .. fresh, node end
  local draining, excluded = tonumber(redis.call('HGET', keys[2], 'draining')) or 0, ready_excluded + suspect_excluded
  local reason = stale and 'Stale' or excluded > 0 and 'AllExcluded' or draining > 0 and 'OnlyDraining' or 'Empty'
  return table.concat({ '-', reason, version .. fresh, ready, suspect, draining, excluded }, ' ')
end

local function pick(keys, args)
  return (decide(keys, args, 1))
end

-- KEYS as in pick with load, then entries and expiries. ARGV: id, weight, ms from now, then as in pick. An existing id
-- is from a call whose reply was lost, and is replaced. Returns as pick. With a node, the expiry follows.
local function reserve(keys, args)
  local weight, ttl = parse_weight(args[2]), parse_ttl(args[3])
  if args[1] == '' or not weight or not ttl then
    return redis.error_reply('BADARGUMENT id, weight: 0.001 to 1e9, ms: 1 to 86400000')
  end
  local load_keys, now = { keys[5], keys[6], keys[7] }, now_ms()
  purge_expired(load_keys, now)
  remove_entry(load_keys, args[1])
  local reply, node = decide(keys, args, 4)
  if not node then return reply end
  add_entry(load_keys, args[1], node, weight, now + ttl)
  return reply .. ' ' .. string.format('%.0f', now + ttl)
end

register('pick', pick, { 'no-writes' })
register('reserve', reserve, {})
