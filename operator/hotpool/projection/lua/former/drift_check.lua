-- Reads for the drift check.

-- Elements of a set or hash per call. The limit is needed because each call blocks the server.
local SCAN_COUNT = 250
local FACTS = { 'uid', 'term', 'version', 'digest', 'ready', 'suspect', 'draining' }
local SCANS = { set = 'SSCAN', hash = 'HSCAN' }

-- KEYS: meta. Returns the digest of the library, the stored term, and '1' if the projection is marked as complete.
local function overview(keys)
  local stored = read_or_nil('HMGET', keys[1], 'term', 'complete') or {}
  return { DIGEST, stored[1] or '', stored[2] or '' }
end

-- KEYS: a set or a hash. ARGV: 'set' or 'hash', cursor. Returns the next cursor, '0' at the end, and some elements.
-- An element may be repeated. An element that exists during all calls is returned at least once. A damaged key reads
-- as empty.
local function part(keys, args)
  return read_or_nil(SCANS[args[1]], keys[1], args[2], 'COUNT', SCAN_COUNT) or { '0', {} }
end

-- KEYS: facts, ready, suspect, draining of each pool. A damaged set has the size -1. Damaged facts read as empty.
local function pool_facts(keys)
  local reply = {}
  for first = 1, #keys, 4 do
    local facts = read_or_nil('HMGET', keys[first], unpack(FACTS)) or {}
    for state = 1, STATES do facts[7 + state] = read_or_nil('ZCARD', keys[first + state]) or -1 end
    for i = 1, 7 do facts[i] = facts[i] or '' end
    table.insert(reply, facts)
  end
  return reply
end

-- KEYS: node keys. Returns facts and number of fields of each, flat.
local function node_facts(keys)
  local reply = {}
  for _, key in ipairs(keys) do
    table.insert(reply, read_or_nil('HGET', key, '.facts') or '')
    table.insert(reply, read_or_nil('HLEN', key) or -1)
  end
  return reply
end

-- KEYS: as in pool_facts. ARGV: first and last rank. Returns, for each pool, the stamp of its last write and the
-- members of these ranks by state.
local function pool_contents(keys, args)
  local reply = {}
  for first = 1, #keys, 4 do
    local facts = read_or_nil('HMGET', keys[first], 'term', 'version', 'digest') or {}
    for i = 1, 3 do facts[i] = facts[i] or '' end
    for state = 1, STATES do facts[3 + state] = read_or_nil('ZRANGE', keys[first + state], args[1], args[2]) or {} end
    table.insert(reply, facts)
  end
  return reply
end

-- KEYS: node keys. Returns all fields of each.
local function node_contents(keys)
  local reply = {}
  for _, key in ipairs(keys) do table.insert(reply, read_or_nil('HGETALL', key) or {}) end
  return reply
end

register('overview', overview, { 'no-writes' })
register('part', part, { 'no-writes' })
register('pool_facts', pool_facts, { 'no-writes' })
register('node_facts', node_facts, { 'no-writes' })
register('pool_contents', pool_contents, { 'no-writes' })
register('node_contents', node_contents, { 'no-writes' })
