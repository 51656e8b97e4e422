-- Writes of nodes.

-- Transitions kept per node, and their expiry after the node lost its capability: one week.
local MAX_TRANSITIONS = 10
local HISTORY_TTL_MS = 604800000
-- Bytes: the reasons of the types of a withdrawal.
local MAX_EXCHANGE_GROWTH = 1024

-- KEYS of all node writes: meta, nodes, node, history.
local function check_node_write(keys, term, version)
  local refused = check_term(keys[1], term)
  if refused then return refused end
  local old_term, old_version = string.match(read_or_nil('HGET', keys[3], '.facts') or '', '^(%d+) (%d+) ')
  return check_version(term, version, old_term, old_version)
end

-- ARGV: term, version, name, digest, then type and JSON of each capability.
local function replace_node(keys, args)
  local refused = check_node_write(keys, args[1], args[2])
  if refused then return refused end
  delete_wrong_type(keys[2], 'set')
  redis.call('SADD', keys[2], args[3])
  redis.call('UNLINK', keys[3])
  redis.call('HSET', keys[3], '.facts', args[1] .. ' ' .. args[2] .. ' ' .. args[4], unpack(args, 5))
  redis.call('PERSIST', keys[4])
  return 1
end

-- As replace_node, for a Redis that is full: 0 and no effect unless it holds the node and the new content is hardly larger.
local function exchange_node(keys, args)
  local held, wanted = 0, 0
  for _, part in ipairs(read_or_nil('HGETALL', keys[3]) or {}) do held = held + #part end
  for _, part in ipairs(args) do wanted = wanted + #part end
  if held == 0 or wanted > held + MAX_EXCHANGE_GROWTH then return 0 end
  return replace_node(keys, args)
end

-- ARGV: term, version, name, '1' to delete the history too.
local function drop_node(keys, args)
  local refused = check_node_write(keys, args[1], args[2])
  if refused then return refused end
  delete_wrong_type(keys[2], 'set')
  redis.call('SREM', keys[2], args[3])
  redis.call('UNLINK', keys[3])
  if args[4] == '1' then
    redis.call('UNLINK', keys[4])
  else
    redis.call('PEXPIRE', keys[4], HISTORY_TTL_MS)
  end
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
