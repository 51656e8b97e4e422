#!lua name=hotpool_1
-- Job: everything that hotpool asks of Redis, as functions that run whole or not at all.
-- Callers: hotpool.projection (functions.py by name; nobody writes these keys in any other way).
-- Must not: touch a key that was not passed in KEYS, or trust the type or content of a key found there.
-- Error replies are one word and a text: NOTERM, STALETERM <stored>, STALEVERSION <stored>, NOSTAGE.

local DIGEST = '@DIGEST@'
local STATES = 3
-- Transitions of a node that are kept, and for how long once it has no capability any more: a week.
local KEPT = 10
local KEPT_MS = 604800000

-- A whole number of at most 15 digits (exact in a double), or nil for anything else.
local function whole(text)
  if type(text) ~= 'string' or #text > 15 or not string.match(text, '^%d+$') then return nil end
  return tonumber(text)
end

-- A read that answers nil instead of failing when the key holds another type.
local function read(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return nil end
  return reply
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Removes a key of another type than ours: somebody did SET on it.
local function own(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('UNLINK', key) end
end

local function fence(meta, term)
  local stored = read('HGET', meta, 'term')
  if not whole(stored) then return redis.error_reply('NOTERM no leader has claimed this server') end
  if whole(stored) ~= whole(term) then return redis.error_reply('STALETERM ' .. stored) end
  return nil
end

-- Within one term a version never goes back. Another term in the facts is of the past: the fence has already proved ours.
local function order(term, version, facts_term, facts_version)
  if whole(facts_term) ~= whole(term) or not whole(facts_version) then return nil end
  if whole(version) > whole(facts_version) then return nil end
  return redis.error_reply('STALEVERSION ' .. facts_version)
end

local function claim(keys, args)
  local stored = read('HMGET', keys[1], 'term', 'owner') or {}
  local term = whole(stored[1])
  if term and (term > whole(args[1]) or (term == whole(args[1]) and stored[2] ~= args[2])) then
    return { stored[1], 0 }
  end
  if not term then
    redis.call('UNLINK', keys[1])
    redis.call('HSET', keys[1], 'schema', '1', 'complete', '0')
  end
  redis.call('HSET', keys[1], 'term', args[1], 'owner', args[2])
  return { args[1], 1 }
end

local function stamp(keys, args)
  local refused = fence(keys[1], args[1])
  if refused then return refused end
  local now = now_ms()
  redis.call('HSET', keys[1], 'stampMs', string.format('%.0f', now), 'complete', args[2])
  return now
end

local function field(generator, key)
  if not generator or generator == '' then return nil end
  return generator .. '/' .. key
end

local function unindex(index, entry, name)
  if entry and redis.call('HGET', index, entry) == name then redis.call('HDEL', index, entry) end
end

-- Pool writes. KEYS: meta, pools, index, facts, ready, suspect, draining [, the three staged].
local function admit(keys, term, version, uid)
  local refused = fence(keys[1], term)
  if refused then return refused end
  local old = read('HMGET', keys[4], 'uid', 'term', 'version', 'generator', 'key') or {}
  if uid and old[1] ~= uid then return nil, old end
  return order(term, version, old[2], old[3]), old
end

-- ARGV: term, version, name, uid, digest, generator, key, ready, suspect, draining (counts).
local function record(keys, args, old)
  own(keys[2], 'set')
  redis.call('SADD', keys[2], args[3])
  own(keys[3], 'hash')
  local entry = field(args[6], args[7])
  local former = field(old[4], old[5] or '')
  if former ~= entry then unindex(keys[3], former, args[3]) end
  if entry then redis.call('HSET', keys[3], entry, args[3]) end
  redis.call('UNLINK', keys[4])
  redis.call('HSET', keys[4], 'term', args[1], 'version', args[2], 'uid', args[4], 'digest', args[5],
    'generator', args[6], 'key', args[7], 'ready', args[8], 'suspect', args[9], 'draining', args[10],
    'changedMs', string.format('%.0f', now_ms()))
end

-- Members come as one argument, `score member score member ...`: hundreds of arguments cost the client more than all else.
local function add_members(key, text)
  local parts, size = {}, 0
  for part in string.gmatch(text, '[^ ]+') do
    size = size + 1
    parts[size] = part
  end
  if size > 0 then redis.call('ZADD', key, unpack(parts)) end
end

-- ARGV as in record, then the members: ready, suspect, draining.
local function replace(keys, args)
  local refused, old = admit(keys, args[1], args[2], args[4])
  if refused then return refused end
  record(keys, args, old)
  for state = 1, STATES do
    redis.call('UNLINK', keys[4 + state])
    add_members(keys[4 + state], args[10 + state])
  end
  return 1
end

-- KEYS: meta, staged key. ARGV: term, milliseconds it may lie unused, members.
local function stage(keys, args)
  local refused = fence(keys[1], args[1])
  if refused then return refused end
  own(keys[2], 'zset')
  add_members(keys[2], args[3])
  redis.call('PEXPIRE', keys[2], args[2])
  return redis.call('ZCARD', keys[2])
end

-- ARGV as in record. The staged keys hold the members, all of them or it is refused.
local function swap(keys, args)
  local refused, old = admit(keys, args[1], args[2], args[4])
  if refused then return refused end
  for state = 1, STATES do
    if read('ZCARD', keys[7 + state]) ~= tonumber(args[7 + state]) then
      return redis.error_reply('NOSTAGE a staged set expired or was changed')
    end
  end
  record(keys, args, old)
  for state = 1, STATES do
    redis.call('UNLINK', keys[4 + state])
    if redis.call('EXISTS', keys[7 + state]) == 1 then
      redis.call('RENAME', keys[7 + state], keys[4 + state])
      redis.call('PERSIST', keys[4 + state])
    end
  end
  return 1
end

-- ARGV: term, version, name, uid ('' = any). Returns 1, or 0 when the pool there bears another uid.
local function drop_pool(keys, args)
  local refused, old = admit(keys, args[1], args[2], nil)
  if refused then return refused end
  if args[4] ~= '' and old[1] and old[1] ~= args[4] then return 0 end
  own(keys[2], 'set')
  redis.call('SREM', keys[2], args[3])
  own(keys[3], 'hash')
  unindex(keys[3], field(old[4], old[5] or ''), args[3])
  redis.call('UNLINK', unpack(keys, 4, 7))
  return 1
end

-- KEYS: meta, index. ARGV: term, entries.
local function drop_index(keys, args)
  local refused = fence(keys[1], args[1])
  if refused then return refused end
  own(keys[2], 'hash')
  return redis.call('HDEL', keys[2], unpack(args, 2))
end

-- Node writes. KEYS: meta, nodes, node, history.
local function admit_node(keys, term, version)
  local refused = fence(keys[1], term)
  if refused then return refused end
  local old_term, old_version = string.match(read('HGET', keys[3], '.facts') or '', '^(%d+) (%d+) ')
  return order(term, version, old_term, old_version)
end

-- Oldest first; one that is there already came with a write of which the answer was lost.
local function remember(key, args, first, last)
  own(key, 'list')
  for place = first, last do
    if not redis.call('LPOS', key, args[place]) then redis.call('LPUSH', key, args[place]) end
  end
  redis.call('LTRIM', key, 0, KEPT - 1)
end

-- ARGV: term, version, name, digest, number of transitions and these, then type and JSON of each.
local function replace_node(keys, args)
  local refused = admit_node(keys, args[1], args[2])
  if refused then return refused end
  local last = 5 + tonumber(args[5])
  own(keys[2], 'set')
  redis.call('SADD', keys[2], args[3])
  redis.call('UNLINK', keys[3])
  redis.call('HSET', keys[3], '.facts', args[1] .. ' ' .. args[2] .. ' ' .. args[4], unpack(args, last + 1))
  remember(keys[4], args, 6, last)
  redis.call('PERSIST', keys[4])
  return 1
end

-- ARGV: term, version, name, whether the history goes, too ('1'), transitions.
local function drop_node(keys, args)
  local refused = admit_node(keys, args[1], args[2])
  if refused then return refused end
  own(keys[2], 'set')
  redis.call('SREM', keys[2], args[3])
  redis.call('UNLINK', keys[3])
  if args[4] == '1' then
    redis.call('UNLINK', keys[4])
  else
    remember(keys[4], args, 5, #args)
    redis.call('PEXPIRE', keys[4], KEPT_MS)
  end
  return 1
end

-- KEYS: meta, pools, nodes, index. What a damaged key holds reads as empty.
local function overview(keys)
  return { DIGEST, read('HGET', keys[1], 'term') or '', read('SMEMBERS', keys[2]) or {},
    read('SMEMBERS', keys[3]) or {}, read('HGETALL', keys[4]) or {} }
end

-- KEYS: facts, ready, suspect, draining of each pool. A damaged set counts -1, damaged facts read as empty.
local function pool_facts(keys)
  local found = {}
  for first = 1, #keys, 4 do
    local facts = read('HMGET', keys[first], 'uid', 'term', 'version', 'digest', 'ready', 'suspect', 'draining') or {}
    for state = 1, STATES do facts[7 + state] = read('ZCARD', keys[first + state]) or -1 end
    for place = 1, 7 do facts[place] = facts[place] or '' end
    table.insert(found, facts)
  end
  return found
end

-- KEYS: node of each. Returns facts and number of fields, flat.
local function node_facts(keys)
  local found = {}
  for _, key in ipairs(keys) do
    table.insert(found, read('HGET', key, '.facts') or '')
    table.insert(found, read('HLEN', key) or -1)
  end
  return found
end

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

local function register(name, callback, flags)
  redis.register_function { function_name = 'hotpool_1_' .. name, callback = callback, flags = flags }
end

register('claim', claim, {})
register('stamp', stamp, { 'allow-oom' })
register('stage', stage, {})
register('swap', swap, {})
register('replace', replace, {})
register('drop_pool', drop_pool, { 'allow-oom' })
register('drop_index', drop_index, { 'allow-oom' })
register('replace_node', replace_node, {})
register('drop_node', drop_node, { 'allow-oom' })
register('overview', overview, { 'no-writes' })
register('pool_facts', pool_facts, { 'no-writes' })
register('node_facts', node_facts, { 'no-writes' })
register('pick', pick, { 'no-writes' })
register('members', members, { 'no-writes' })
register('capability', capability, { 'no-writes' })
