-- Slots of services in use. A reservation holds one slot of each service that it names, in keys of their own: the former
-- library, which deletes the keys of loads if they disagree, does not touch them.
-- KEYS of all: slots (`node service`: number in use), entries (id: `node service service ...`), expiries (id: ms by the
-- clock of Redis).

-- Key of slots to the number of slots that became free. In memory, because it only ends what is remembered for 100 ms.
local freed = {}

-- Key of a fleet's meta to `<reason> <key of facts>` to the number of reservations that were refused since the leader
-- last read it. In memory, so that a refusal writes nothing: what a failover loses is missing in a metric alone.
local MAX_REFUSED = 10000
local refused, refused_size = {}, 0

-- `reply`: of a reservation that found no node. One of a pool that does not exist is not counted.
local function note_refused(meta, facts, reply)
  local reason, version = string.match(reply, '^%- (%S+) (%S+)')
  if version == '-' then return end
  if refused_size >= MAX_REFUSED then refused, refused_size = {}, 0 end
  local of_fleet = refused[meta]
  if not of_fleet then
    of_fleet = {}
    refused[meta] = of_fleet
  end
  local field = reason .. ' ' .. facts
  if not of_fleet[field] then refused_size = refused_size + 1 end
  of_fleet[field] = (of_fleet[field] or 0) + 1
end

-- Returns what note_refused counted in a fleet, flat, and forgets it.
local function take_refused(meta)
  local flat = {}
  for field, number in pairs(refused[meta] or NONE) do
    table.insert(flat, field)
    table.insert(flat, number)
    refused_size = refused_size - 1
  end
  refused[meta] = nil
  return flat
end

local function note_freed(keys)
  freed[keys[1]] = (freed[keys[1]] or 0) + 1
end

local function add_to_slot(keys, node, service, number)
  local field = node .. ' ' .. service
  local sum = (tonumber(redis.call('HGET', keys[1], field) or 0) or 0) + number
  if sum > 0 then
    redis.call('HSET', keys[1], field, string.format('%.0f', sum))
  else
    redis.call('HDEL', keys[1], field)
  end
end

-- Takes one slot of each service of a node. No service: nothing is stored.
local function take_slots(keys, id, node, services, expiry)
  if not services[1] then return end
  redis.call('HSET', keys[2], id, node .. ' ' .. table.concat(services, ' '))
  redis.call('ZADD', keys[3], expiry, id)
  for _, service in ipairs(services) do add_to_slot(keys, node, service, 1) end
end

-- Returns the node, nil for an unknown id.
local function free_slots(keys, id)
  local node, services = string.match(redis.call('HGET', keys[2], id) or '', '^(%S+)(.*)$')
  if not node then return nil end
  redis.call('HDEL', keys[2], id)
  redis.call('ZREM', keys[3], id)
  for service in string.gmatch(services, '%S+') do add_to_slot(keys, node, service, -1) end
  note_freed(keys)
  return node
end

-- Frees the slots of expired entries.
local function purge_slots(keys, now)
  if purge(keys, now, 'HLEN', free_slots) then note_freed(keys) end
end

-- Returns node and services of an entry that has not expired, nil for none.
local function held_slots(keys, id, now)
  local expiry = tonumber(redis.call('ZSCORE', keys[3], id) or 0)
  if expiry <= now then return nil end
  return string.match(redis.call('HGET', keys[2], id) or '', '^(%S+) (.+)$')
end
