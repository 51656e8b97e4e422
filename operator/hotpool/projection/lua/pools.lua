-- Writes of pools.

-- Number of arguments in ARGV of write_facts. The others follow.
local FACTS_ARGS = 11

local function delete_index_entry(index, entry, name)
  if entry and redis.call('HGET', index, entry) == name then redis.call('HDEL', index, entry) end
end

-- KEYS of all pool writes: meta, pools, index, facts, ready, suspect, draining [, three staged sets] [, services]
-- [, staged services] [, wakeups]. A leader that maintains endpoints passes services. They are written first: a missing right then
-- stops the whole write.
-- Returns an error reply or nil, and the stored facts. The version alone decides: a pool may be created again under its
-- name, and a late write of the former one must not replace it.
local function check_pool_write(keys, term, version)
  local refused = check_term(keys[1], term)
  if refused then return refused end
  local old = read_or_nil('HMGET', keys[4], 'uid', 'term', 'version', 'generator', 'key', 'digest') or {}
  return check_version(term, version, old[2], old[3]), old
end

-- ARGV: term, version, name, uid, digest, generator, key, ready, suspect, draining (counts), services (see
-- parse_request).
local function write_facts(keys, args, old)
  delete_wrong_type(keys[2], 'set')
  redis.call('SADD', keys[2], args[3])
  delete_wrong_type(keys[3], 'hash')
  local entry = index_field(args[6], args[7])
  local old_entry = index_field(old[4], old[5] or '')
  if old_entry ~= entry then delete_index_entry(keys[3], old_entry, args[3]) end
  if entry then redis.call('HSET', keys[3], entry, args[3]) end
  redis.call('UNLINK', keys[4])
  redis.call('HSET', keys[4], 'term', args[1], 'version', args[2], 'uid', args[4], 'digest', args[5],
    'generator', args[6], 'key', args[7], 'ready', args[8], 'suspect', args[9], 'draining', args[10],
    'services', args[11], 'changedMs', string.format('%.0f', now_ms()))
end

-- Members are one argument, `score member score member ...`: encoding hundreds of arguments is the client's main cost.
local function split(text)
  local parts, size = {}, 0
  for part in string.gmatch(text, '[^ ]+') do
    size = size + 1
    parts[size] = part
  end
  return parts
end

local function add_members(key, text)
  local parts = split(text)
  if #parts > 0 then redis.call('ZADD', key, unpack(parts)) end
end

-- Sets the services that meet the pool: `node ids node ids ...`.
local function add_services(key, text)
  local parts = split(text)
  for i = 1, #parts, 2 do redis.call('HSET', key, parts[i], parts[i + 1]) end
end

-- Wakes waiting picks of a pool that has a member to offer. ARGV as in write_facts.
local function note_members(wakeups, args)
  if tonumber(args[8]) + tonumber(args[9]) > 0 then
    note_room(wakeups, 'pool', args[3], 'key', index_field(args[6], args[7]) or '-')
  end
end

-- ARGV as in write_facts, then the members: ready, suspect, draining, then the services of nodes.
local function replace(keys, args)
  local refused, old = check_pool_write(keys, args[1], args[2])
  if refused then return refused end
  if keys[8] then
    redis.call('UNLINK', keys[8])
    add_services(keys[8], args[FACTS_ARGS + STATES + 1])
  end
  write_facts(keys, args, old)
  for state = 1, STATES do
    redis.call('UNLINK', keys[4 + state])
    add_members(keys[4 + state], args[FACTS_ARGS + state])
  end
  note_members(keys[9], args)
  return 1
end

-- Returns true if all names are members (`expected` true), or none is (`expected` false).
local function membership_is(key, names, expected)
  if #names == 0 then return true end
  for _, score in ipairs(read_or_nil('ZMSCORE', key, unpack(names)) or { not expected }) do
    if (score and true or false) ~= expected then return false end
  end
  return true
end

