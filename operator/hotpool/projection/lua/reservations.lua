-- Reservations: a pick that also counts a load of the node, and takes a slot of one service of each type.

-- A pool that was found full is not looked at again for so long, unless a slot becomes free or a pool or node changes.
local FULL_MS = 100
local MAX_FULL = 1000
-- Pool and request to the reply. In memory: it concerns this server alone, and loses nothing if it is forgotten.
local full_pools, full_pools_size = {}, 0

-- A release may overtake a renewal on another connection. A renewal that comes after it must not reserve again, so ids
-- are remembered for at least RELEASED_MS, which no client waits for a reply, or for MAX_RELEASED further releases. In
-- memory: after a failover no connection to the former server delivers a renewal.
local RELEASED_MS, MAX_RELEASED = 60000, 20000
local released = { latest = {}, former = {}, size = 0, since = 0 }

local function note_released(load, id, now)
  if released.size >= MAX_RELEASED or math.abs(now - released.since) >= RELEASED_MS then
    released = { latest = {}, former = released.latest, size = 0, since = now }
  end
  released.latest[load .. ' ' .. id] = true
  released.size = released.size + 1
end

local function forget_released(load, id)
  local key = load .. ' ' .. id
  released.latest[key], released.former[key] = nil, nil
end

local function was_released(load, id)
  local key = load .. ' ' .. id
  return released.latest[key] or released.former[key]
end

local function full_key(keys, args)
  return keys[2] .. '\n' .. table.concat(args, '\n', 6)
end

-- Returns the reply of a pool that was found full a moment ago, nil if it has to be looked at.
local function recall_full(key, slots, now)
  local known = full_pools[key]
  if not known or known.freed ~= (freed[slots[1]] or 0) or known.changes ~= changes or now >= known.till then return nil end
  return known.reply
end

-- Adds to a reply the time in ms until the next reservation of the fleet expires, and remembers the reply.
local function remember_full(key, slots, now, reply)
  local first = tonumber(redis.call('ZRANGE', slots[3], 0, 0, 'WITHSCORES')[2] or now + FULL_MS)
  if full_pools_size >= MAX_FULL then full_pools, full_pools_size = {}, 0 end
  if not full_pools[key] then full_pools_size = full_pools_size + 1 end
  reply = reply .. ' ' .. string.format('%.0f', math.max(FULL_MS, first - now))
  full_pools[key] = { freed = freed[slots[1]] or 0, changes = changes, till = math.min(now + FULL_MS, first), reply = reply }
  return reply
end

-- Returns a reservation, as stated by KEYS and ARGV of reserve, or nil and an error reply.
local function parse_reservation(keys, args)
  local weight, ttl, now = parse_weight(args[2]), parse_ttl(args[3]), now_ms()
  if args[1] == '' or not weight or not ttl or not keys[9] then
    return nil, redis.error_reply('BADARGUMENT nine keys, id, weight: 0.001 to 1e9, ms: 1 to 86400000')
  end
  return {
    id = args[1], weight = weight, now = now, expiry = now + ttl, load_keys = { keys[7], keys[8], keys[9] },
    slots = keys[12] and { keys[10], keys[11], keys[12] }, failures = keys[keys[12] and 13 or 10],
  }
end

-- Removes what has expired, and an existing reservation of the id, which is from a call whose reply was lost.
local function remove_former(reservation)
  local slots, now = reservation.slots, reservation.now
  if slots then
    purge_slots(slots, now)
    free_slots(slots, reservation.id)
  end
  forget_released(reservation.load_keys[1], reservation.id)
  purge_expired(reservation.load_keys, now)
  remove_entry(reservation.load_keys, reservation.id)
  reservation.removed_former = true
end

-- Reserves in one pool. KEYS and ARGV as in reserve. Returns the reply and the node, nil without one.
local function reserve_in(reservation, keys, args)
  local slots, now, expiry = reservation.slots, reservation.now, reservation.expiry
  local room, key = nil, nil
  if slots then
    key = full_key(keys, args)
    local reply = recall_full(key, slots, now)
    if reply and not read_or_nil('HGET', slots[2], reservation.id) then
      note_refused(keys[1], keys[2], reply)
      return reply
    end
    room = { slots = slots[1], must = true, counts = true, full = {} }
  end
  if not reservation.removed_former then remove_former(reservation) end
  local reply, node, services, is_full = decide(keys, args, 4, reservation.failures, true, room)
  if not node then
    if type(reply) == 'string' then note_refused(keys[1], keys[2], reply) end
    return is_full and remember_full(key, slots, now, reply) or reply
  end
  if slots then take_slots(slots, reservation.id, node, room.taken or NONE, expiry) end
  add_entry(reservation.load_keys, reservation.id, node, reservation.weight, expiry)
  return reply .. ' ' .. string.format('%.0f', expiry) .. services, node
