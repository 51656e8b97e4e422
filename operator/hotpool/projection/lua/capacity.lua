-- Room of members for a reservation: limits in the entries of nodes, compared with the slots in use. Reads only.

-- A service with an optional limit, which may lack port and addresses, and the limit of a type on its node.
local SLOTTED = '^([^|]+)|([^|]+)|(%d*)|[^|]*|([^|]*)|?(%d*)'
local TYPE_LIMIT = '^([^|]+)|(%d+)$'
local MAX_CACHED, FIELDS_PER_CALL = 10000, 1000

-- Request to entry to its services. Entries recur, and parsing is most of the cost of a search.
local cached, cached_size = {}, 0

-- Returns the number of slots that all usable services of a kind have together, nil without a limit.
local function total_of(found)
  local total = 0
  for _, service in ipairs(found.usable) do
    total = total and service.limit and total + service.limit or nil
  end
  if found.cap and (not total or found.cap < total) then return found.cap end
  return total
end

-- Adds a service to those of its kind. `word`: as answered, nil if it cannot be used.
local function add_service(kinds, kind, id, word, limit)
  local found = kinds[kind]
  if not found then
    found = { ids = {}, usable = {} }
    kinds[kind] = found
  end
  table.insert(found.ids, id)
  if word then table.insert(found.usable, { id = id, word = word, limit = limit }) end
end

local function parse_services(request, entry, allowed)
  local kinds, caps, limited = {}, {}, false
  local set = allowed and to_set(allowed)
  for word in string.gmatch(entry, '[^ ]+') do
    local kind, id, port, addresses, limit = string.match(word, SLOTTED)
    if not kind then
      kind, limit = string.match(word, TYPE_LIMIT)
      if kind and request.wanted[kind] then caps[kind], limited = tonumber(limit), true end
    elseif request.wanted[kind] then
      local usable = not set or set[id] or not request.required[kind]
      local answered = word
      if port == '' or addresses == '' then
        answered = not request.asked and word or nil
      elseif request.family then
        answered = of_family(request.family, word)
      end
      limited = limited or limit ~= ''
      add_service(kinds, kind, id, usable and answered or nil, tonumber(limit))
    end
  end
  local ids, capacity, complete, several = {}, nil, true, false
  for _, kind in ipairs(request.kinds) do
    local found = kinds[kind]
    if found then
      for _, id in ipairs(found.ids) do table.insert(ids, id) end
      found.cap = caps[kind]
      found.total = total_of(found)
      if found.total and (not capacity or found.total < capacity) then capacity = found.total end
      several = several or found.usable[2] ~= nil
    end
    if not found or not found.usable[1] then complete = false end
  end
  return {
    kinds = kinds, ids = ids, limited = limited, several = several, capacity = capacity or 1,
    lacks = request.asked and not complete,
  }
end

-- Returns the services of an entry: by kind, the ids of all, the usable ones, the limit of the type (`cap`) and of all
-- usable ones together (`total`); `ids`: those of all kinds; `limited`: any has a limit; `several`: of a kind;
-- `capacity`: the smallest total, 1 without limits; `lacks`: one that is asked for is missing.
local function services_in(request, entry, allowed)
  local of_request, key = cached[request], allowed and entry .. '\n' .. allowed or entry
  local found = of_request and of_request[key]
  if found then return found end
  if cached_size >= MAX_CACHED then cached, cached_size, of_request = {}, 0, nil end
  if not of_request then
    of_request = {}
    cached[request] = of_request
  end
  found = parse_services(request, entry, allowed)
  of_request[key], cached_size = found, cached_size + 1
  return found
end

-- Sets the numbers of slots in use of the candidates, by service.
local function read_in_use(slots, candidates)
  local fields, owners, ids, size = {}, {}, {}, 0
  for i = 1, #candidates do
    local candidate, in_use = candidates[i], {}
    local prefix, of_node = candidate.node .. ' ', candidate.services.ids
    candidate.in_use = in_use
    for j = 1, #of_node do
      size = size + 1
      fields[size], owners[size], ids[size] = prefix .. of_node[j], in_use, of_node[j]
    end
  end
  for first = 1, size, FIELDS_PER_CALL do
    local last = math.min(first + FIELDS_PER_CALL - 1, size)
    local values = read_or_nil('HMGET', slots, unpack(fields, first, last)) or NONE
    for i = first, last do
      local value = values[i - first + 1]
      owners[i][ids[i]] = value and tonumber(value) or 0
    end
  end
