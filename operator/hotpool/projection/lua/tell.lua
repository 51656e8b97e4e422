-- Job: what people and tests ask, all of it at once.

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

-- KEYS: meta, index. ARGV: entry. Returns freshness and the name of its pool, '' for none: both of one moment.
local function find(keys, args)
  return { freshness(keys[1]), redis.call('HGET', keys[2], args[1]) or '' }
end

register('find', find, { 'no-writes' })
register('members', members, { 'no-writes' })
register('capability', capability, { 'no-writes' })