end

-- KEYS as in pick with load, then entries, expiries [, slots, entries and expiries of slots] [, failures]. ARGV: id,
-- weight, ms from now, then as in pick. An existing id is from a call whose reply was lost, and is replaced. Returns as
-- pick_trial. With a node, the expiry precedes its services, of which the first one of each type is taken. Without slots,
-- limits are ignored. Else the reason may be Full: then the numbers of full members looked at, of their slots in use and
-- in total, and the ms until the next reservation expires, follow.
local function reserve(keys, args)
  local reservation, refused = parse_reservation(keys, args)
  return refused or (reserve_in(reservation, keys, args))
end

-- Returns true if each of the services of a node is there and has room for one more.
local function has_room_for(slots, entry, node, services)
  local limits, of_type, caps, types = {}, {}, {}, {}
  for word in string.gmatch(entry, '[^ ]+') do
    local kind, id, _, _, limit = string.match(word, SLOTTED)
    if kind then
      types[id], limits[id] = kind, tonumber(limit)
      of_type[kind] = of_type[kind] or {}
      table.insert(of_type[kind], node .. ' ' .. id)
    else
      kind, limit = string.match(word, TYPE_LIMIT)
      if kind then caps[kind] = tonumber(limit) end
    end
  end
  for _, id in ipairs(services) do
    if not types[id] then return false end
    local used = tonumber(redis.call('HGET', slots, node .. ' ' .. id) or 0) or 0
    if limits[id] and used >= limits[id] then return false end
    if caps[types[id]] then
      local sum = 0
      for _, field in ipairs(of_type[types[id]]) do sum = sum + (tonumber(redis.call('HGET', slots, field) or 0) or 0) end
      if sum >= caps[types[id]] then return false end
    end
  end
  return true
end

-- Reserves a lost or expired reservation again on its node. Returns true if there was room.
local function restore(load_keys, slots, endpoints, id, node, weight, services, expiry)
  if services[1] then
    local entry = slots and read_or_nil('HGET', endpoints, node) or ''
    if slots and not has_room_for(slots[1], entry, node, services) then return false end
    if slots then take_slots(slots, id, node, services, expiry) end
  end
  remove_entry(load_keys, id)
  add_entry(load_keys, id, node, weight, expiry)
  return true
end

-- KEYS: load, entries, expiries [, slots, entries and expiries of slots, endpoints]. ARGV: id, ms from now [, weight, node,
-- services]. Returns node and expiry, or '' and 0 for an id that is unknown or expired. With a node, such a reservation
-- is made again if its services are there and have room, unless it was released.
local function renew(keys, args)
  local ttl, weight = parse_ttl(args[2]), parse_weight(args[3] or '1')
  if not ttl or not weight then return redis.error_reply('BADARGUMENT ms: 1 to 86400000, weight: 0.001 to 1e9') end
  local load_keys, now = { keys[1], keys[2], keys[3] }, now_ms()
  local slots = keys[7] and { keys[4], keys[5], keys[6] }
  local active, services, holder = is_active(load_keys, args[1], now), { unpack(args, 5) }, nil
  if slots then
    purge_slots(slots, now)
    holder = held_slots(slots, args[1], now)
    if not holder then free_slots(slots, args[1]) end
  end
  if holder then redis.call('ZADD', slots[3], now + ttl, args[1]) end
  if active and (holder or not slots or not services[1]) then
    redis.call('ZADD', load_keys[3], now + ttl, args[1])
    return { string.match(redis.call('HGET', load_keys[2], args[1]), '^%S+') or '', now + ttl }
  end
  if holder then -- the former library deleted the loads
    remove_entry(load_keys, args[1])
    add_entry(load_keys, args[1], holder, weight, now + ttl)
    return { holder, now + ttl }
  end
  local lost = args[4] and not was_released(keys[1], args[1])
  if lost and restore(load_keys, slots, keys[7], args[1], args[4], weight, services, now + ttl) then
    return { args[4], now + ttl }
  end
  remove_entry(load_keys, args[1])
  return { '', 0 }
end

-- KEYS: load, entries, expiries [, slots, entries and expiries of slots [, wakeups]]. ARGV: id. Returns 1, or 0 for an id
-- that is unknown or expired.
local function release(keys, args)
  local now = now_ms()
  local active, slots = is_active(keys, args[1], now), keys[6] and { keys[4], keys[5], keys[6] }
  if slots then
    purge_slots(slots, now)
    active = held_slots(slots, args[1], now) ~= nil or active
    local node = free_slots(slots, args[1])
    if node then note_room(keys[7], 'slot', node) end
  end
  if active then remove_entry({ keys[1], keys[2], keys[3] }, args[1]) end
  note_released(keys[1], args[1], now)
  return active and 1 or 0
end

register('reserve', reserve, {})
register('renew', renew, { 'allow-oom' })
