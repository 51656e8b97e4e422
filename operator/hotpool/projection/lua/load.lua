-- Job: how loaded nodes are: reservations and reports, one entry each, of the node as a whole and not of a pool.
-- KEYS of all: load (node: sum of weights), entries (id: "node weight"), expiries (id: ms by the clock of Redis).
-- Error replies: BADARGUMENT and a text.

local PURGED = 100
local LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1e9
-- What is left of a sum of doubles when all its parts have gone.
local RESIDUE = 1e-6
local LONGEST_MS = 86400000

local function weight_of(text)
  local weight = tonumber(text)
  return weight and weight >= LEAST_WEIGHT and weight <= MOST_WEIGHT and weight or nil
end

local function span_of(text)
  local span = whole(text)
  return span and span > 0 and span <= LONGEST_MS and span or nil
end

local function add_weight(keys, node, weight)
  local sum = tonumber(redis.call('ZINCRBY', keys[1], weight, node))
  if sum < RESIDUE then redis.call('ZREM', keys[1], node) end
end

local function enter(keys, id, node, weight, expiry)
  redis.call('HSET', keys[2], id, string.format('%s %.17g', node, weight))
  redis.call('ZADD', keys[3], expiry, id)
  add_weight(keys, node, weight)
end

-- Returns the node, nil for an unknown id.
local function forget(keys, id)
  local node, weight = string.match(redis.call('HGET', keys[2], id) or '', '^(%S+) (%S+)$')
  redis.call('HDEL', keys[2], id)
  redis.call('ZREM', keys[3], id)
  if node then add_weight(keys, node, -(tonumber(weight) or 0)) end
  return node
end

-- Forgets what has expired. One key without the others (evicted, overwritten by hand) means nothing: all begin anew.
local function tidy(keys, now)
  local loaded, entries, expiries = read('ZCARD', keys[1]), read('HLEN', keys[2]), read('ZCARD', keys[3])
  if not loaded or not entries or entries ~= expiries or (loaded == 0) ~= (entries == 0) then
    redis.call('UNLINK', unpack(keys))
  elseif expiries > 0 then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', keys[3], '-inf', now, 'LIMIT', 0, PURGED)) do forget(keys, id) end
  end
end

-- Whether the id is there and has not expired: one that has is forgotten.
local function alive(keys, id, now)
  tidy(keys, now)
  local expiry = tonumber(redis.call('ZSCORE', keys[3], id) or 0)
  if expiry > now then return true end
  if expiry > 0 then forget(keys, id) end
  return false
end

-- ARGV: id. Returns 1, or 0 for an id that is not known (any more).
local function release(keys, args)
  if not alive(keys, args[1], now_ms()) then return 0 end
  forget(keys, args[1])
  return 1
end

-- ARGV: id, ms from now. Returns node and expiry, or '' and 0 for an id that is not known (any more).
local function renew(keys, args)
  local span = span_of(args[2])
  if not span then return redis.error_reply('BADARGUMENT ms: 1 to 86400000') end
  local now = now_ms()
  if not alive(keys, args[1], now) then return { '', 0 } end
  redis.call('ZADD', keys[3], now + span, args[1])
  return { string.match(redis.call('HGET', keys[2], args[1]), '^%S+') or '', now + span }
end

-- ARGV: source, ms from now, then node and weight of each; 0 takes back the source's former report.
local function report(keys, args)
  local span = span_of(args[2])
  if not span or #args % 2 == 1 then return redis.error_reply('BADARGUMENT source, ms: 1 to 86400000, pairs') end
  for place = 4, #args, 2 do
    if tonumber(args[place]) ~= 0 and not weight_of(args[place]) then
      return redis.error_reply('BADARGUMENT weight: 0, or 0.001 to 1e9')
    end
  end
  local now = now_ms()
  tidy(keys, now)
  for place = 3, #args, 2 do
    local id = 'report:' .. args[1] .. ':' .. args[place]
    forget(keys, id)
    if weight_of(args[place + 1]) then enter(keys, id, args[place], weight_of(args[place + 1]), now + span) end
  end
  return 1
end

register('release', release, { 'allow-oom' })
register('renew', renew, { 'allow-oom' })
register('report', report, {})
