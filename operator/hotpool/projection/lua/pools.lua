-- Job: the writes of pools.

local function unindex(index, entry, name)
  if entry and redis.call('HGET', index, entry) == name then redis.call('HDEL', index, entry) end
end

-- Pool writes. KEYS: meta, pools, index, facts, ready, suspect, draining [, the three staged].
local function admit(keys, term, version, uid)
  local refused = fence(keys[1], term)
  if refused then return refused end
  local old = read('HMGET', keys[4], 'uid', 'term', 'version', 'generator', 'key', 'digest') or {}
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
local function words(text)
  local parts, size = {}, 0
  for part in string.gmatch(text, '[^ ]+') do
    size = size + 1
    parts[size] = part
  end
  return parts
end

local function add_members(key, text)
  local parts = words(text)
  if #parts > 0 then redis.call('ZADD', key, unpack(parts)) end
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

-- Whether none of these is a member (`found` false), or all are.
local function all_members(key, names, found)
  if #names == 0 then return true end
  for _, score in ipairs(read('ZMSCORE', key, unpack(names)) or { not found }) do
    if (score and true or false) ~= found then return false end
  end
  return true
end

-- ARGV as in record, then term, version and digest of what it builds on, then of each state the members to add (with
-- scores), then of each those to remove. Everything is checked before anything is written.
local function change(keys, args)
  local refused, old = admit(keys, args[1], args[2], nil)
  if not old then return refused end
  local stale = redis.error_reply('STALEBASE ' .. (whole(old[3]) and old[3] or '0'))
  if old[1] ~= args[4] or old[2] ~= args[11] or old[3] ~= args[12] or old[6] ~= args[13] then return stale end
  if refused then return refused end
  local added, removed = {}, {}
  for state = 1, STATES do
    local key, names = keys[4 + state], {}
    added[state], removed[state] = words(args[13 + state]), words(args[16 + state])
    for place = 2, #added[state], 2 do table.insert(names, added[state][place]) end
    local before = tonumber(args[7 + state]) - #names + #removed[state]
    local expected = read('ZCARD', key) == before and all_members(key, names, false)
    if not expected or not all_members(key, removed[state], true) then return stale end
  end
  record(keys, args, old)
  for state = 1, STATES do
    local key = keys[4 + state]
    if #added[state] > 0 then redis.call('ZADD', key, unpack(added[state])) end
    if #removed[state] > 0 then redis.call('ZREM', key, unpack(removed[state])) end
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

register('stage', stage, {})
register('swap', swap, {})
register('replace', replace, {})
register('change', change, {})
register('exchange', change, { 'allow-oom' }) -- a change after which there are no more members than before
register('drop_pool', drop_pool, { 'allow-oom' })
register('drop_index', drop_index, { 'allow-oom' })
