-- Job: what dispatchers ask.

local function freshness(meta)
  local stored = read('HMGET', meta, 'stampMs', 'complete') or {}
  return { whole(stored[1]) and stored[1] or '', stored[2] == '1' and 1 or 0, now_ms() }
end

-- Uniform over the members not excluded: a rank among these, shifted past each excluded rank below it.
local function choose(key, chance, names)
  local ranks, seen = {}, {}
  for place = 3, #names do
    local rank = not seen[names[place]] and redis.call('ZRANK', key, names[place])
    if rank then table.insert(ranks, rank) end
    seen[names[place]] = true
  end
  local free = redis.call('ZCARD', key) - #ranks
  if free <= 0 then return nil, #ranks end
  table.sort(ranks)
  local drawn = math.min(math.floor(chance * free), free - 1)
  for _, rank in ipairs(ranks) do
    if rank > drawn then break end
    drawn = drawn + 1
  end
  return redis.call('ZRANGE', key, drawn, drawn)[1], #ranks
end

-- KEYS: meta, facts, ready, suspect, draining. ARGV: chance in [0, 1), index entry ('' = any), excluded names.
-- Returns freshness, known, version, node, state, ready, suspect, draining, excluded.
local function pick(keys, args)
  local facts = redis.call('HMGET', keys[2], 'version', 'generator', 'key')
  local known = facts[1] and (args[2] == '' or field(facts[2], facts[3] or '') == args[2])
  if not known then return { freshness(keys[1]), 0, '', '', '', 0, 0, 0, 0 } end
  local chance = tonumber(args[1])
  local node, excluded = choose(keys[3], chance, args)
  local state = 'Ready'
  if not node then
    local more
    node, more = choose(keys[4], chance, args)
    state, excluded = 'Suspect', excluded + more
  end
  return { freshness(keys[1]), 1, facts[1], node or '', state, redis.call('ZCARD', keys[3]),
    redis.call('ZCARD', keys[4]), redis.call('ZCARD', keys[5]), excluded }
end

-- KEYS: meta, facts, ready, suspect, draining. Returns freshness, version ('' = unknown) and the three lists.
local function members(keys)
  local lists = {}
  for state = 1, STATES do lists[state] = redis.call('ZRANGE', keys[2 + state], 0, -1) end
  return { freshness(keys[1]), redis.call('HGET', keys[2], 'version') or '', lists[1], lists[2], lists[3] }
end

-- KEYS: meta, node. Returns freshness and all fields.
local function capability(keys)
  return { freshness(keys[1]), redis.call('HGETALL', keys[2]) }
end

register('pick', pick, { 'no-writes' })
register('members', members, { 'no-writes' })
register('capability', capability, { 'no-writes' })
