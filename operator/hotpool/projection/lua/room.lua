-- Choice of a member with room.
-- Room: `slots`, the key; `must`, true for a reservation, which passes over full members, while a pick only prefers
-- others; `counts`, true if slots are read; `limited`, true if a node may have a limit. Results: `taken`, ids of the
-- services to take, in the order of kinds; `full`, by key of members: number of full ones looked at, their slots in use
-- and in total.

-- Returns a node, its services and a 0 for the members that were passed over.
local function take(candidate, request, avoid, room, chance, affinity_key)
  local services
  services, room.taken = answer_candidate(request, candidate, avoid[candidate.node], chance, affinity_key)
  return candidate.node, services, 0
end

-- Returns a node and its services, or nil if it is full or lacks a service that is asked for.
local function node_with_room(keys, node, request, avoid, room, chance)
  local candidate = look_at(keys, { node }, request, room)[1]
  if not candidate or candidate.full then return nil end
  return take(candidate, request, avoid, room, chance)
end

-- Chooses the candidate with the smallest load for its capacity. Ties are drawn in proportion to the capacity.
local function draw_least_share(candidates, chance, load)
  local names, least, ties, total = {}, nil, {}, 0
  for i, candidate in ipairs(candidates) do names[i] = candidate.node end
  local loads = read_or_nil('ZMSCORE', load, unpack(names)) or NONE
  for i, candidate in ipairs(candidates) do
    local capacity = candidate.services.capacity
    local share = tonumber(loads[i] or 0) / capacity
    if not least or share < least then least, ties, total = share, {}, 0 end
    if share == least then
      table.insert(ties, candidate)
      total = total + capacity
    end
  end
  local position = chance * total
  for _, candidate in ipairs(ties) do
    local capacity = candidate.services.capacity
    if position < capacity then return candidate, position / capacity end
    position = position - capacity
  end
  return ties[#ties], 0
end

-- Splits candidates into those with room, which are returned, and full ones, which are counted in `room` and `full`.
local function with_room(candidates, room, full)
  local found = {}
  for _, candidate in ipairs(candidates) do
    if candidate.full then
      full.nodes, full.in_use = full.nodes + 1, full.in_use + candidate.full.in_use
      full.total = full.total + candidate.full.total
      if not room.must then room.fallback = room.fallback or candidate end
    else
      table.insert(found, candidate)
    end
  end
  return found
end

-- Returns the members with room of the first group of neighbours that has any, else nil, and the number of members that
-- lack a service. A pick that has a full member to fall back on looks at the first group only.
local function search_room(keys, key, first, available, excluded, ranks, request, room)
  local names, looked_at, lacking = window(key, first, WINDOW, available, excluded, ranks), 0, 0
  local full = { nodes = 0, in_use = 0, total = 0 }
  room.full[key] = full
  while looked_at < #names do
    local last = math.min(looked_at + WINDOW, #names)
    local candidates = look_at(keys, { unpack(names, looked_at + 1, last) }, request, room)
    local found = with_room(candidates, room, full)
    lacking, looked_at = lacking + last - looked_at - #candidates, last
    if found[1] then return found, lacking end
    if room.fallback then return nil, lacking end
    if looked_at == #names and looked_at < available and looked_at <= WINDOW then
      names = window(key, first, WINDOW + FURTHER, available, excluded, ranks)
    end
  end
  return nil, lacking
end

-- Returns the neighbour with the smallest load for its capacity, as a candidate, and the rest of the chance. Slots are
-- not read: the load of a full node is rarely the smallest.
local function least_loaded_of(keys, key, chance, available, excluded, ranks, request)
  local first, rest = draw_rank(chance, available, ranks)
  local names = window(key, first, WINDOW, available, excluded, ranks)
  local candidates = look_at(keys, names, request, { limited = true })
  if not candidates[1] then return nil, rest end
  return draw_least_share(candidates, rest, keys[LOAD_KEY])
end

-- Returns the first choice of a strategy as a candidate, nil if it lacks a service that is asked for, and the rest of
-- the chance.
local function first_choice(keys, key, choose, chance, available, excluded, ranks, request, room)
  local node, rest, candidate
  if choose ~= least_loaded or not room.limited then
    node, rest = choose(key, chance, available, excluded, ranks, keys[LOAD_KEY])
    return look_at(keys, { node }, request, room)[1], rest
  end
  candidate, rest = least_loaded_of(keys, key, chance, available, excluded, ranks, request)
  if candidate and room.counts then candidate = look_at(keys, { candidate.node }, request, room)[1] end
  return candidate, rest
end

-- Returns a member and its services, or nil, nil and the number of members that lack a service.
local function choose_with_room(keys, key, choose, chance, available, excluded, ranks, request, avoid, room)
  local affinity_key, first = choose == affinity and chance or nil, nil
  local candidate, rest = first_choice(keys, key, choose, chance, available, excluded, ranks, request, room)
  if candidate and not candidate.full then return take(candidate, request, avoid, room, rest, affinity_key) end
  room.fallback = not room.must and candidate or nil
  first, rest = first_rank(key, choose, chance, available, excluded, ranks)
  local found, lacking = search_room(keys, key, first, available, excluded, ranks, request, room)
  if not found and not room.fallback then return nil, nil, lacking end
  local chosen = found and found[1] or room.fallback
  if found and choose == least_loaded then
    chosen, rest = draw_least_share(found, rest, keys[LOAD_KEY])
  elseif found and choose == uniform then
    chosen, rest = draw(found, rest)
  end
  return take(chosen, request, avoid, room, rest, affinity_key)
end
