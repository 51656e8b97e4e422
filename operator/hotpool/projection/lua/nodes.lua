-- Job: the writes of nodes.

-- Transitions of a node that are kept, and for how long once it has no capability any more: a week.
local KEPT = 10
local KEPT_MS = 604800000

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

register('replace_node', replace_node, {})
register('drop_node', drop_node, { 'allow-oom' })
