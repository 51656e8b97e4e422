-- Selection of the services of a node that a pick answers. Reads only.

-- A service in the entry of a node: type|id|port|appProtocol|address,address... Later fields may follow.
local SERVICE = '^([^|]+)|([^|]+)|%d+|[^|]*|[^|]+'
local ADDRESSES = '^([^|]+|[^|]+|%d+|[^|]*|)([^|]+)'
local MAX_PARSED, MAX_ANSWERS = 1000, 10000
-- Positions in KEYS of a pick.
local ENDPOINTS_KEY, SERVICES_KEY, LOAD_KEY = 5, 6, 7

-- Text of a pool's services and of a wish to request: kinds, the types to answer in order; wanted, the same as a set;
-- required, the types of the pool as a set, nil if all services of a node meet the pool; family '4', '6' or nil; asked,
-- true if the pick needs a service of each kind. A cache, because building it costs more than the rest of a pick.
local parsed, parsed_size = {}, 0

-- Returns a set of the words of a text, and a list of them.
local function to_set(text)
  local set, list = {}, {}
  for word in string.gmatch(text, '[^ ,]+') do
    if not set[word] then table.insert(list, word) end
    set[word] = true
  end
  return set, list
end

-- `services`: flags and required types of the pool, `fe:asr nmt`. f: a service may fail to meet the pool. e: every pick
-- asks for endpoints. `wish`: `family:type,type...`, both of which may be empty; nil for a pick that asks for nothing.
-- Returns nil for an invalid wish.
local function parse_request(services, wish)
  local key = wish and services .. '\n' .. wish or services
  local request = parsed[key]
  if request then return request end
  local flags, required = string.match(services, '^(%l*):(.*)$')
  local family, types = string.match(wish or ':', '^([46]?):([^ |]*)$')
  if not family then return nil end
  request = { family = family ~= '' and family or nil, asked = wish ~= nil or string.find(flags or '', 'e') ~= nil }
  request.wanted, request.kinds = to_set(types ~= '' and types or required or '')
  if string.find(flags or '', 'f') then request.required = to_set(required) end
  if parsed_size == MAX_PARSED then parsed, parsed_size = {}, 0 end
  parsed[key], parsed_size = request, parsed_size + 1
  return request
end

-- Returns a service with its first address of a family, or nil if it has none.
local function of_family(family, word)
  local head, addresses = string.match(word, ADDRESSES)
  for address in string.gmatch(addresses, '[^,]+') do
    if (string.find(address, ':', 1, true) ~= nil) == (family == '6') then return head .. address end
  end
  return nil
end

-- Returns type to service, or to a list of services if there are several. `allowed`: ids of the services of the
-- required types that meet the pool, nil for all.
local function usable_services(request, entry, allowed)
  local found, wanted, family, required = {}, request.wanted, request.family, request.required
  allowed = allowed and to_set(allowed)
  for word in string.gmatch(entry, '[^ ]+') do
    local kind, id = string.match(word, SERVICE)
    if wanted[kind] and (not allowed or allowed[id] or not required[kind]) then
      if family then word = of_family(family, word) end
      local others = found[kind]
      if not others then
        found[kind] = word
      elseif type(others) == 'table' then
        table.insert(others, word)
      else
        found[kind] = { others, word }
      end
    end
  end
  return found
end

-- Moves the chosen one of several services to the front: drawn, or for an affinity the one with the largest hash, so
-- that only the keys of a service that goes move. Returns the rest of the chance.
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

-- Splits services into those that are not ejected and the ejected ones. If all or none are, returns them unchanged.
local function split_ejected(services, ejected)
  local first, last = {}, {}
  for _, word in ipairs(services) do
    table.insert(ejected[string.match(word, '|([^|]+)|')] and last or first, word)
  end
  if not first[1] then return services, first end
  return first, last
end

-- Answers by request and endpoints of a node, where these leave no choice. A cache, because a fleet has few of them.
local answers, answers_size = {}, 0

local function remember_answer(request, entry, text)
  if answers_size == MAX_ANSWERS then answers, answers_size = {}, 0 end
  if not answers[request] then answers[request] = {} end
  answers[request][entry], answers_size = text, answers_size + 1
end

-- Returns the services of a node as words with a blank before each. Returns nil if one that is asked for is missing.
-- `ejected`: services of the node that are answered after all others of their type, nil for none.
local function answer_services(request, entry, allowed, ejected, chance, affinity_key)
  local known = not allowed and answers[request]
  if known and known[entry] then return known[entry] end
  local found, text, fixed = usable_services(request, entry, allowed), '', not allowed
  for _, kind in ipairs(request.kinds) do
    local services = found[kind]
    if type(services) == 'table' then
      local last = NONE
      fixed = false
      if ejected then services, last = split_ejected(services, ejected) end
      chance = choose_service(services, chance, affinity_key)
      text = text .. ' ' .. table.concat(services, ' ')
      if last[1] then text = text .. ' ' .. table.concat(last, ' ') end
    elseif services then
      text = text .. ' ' .. services
    elseif request.asked then
      return nil
    end
  end
  if fixed then remember_answer(request, entry, text) end
  return text
end
