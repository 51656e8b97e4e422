-- Job: what the writer compares with what it wrote.

-- What one call may take of a set or hash: a server that answers one call answers nobody else.
local PART = 250
local SCANS = { set = 'SSCAN', hash = 'HSCAN' }

-- KEYS: meta.
local function overview(keys)
  return { DIGEST, read('HGET', keys[1], 'term') or '' }
end

-- KEYS: a set or a hash. ARGV: which of both, cursor. Returns the next cursor, '0' at the end, and some of what it
-- holds, maybe twice; what was there all the time is in one of the parts. A damaged key reads as empty.
local function part(keys, args)
  return read(SCANS[args[1]], keys[1], args[2], 'COUNT', PART) or { '0', {} }
end

-- KEYS: facts, ready, suspect, draining of each pool. A damaged set counts -1, damaged facts read as empty.
local function pool_facts(keys)
  local found = {}
  for first = 1, #keys, 4 do
    local facts = read('HMGET', keys[first], 'uid', 'term', 'version', 'digest', 'ready', 'suspect', 'draining') or {}
    for state = 1, STATES do facts[7 + state] = read('ZCARD', keys[first + state]) or -1 end
    for place = 1, 7 do facts[place] = facts[place] or '' end
    table.insert(found, facts)
  end
  return found
end

-- KEYS: node of each. Returns facts and number of fields, flat.
local function node_facts(keys)
  local found = {}
  for _, key in ipairs(keys) do
    table.insert(found, read('HGET', key, '.facts') or '')
    table.insert(found, read('HLEN', key) or -1)
  end
  return found
end

-- KEYS: as in pool_facts. ARGV: first and last rank. Returns of each the facts with which it was written, and the
-- members of these ranks by state.
local function pool_contents(keys, args)
  local found = {}
  for first = 1, #keys, 4 do
    local facts = read('HMGET', keys[first], 'term', 'version', 'digest') or {}
    for place = 1, 3 do facts[place] = facts[place] or '' end
    for state = 1, STATES do facts[3 + state] = read('ZRANGE', keys[first + state], args[1], args[2]) or {} end
    table.insert(found, facts)
  end
  return found
end

-- KEYS: nodes. Returns of each all that it holds.
local function node_contents(keys)
  local found = {}
  for _, key in ipairs(keys) do table.insert(found, read('HGETALL', key) or {}) end
  return found
end

register('overview', overview, { 'no-writes' })
register('part', part, { 'no-writes' })
register('pool_facts', pool_facts, { 'no-writes' })
register('node_facts', node_facts, { 'no-writes' })
register('pool_contents', pool_contents, { 'no-writes' })
register('node_contents', node_contents, { 'no-writes' })
