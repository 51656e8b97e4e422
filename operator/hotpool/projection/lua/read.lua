-- Reads for people and tests, each from one point in time. Every reply begins with age and completeness (pick.lua).

-- Members per state and call. The limit is needed because each call blocks the server.
local PAGE_SIZE = 500

-- KEYS: meta, facts, ready, suspect, draining. ARGV: the first rank. Returns age, complete, version and digest of the
-- pool ('' = unknown), the first rank of the next page (0 = none), and at most PAGE_SIZE members of each state.
local function members(keys, args)
  local first = parse_number(args[1])
  if not first then return redis.error_reply('BADARGUMENT first rank') end
  local age, complete = freshness(keys[1])
  local facts = redis.call('HMGET', keys[2], 'version', 'digest')
  local reply = { age, complete, facts[1] or '', facts[2] or '', 0 }
  for state = 1, STATES do
    local names = redis.call('ZRANGE', keys[2 + state], first, first + PAGE_SIZE - 1)
    if #names == PAGE_SIZE then reply[5] = first + PAGE_SIZE end
    table.insert(reply, names)
  end
  return reply
end

-- KEYS: meta, node. Returns age, complete and all fields.
local function capability(keys)
  local age, complete = freshness(keys[1])
  return { age, complete, redis.call('HGETALL', keys[2]) }
end

-- KEYS: meta, index. ARGV: field. Returns age, complete, the name of the pool and '', or '' and the reason for none.
local function find(keys, args)
  local age, complete = freshness(keys[1])
  local name = redis.call('HGET', keys[2], args[1])
  return { age, complete, name or '', name and '' or reason_without_pool(keys[1], age) }
end

register('find', find, { 'no-writes' })
register('members', members, { 'no-writes' })
register('capability', capability, { 'no-writes' })