end

-- Sets `full` of a candidate: in use and total of the kind without room, nil if it has room for one more of each kind.
local function find_full(request, candidate)
  for _, kind in ipairs(request.kinds) do
    local found = candidate.services.kinds[kind]
    if found and found.usable[1] then
      local of_type, of_usable, room, in_use = 0, 0, false, candidate.in_use
      for i = 1, found.cap and #found.ids or 0 do of_type = of_type + in_use[found.ids[i]] end
      for i = 1, #found.usable do
        local service = found.usable[i]
        local used = in_use[service.id]
        of_usable = of_usable + used
        room = room or not service.limit or used < service.limit
      end
      local capped = found.cap and of_type >= found.cap
      if capped or not room then
        candidate.full = { in_use = capped and of_type or of_usable, total = found.total }
        return
      end
    end
  end
end

-- Returns those of the members that have the services asked for: node, services, slots in use and whether it is full.
-- A node without an entry has no limit. Slots are read only where they decide (Room: room.lua).
local function look_at(keys, names, request, room)
  local entries = read_or_nil('HMGET', keys[ENDPOINTS_KEY], unpack(names)) or NONE
  local allowed = request.required and read_or_nil('HMGET', keys[SERVICES_KEY], unpack(names)) or NONE
  local candidates, to_count = {}, {}
  for i, name in ipairs(names) do
    local services = services_in(request, entries[i] or '', entries[i] and allowed[i] or nil)
    if not services.lacks then
      local candidate = { node = name, services = services }
      table.insert(candidates, candidate)
      if room.counts and (services.limited or services.several and room.must) then table.insert(to_count, candidate) end
    end
  end
  if to_count[1] then read_in_use(room.slots, to_count) end
  for _, candidate in ipairs(to_count) do find_full(request, candidate) end
  return candidates
end

local function largest_hash(services, affinity_key)
  local chosen, largest
  for _, service in ipairs(services) do
    local hash = redis.sha1hex(affinity_key .. ' ' .. service.id)
    if not largest or hash > largest then chosen, largest = service, hash end
  end
  return chosen
end

-- Returns the service to name first, and the rest of the chance. Services with room come before full ones, of these the
-- ejected ones last, then the one with the smallest share in use. Ties are drawn, or for an affinity key the one with
-- the largest hash wins.
local function choose_by_share(usable, in_use, ejected, chance, affinity_key)
  if not usable[2] then return usable[1], chance end
  local best, best_share, ties
  for _, service in ipairs(usable) do
    local used = in_use[service.id] or 0
    local class = (service.limit and used >= service.limit and 2 or 0) + (ejected and ejected[service.id] and 1 or 0)
    local share = used / (service.limit or 1)
    if not best or class < best or class == best and share < best_share then
      best, best_share, ties = class, share, {}
    end
    if class == best and share == best_share then table.insert(ties, service) end
  end
  if affinity_key then return largest_hash(ties, affinity_key), chance end
  return draw(ties, chance)
end

-- Returns the services of a candidate as words with a blank before each, and the ids of the first one of each kind.
local function answer_candidate(request, candidate, ejected, chance, affinity_key)
  local text, taken = '', {}
  for _, kind in ipairs(request.kinds) do
    local found = candidate.services.kinds[kind]
    local usable, last, first = found and found.usable or NONE, '', nil
    if usable[1] then
      first, chance = choose_by_share(usable, candidate.in_use or NONE, ejected, chance, affinity_key)
      text = text .. ' ' .. first.word
      table.insert(taken, first.id)
    end
    for _, service in ipairs(usable) do
      if service ~= first and ejected and ejected[service.id] then
        last = last .. ' ' .. service.word
      elseif service ~= first then
        text = text .. ' ' .. service.word
      end
    end
    text = text .. last
  end
  return text, taken
end
