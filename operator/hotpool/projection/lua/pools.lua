-- Job: the writes of pools.

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

register('stage', stage, {})
register('swap', swap, {})
register('replace', replace, {})
register('drop_pool', drop_pool, { 'allow-oom' })
register('drop_index', drop_index, { 'allow-oom' })