-- ARGV as in write_facts, then term, version and digest of the base, then per state the members to add (with scores),
-- then per state the members to remove, then services to set, then nodes whose services to remove. All checks precede
-- the first write.
local function change(keys, args)
  local refused, old = check_pool_write(keys, args[1], args[2])
  if not old then return refused end
  local stale = redis.error_reply('STALEBASE ' .. (parse_number(old[3]) and old[3] or '0'))
  if old[1] ~= args[4] or old[2] ~= args[12] or old[3] ~= args[13] or old[6] ~= args[14] then return stale end
  if refused then return refused end
  local added, removed = {}, {}
  for state = 1, STATES do
    local key, names = keys[4 + state], {}
    added[state], removed[state] = split(args[14 + state]), split(args[17 + state])
    for i = 2, #added[state], 2 do table.insert(names, added[state][i]) end
    local before = tonumber(args[7 + state]) - #names + #removed[state]
    local expected = read_or_nil('ZCARD', key) == before and membership_is(key, names, false)
    if not expected or not membership_is(key, removed[state], true) then return stale end
  end
  if keys[8] then
    delete_wrong_type(keys[8], 'hash')
    for _, node in ipairs(split(args[22])) do redis.call('HDEL', keys[8], node) end
    add_services(keys[8], args[21])
  end
  write_facts(keys, args, old)
  for state = 1, STATES do
    local key = keys[4 + state]
    if #added[state] > 0 then redis.call('ZADD', key, unpack(added[state])) end
    if #removed[state] > 0 then redis.call('ZREM', key, unpack(removed[state])) end
  end
  if #added[1] + #added[2] > 0 or (args[21] or '') .. (args[22] or '') ~= '' then note_members(keys[9], args) end
  return 1
end

-- KEYS: meta, staged set. ARGV: term, milliseconds until the set expires, members. Returns the size of the set.
local function stage(keys, args)
  local refused = check_term(keys[1], args[1])
  if refused then return refused end
  delete_wrong_type(keys[2], 'zset')
  add_members(keys[2], args[3])
  redis.call('PEXPIRE', keys[2], args[2])
  return redis.call('ZCARD', keys[2])
end

-- KEYS: meta, staged hash. ARGV: term, milliseconds until the hash expires, services of nodes. Returns its size.
local function stage_services(keys, args)
  local refused = check_term(keys[1], args[1])
  if refused then return refused end
  delete_wrong_type(keys[2], 'hash')
  add_services(keys[2], args[3])
  redis.call('PEXPIRE', keys[2], args[2])
  return redis.call('HLEN', keys[2])
end

-- Replaces a key by a staged one, which may be missing.
local function take_staged(staged, key)
  redis.call('UNLINK', key)
  if redis.call('EXISTS', staged) == 1 then
    redis.call('RENAME', staged, key)
    redis.call('PERSIST', key)
  end
end

-- ARGV as in write_facts, then the number of nodes with services. The staged keys must hold exactly the stated numbers.
local function swap(keys, args)
  local refused, old = check_pool_write(keys, args[1], args[2])
  if refused then return refused end
  local full = not keys[12] or (read_or_nil('HLEN', keys[12]) or -1) == tonumber(args[FACTS_ARGS + 1])
  for state = 1, STATES do full = full and read_or_nil('ZCARD', keys[7 + state]) == tonumber(args[7 + state]) end
  if not full then return redis.error_reply('NOSTAGE a staged key expired or was changed') end
  if keys[12] then take_staged(keys[12], keys[11]) end
  write_facts(keys, args, old)
  for state = 1, STATES do take_staged(keys[7 + state], keys[4 + state]) end
  note_members(keys[13], args)
  return 1
end

-- ARGV: term, version, name.
local function drop_pool(keys, args)
  local refused, old = check_pool_write(keys, args[1], args[2])
  if refused then return refused end
  delete_wrong_type(keys[2], 'set')
  redis.call('SREM', keys[2], args[3])
  delete_wrong_type(keys[3], 'hash')
  delete_index_entry(keys[3], index_field(old[4], old[5] or ''), args[3])
  redis.call('UNLINK', unpack(keys, 4))
  return 1
end

-- KEYS: meta, index. ARGV: term, fields. Returns the number of deleted fields.
local function drop_index(keys, args)
  local refused = check_term(keys[1], args[1])
  if refused then return refused end
  delete_wrong_type(keys[2], 'hash')
  return redis.call('HDEL', keys[2], unpack(args, 2))
end

register('stage', stage, {})
register('stage_services', stage_services, {})
register('swap', swap, {})
register('replace', replace, {})
register('change', change, {})
register('exchange', change, { 'allow-oom' }) -- a change that does not increase the number of members
register('drop_pool', drop_pool, { 'allow-oom' })
register('drop_index', drop_index, { 'allow-oom' })
