-- Loads of nodes. Each reservation and each load report is one entry. A load belongs to the node, not to a pool.
-- KEYS of all: load (node: sum of weights), entries (id: "node weight"), expiries (id: ms by the clock of Redis).
-- Error replies: BADARGUMENT and a text.

local MAX_PURGED = 100
local MIN_WEIGHT, MAX_WEIGHT = 0.001, 1e9
-- Rounding error that may remain of a sum of doubles after all its parts are subtracted.
local EPSILON = 1e-6
local MAX_TTL_MS = 86400000

local function parse_weight(text)
  local weight = tonumber(text)
  return weight and weight >= MIN_WEIGHT and weight <= MAX_WEIGHT and weight or nil
end

local function parse_ttl(text)
  local ttl = parse_number(text)
  return ttl and ttl > 0 and ttl <= MAX_TTL_MS and ttl or nil
end

local function add_weight(keys, node, weight)
  local sum = tonumber(redis.call('ZINCRBY', keys[1], weight, node))
  if sum < EPSILON then redis.call('ZREM', keys[1], node) end
end

-- Load key to what has been reserved since its ledger was last read: nodes, and the last expiry. In memory: a server
-- that has lost it begins the ledger again (drain.lua).
local reserved = {}

local function note_reserved(load, node, expiry)
  local news = reserved[load]
  if not news then
    news = { nodes = {}, last = 0 }
    reserved[load] = news
  end
  news.nodes[node] = true
  news.last = math.max(news.last, expiry)
end

local function is_report(id)
  return string.sub(id, 1, 7) == 'report:'
end

local function add_entry(keys, id, node, weight, expiry)
  if not is_report(id) and string.sub(node, 1, 1) ~= '.' then note_reserved(keys[1], node, expiry) end
  redis.call('HSET', keys[2], id, string.format('%s %.17g', node, weight))
  redis.call('ZADD', keys[3], expiry, id)
  add_weight(keys, node, weight)
end

-- Returns the node, or nil for an unknown id.
local function remove_entry(keys, id)
  local node, weight = string.match(redis.call('HGET', keys[2], id) or '', '^(%S+) (%S+)$')
  redis.call('HDEL', keys[2], id)
  redis.call('ZREM', keys[3], id)
  if node then add_weight(keys, node, -(tonumber(weight) or 0)) end
  return node
end

-- Calls remove(keys, id) for expired entries. If the three keys disagree (one evicted or overwritten by hand), deletes all
-- of them and returns true. `size`: command that returns the size of the first key.
local function purge(keys, now, size, remove)
  local used, entries = read_or_nil(size, keys[1]), read_or_nil('HLEN', keys[2])
  local expiries = read_or_nil('ZCARD', keys[3])
  if not used or not entries or entries ~= expiries or (used == 0) ~= (entries == 0) then
    redis.call('UNLINK', unpack(keys))
    return true
  end
  if expiries > 0 then
    local expired = redis.call('ZRANGEBYSCORE', keys[3], '-inf', now, 'LIMIT', 0, MAX_PURGED)
    for _, id in ipairs(expired) do remove(keys, id) end
  end
  return false
end

-- Removes expired loads.
local function purge_expired(keys, now)
  purge(keys, now, 'ZCARD', remove_entry)
end

-- Returns true if the id exists and has not expired. Removes an expired one.
local function is_active(keys, id, now)
  purge_expired(keys, now)
  local expiry = tonumber(redis.call('ZSCORE', keys[3], id) or 0)
  if expiry > now then return true end
  if expiry > 0 then remove_entry(keys, id) end
  return false
end

-- ARGV: source, ms from now, then node and weight of each. 0 removes the source's previous report of the node.
local function report(keys, args)
  local ttl = parse_ttl(args[2])
  if not ttl or #args % 2 == 1 then return redis.error_reply('BADARGUMENT source, ms: 1 to 86400000, pairs') end
  for i = 4, #args, 2 do
    if tonumber(args[i]) ~= 0 and not parse_weight(args[i]) then
      return redis.error_reply('BADARGUMENT weight: 0, or 0.001 to 1e9')
    end
  end
  local now = now_ms()
  purge_expired(keys, now)
  for i = 3, #args, 2 do
    local id = 'report:' .. args[1] .. ':' .. args[i]
    remove_entry(keys, id)
    if parse_weight(args[i + 1]) then add_entry(keys, id, args[i], parse_weight(args[i + 1]), now + ttl) end
  end
  return 1
end

register('report', report, {})
