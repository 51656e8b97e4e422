-- Writes of nodes.

-- Transitions kept per node, and their expiry after the node lost its capability: one week.
local MAX_TRANSITIONS = 10
local HISTORY_TTL_MS = 604800000
-- Bytes: the reasons of the types of a withdrawal.
local MAX_EXCHANGE_GROWTH = 1024

-- KEYS of all node writes: meta, nodes, node, history [, endpoints].
local function check_node_write(keys, term, version)
  local refused = check_term(keys[1], term)
  if refused then return refused end
  local old_term, old_version = string.match(read_or_nil('HGET', keys[3], '.facts') or '', '^(%d+) (%d+) ')
  return check_version(term, version, old_term, old_version)
end

-- Notes in meta that a node has a limit: as sixth field of a service, or in a word of two fields. Picks without any node
-- with a limit cost no more for that. Never unset but with all endpoints: another node may have one.
local function note_limits(meta, text)
  for word in string.gmatch(text, '[^ ]+') do
    if string.match(word, '^[^|]+|%d+$') or string.match(word, '^[^|]*|[^|]*|[^|]*|[^|]*|[^|]*|%d+') then
      redis.call('HSET', meta, 'limits', '1')
      return
    end
  end
end

-- Replaces the endpoints of a node, '' for none.
local function write_endpoints(meta, key, node, text)
  if not key then return end
  note_limits(meta, text)
  delete_wrong_type(key, 'hash')
  if text == '' then redis.call('HDEL', key, node) else redis.call('HSET', key, node, text) end
end

-- KEYS: then facts and services of each pool of which not every service of the node meets the requirements, so that no
-- pick sees a new service before the pool's exception [, failures: ejections of services that have changed end [, wakeups]].
-- Endpoints come first: a missing right then stops the whole write. ARGV: term, version, name, digest, endpoints, number of these pools, then for each the ids that meet it, then
-- type and JSON of each capability.
local function replace_node(keys, args)
  local refused = check_node_write(keys, args[1], args[2])
  if refused then return refused end
  local pools = tonumber(args[6])
  local digest = string.match(read_or_nil('HGET', keys[3], '.facts') or '', ' (%S*)$')
  for i = 1, pools do
    local facts, services = keys[4 + 2 * i], keys[5 + 2 * i]
    delete_wrong_type(services, 'hash')
    if redis.call('EXISTS', facts) == 1 then redis.call('HSET', services, args[3], args[6 + i]) end
  end
  local endpoints = keys[5] and read_or_nil('HGET', keys[5], args[3]) or ''
  write_endpoints(keys[1], keys[5], args[3], args[5])
  delete_wrong_type(keys[2], 'set')
  redis.call('SADD', keys[2], args[3])
  redis.call('UNLINK', keys[3])
  redis.call('HSET', keys[3], '.facts', args[1] .. ' ' .. args[2] .. ' ' .. args[4], unpack(args, 7 + pools))
  redis.call('PERSIST', keys[4])
  if keys[6 + 2 * pools] then end_ejections_of(keys[6 + 2 * pools], args[3], args[5], digest ~= args[4]) end
  if endpoints ~= args[5] then note_room(keys[7 + 2 * pools], 'node', args[3]) end
  return 1
end

-- As replace_node, for a Redis that is full: 0 and no effect unless it holds the node and the new content is hardly larger.
local function exchange_node(keys, args)
  local held, wanted = 0, 0
  for _, part in ipairs(read_or_nil('HGETALL', keys[3]) or {}) do held = held + #part end
  if held > 0 and keys[5] then held = held + #(read_or_nil('HGET', keys[5], args[3]) or '') end
  for _, part in ipairs(args) do wanted = wanted + #part end
  if held == 0 or wanted > held + MAX_EXCHANGE_GROWTH then return 0 end
  return replace_node(keys, args)
end

-- KEYS: then failures, if it is kept. ARGV: term, version, name, '1' to delete the history too.
local function drop_node(keys, args)
  local refused = check_node_write(keys, args[1], args[2])
  if refused then return refused end
  write_endpoints(keys[1], keys[5], args[3], '')
  delete_wrong_type(keys[2], 'set')
  redis.call('SREM', keys[2], args[3])
  redis.call('UNLINK', keys[3])
  if args[4] == '1' then
    redis.call('UNLINK', keys[4])
  else
    redis.call('PEXPIRE', keys[4], HISTORY_TTL_MS)
  end
  if keys[6] then end_ejections_of(keys[6], args[3], '', true) end
  return 1
end

-- KEYS: meta, node, history. ARGV: term, transitions, oldest first. One that exists is from a write whose reply was lost.
local function append_history(keys, args)
  local refused = check_term(keys[1], args[1])
  if refused then return refused end
  delete_wrong_type(keys[3], 'list')
  for i = 2, #args do
    if not redis.call('LPOS', keys[3], args[i]) then redis.call('LPUSH', keys[3], args[i]) end
  end
  redis.call('LTRIM', keys[3], 0, MAX_TRANSITIONS - 1)
  if redis.call('EXISTS', keys[2]) == 0 then redis.call('PEXPIRE', keys[3], HISTORY_TTL_MS) end
  return 1
end

register('replace_node', replace_node, {})
register('exchange_node', exchange_node, { 'allow-oom' })
register('drop_node', drop_node, { 'allow-oom' })
register('append_history', append_history, { 'allow-oom' })
