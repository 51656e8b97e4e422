-- Selection of the services of a node that a pick answers. Reads only.
-- A request has: key of the endpoints; key of the pool's services, nil if all services of a node meet the pool; types,
-- separated by a comma or a blank; wanted, the same as a set; required, the types of the pool as a set; family '4',
-- '6' or nil; asked, true if the pick needs a service of each type; affinity, the key of an affinity or nil.

-- A service in the entry of a node: type|id|port|appProtocol|address,address... Later fields may follow.
local SERVICE = '^([^|]+)|([^|]+)|(%d+)|([^|]*)|([^|]+)'

-- Returns a set of the words of a text.
local function to_set(text)
  local set = {}
  for word in string.gmatch(text, '[^ ,]+') do set[word] = true end
  return set
end

-- Returns a service with its first address of a family, or nil if it has none.
local function of_family(family, kind, id, port, protocol, addresses)
  for address in string.gmatch(addresses, '[^,]+') do
    if (string.find(address, ':', 1, true) ~= nil) == (family == '6') then
      return table.concat({ kind, id, port, protocol, address }, '|')
    end
  end
  return nil
end

-- Returns type → services that the pick may answer. `allowed`: ids of those of the required types, nil for all.
local function usable_services(request, entry, allowed)
  local found = {}
  allowed = allowed and to_set(allowed)
  for word in string.gmatch(entry, '[^ ]+') do
    local kind, id, port, protocol, addresses = string.match(word, SERVICE)
    if kind and request.wanted[kind] and (not allowed or allowed[id] or not request.required[kind]) then
      if request.family then word = of_family(request.family, kind, id, port, protocol, addresses) end
      if word and found[kind] then
        table.insert(found[kind], word)
      elseif word then
        found[kind] = { word }
      end
    end
  end
  return found
end

-- Moves the chosen one of several services to the front: drawn, or for an affinity the one with the largest hash, so
-- that only the keys of a service that goes move.
local function choose_service(services, chance, affinity_key)
  local chosen, rest, largest = 1, chance, nil
  if affinity_key then
    for i, word in ipairs(services) do
      local hash = redis.sha1hex(affinity_key .. ' ' .. string.match(word, '|([^|]+)|'))
      if not largest or hash > largest then chosen, largest = i, hash end
    end
  else
    local product = chance * #services
    chosen = 1 + math.floor(product)
    rest = product - math.floor(product)
  end
  services[1], services[chosen] = services[chosen], services[1]
  return rest
end

-- Returns the services of a node as words that begin with a blank. Returns nil if a type that is asked for is missing.
local function answer_services(request, entry, allowed, chance)
  local found, text = usable_services(request, entry or '', allowed), ''
  for kind in string.gmatch(request.types, '[^ ,]+') do
    local services = found[kind]
    if services then
      if services[2] then chance = choose_service(services, chance, request.affinity) end
      text = text .. ' ' .. table.concat(services, ' ')
    elseif request.asked then
      return nil
    end
  end
  return text
end

local function services_of(request, node, chance)
  local entry = read_or_nil('HGET', request.key, node)
  local allowed = entry and request.services and read_or_nil('HGET', request.services, node)
  return answer_services(request, entry, allowed or nil, chance)
end
