-- Job: what people and tests ask, all of it at once. All replies begin with age and completeness (pick.lua).

-- What one call tells of each list of members: a server that answers one call answers nobody else.
local PAGE = 500

-- KEYS: meta, facts, ready, suspect, draining. ARGV: the first rank. Returns age, complete, version and digest of the
-- pool ('' = unknown), the first rank of the next page (0 = none), and of each list at most PAGE from the rank on.
local function members(keys, args)
  local first = whole(args[1])
  if not first then return redis.error_reply('BADARGUMENT first rank') end
  local age, complete = freshness(keys[1])
  local facts = redis.call('HMGET', keys[2], 'version', 'digest')
  local reply = { age, complete, facts[1] or '', facts[2] or '', 0 }
  for state = 1, STATES do
    local names = redis.call('ZRANGE', keys[2 + state], first, first + PAGE - 1)
    if #names == PAGE then reply[5] = first + PAGE end
    table.insert(reply, names)
  end
  return reply
end

-- KEYS: meta, node. Returns age, complete and all fields.
local function capability(keys)
  local age, complete = freshness(keys[1])
  return { age, complete, redis.call('HGETALL', keys[2]) }
end

-- KEYS: meta, index. ARGV: entry. Returns age, complete and the name of its pool, '' for none: all of one moment.
local function find(keys, args)
  local age, complete = freshness(keys[1])
  return { age, complete, redis.call('HGET', keys[2], args[1]) or '' }
end

register('find', find, { 'no-writes' })
register('members', members, { 'no-writes' })
register('capability', capability, { 'no-writes' })
