-- Picks of a node. Every strategy chooses among the Ready members, of these among the ejected ones if no other is left,
-- or among the Suspect ones if no Ready one is left.
-- Error replies: BADARGUMENT and a text.

-- Returns the ms since the leader's last stamp (-1: never), '1' if the projection is complete, else '0', true if the
-- leader maintains endpoints, and true if a node may have a limit.
local function freshness(meta)
  local stored, age = read_or_nil('HMGET', meta, 'stampMs', 'complete', 'term', 'endpoints', 'limits') or NONE, -1
  local stamp = tonumber(stored[1])
  if stamp and stamp > 0 then
    age = now_ms() - stamp
    if age < 0 then age = 0 end -- the clock of Redis was set back
  end
  return age, stored[2] == '1' and '1' or '0', stored[3] and stored[3] == stored[4], stored[5] == '1'
end

-- Returns the reason for a missing pool. A fleet is unknown while no leader has claimed it. `age`: as of freshness.
local function reason_without_pool(meta, age)
  if age >= 0 or (read_or_nil('HMGET', meta, 'term') or NONE)[1] then return 'PoolUnknown' end
  return 'FleetUnknown'
end

-- Returns true if the projection has no stamp, is incomplete or is older than max_age. Without max_age it is not stale.
local function is_stale(age, complete, max_age)
  return max_age and (age < 0 or complete ~= '1' or age > parse_number(max_age))
end

-- Returns an argument, or nil for an empty or missing one.
local function non_empty(text)
  return text ~= '' and text or nil
end

-- Returns the error in the arguments of a pick, or nil.
local function argument_error(keys, choose, chance, max_age, wish)
  if not keys[SERVICES_KEY] then return 'keys: meta, facts, ready, suspect, endpoints, services' end
  if not choose then return 'strategy: uniform, least-loaded or affinity' end
  if choose == affinity and (chance or '') == '' then return 'affinity needs a key' end
  if choose ~= affinity and not (chance and chance >= 0 and chance < 1) then return 'chance: 0 up to 1' end
  if choose == least_loaded and not keys[LOAD_KEY] then return 'least-loaded needs the key load' end
  if max_age and not parse_number(max_age) then return 'max age: ms' end
  if wish and not parse_request(':', wish) then return 'endpoints: family 4, 6 or none, a colon, types' end
  return nil
end

-- Returns the version of the pool, nil if there is none or if the pool does not have the wanted index field. Also
-- returns the request for endpoints, nil if none can be answered, and true if the pick asks for them: then it passes
-- over members without.
local function read_pool(keys, wanted, wish, maintained)
  local stored
  if wanted then
    stored = redis.call('HMGET', keys[2], 'version', 'services', 'generator', 'key')
    if index_field(stored[3], stored[4] or '') ~= wanted then return nil end
  else
    stored = redis.call('HMGET', keys[2], 'version', 'services')
  end
  if not maintained or not (stored[2] or wish) then return stored[1], nil, wish ~= nil end
  local request = parse_request(stored[2] or ':', wish)
  if not request.kinds[1] then return stored[1], nil, request.asked end
  return stored[1], request, request.asked
end

-- Returns the services of a node that a pick answers, '' for none, or nil if one that is asked for is missing.
local function services_of(keys, request, node, avoid, chance, affinity_key)
  local entry = read_or_nil('HGET', keys[ENDPOINTS_KEY], node)
  if not entry then return not request.asked and '' or nil end
  local allowed = request.required and read_or_nil('HGET', keys[SERVICES_KEY], node) or nil
  return answer_services(request, entry, allowed, avoid[node], chance, affinity_key)
end

-- Returns the members of the first group of neighbours that have the endpoints asked for: names, entries by name, and
-- the number of members looked at. Positions on the ring are random, so no member is favoured.
local function search(keys, key, first, available, excluded, ranks, request)
  local names, looked_at = window(key, first, WINDOW, available, excluded, ranks), 0
  while looked_at < #names do
    local last = math.min(looked_at + WINDOW, #names)
    local entries = read_or_nil('HMGET', keys[ENDPOINTS_KEY], unpack(names, looked_at + 1, last)) or NONE
    local allowed = request.required
      and read_or_nil('HMGET', keys[SERVICES_KEY], unpack(names, looked_at + 1, last)) or NONE
    local found, services = {}, {}
    for i = 1, last - looked_at do
      local name = names[looked_at + i]
      if entries[i] and answer_services(request, entries[i], allowed[i] or nil, nil, 0) then
        table.insert(found, name)
        services[name] = { entries[i], allowed[i] or nil }
      end
    end
    looked_at = last
    if found[1] then return found, services, looked_at end
    if looked_at == #names and looked_at < available and looked_at <= WINDOW then
      names = window(key, first, WINDOW + FURTHER, available, excluded, ranks)
    end
  end
  return nil, nil, looked_at
end

-- Returns a member with the endpoints asked for and its services, or nil, nil and the number of members looked at.
local function pick_with_endpoints(keys, key, choose, chance, available, excluded, ranks, request, avoid)
  local first, rest = first_rank(key, choose, chance, available, excluded, ranks)
  local names, services, looked_at = search(keys, key, first, available, excluded, ranks, request)
  if not names then return nil, nil, looked_at end
  local node = names[1]
  if choose == least_loaded then
    node, rest = draw_least(names, rest, keys[LOAD_KEY])
  elseif choose == uniform then
    node, rest = draw(names, rest)
  end
  local entry, allowed = unpack(services[node], 1, 2)
  return node, answer_services(request, entry, allowed, avoid[node], rest, not rest and chance or nil), 0
end

-- Returns a node of one set and its services (nil, nil if there is none), the size of the set, the number excluded, and
-- the number of members that were passed over, or looked at, for want of endpoints. `avoid`: services by node that are
-- answered last. `room`: see room.lua, nil to ignore limits.
local function choose_from(keys, state, choose, chance, args, first_excluded, request, asked, avoid, room)
  local key, load, excluded, ranks = keys[state], keys[LOAD_KEY], NONE, NONE
  local size = redis.call('ZCARD', key)
  if size > 0 and args[first_excluded] then excluded, ranks = excluded_ranks(key, args, first_excluded) end
  local available = size - #ranks
  if available == 0 then return nil, nil, size, size, 0 end
  if asked and not request then return nil, nil, size, #ranks, available end
  if room and request then
    local node, services, without =
      choose_with_room(keys, key, choose, chance, available, excluded, ranks, request, avoid, room)
    return node, services, size, #ranks, without
  end
  local node, rest = choose(key, chance, available, excluded, ranks, load)
  if not request then return node, '', size, #ranks, 0 end
  local services, without = services_of(keys, request, node, avoid, rest, not rest and chance or nil), 0
  if not services then
    node, services, without =
      pick_with_endpoints(keys, key, choose, chance, available, excluded, ranks, request, avoid)
  end
  return node, services, size, #ranks, without
end

-- Returns a Ready node whose services are due for a trial, and its services; nil if there is none. An affinity key tries
-- its own node only.
local function node_to_try(keys, choose, chance, args, first_excluded, request, asked, ejected, room)
  local node = ejected.due
  if not node then return nil end
  if choose == affinity then
    local own, services = choose_from(keys, 3, choose, chance, args, first_excluded, request, asked, ejected.avoid, room)
    if own and ejected.is_due[own] then return own, services end
    return nil
  end
  if not request then return node, not asked and '' or nil end
  if room and room.must then return node_with_room(keys, node, request, ejected.avoid, room, chance) end
  return node, services_of(keys, request, node, ejected.avoid, chance)
end

-- Chooses among the Ready members, the ejected ones last. Returns the state to answer, then as choose_from. `failures`:
-- the key, nil to ignore ejections. `takes_trials`: a due trial is the choice, and noted. Else a due one is announced by
-- the word `trial` after the services.
local function choose_ready(keys, choose, chance, args, first_excluded, request, asked, failures, takes_trials, room)
  local text = failures and redis.pcall('HGET', failures, EJECTED)
  if type(text) == 'table' then text = read_or_nil('HGET', failures, EJECTED) end -- an error, which may be raised
  local list = text and parse_ejected(text)
  if list and list.due > now_ms() then
    -- A choice that is not ejected has the same chances as one among the others alone.
    local node, services, size, excluded, without =
      choose_from(keys, 3, choose, chance, args, first_excluded, request, asked, NONE, room)
    if not node or not list.records[node] then return 'Ready', node, services, size, excluded, without end
  end
  local ejected = list and ejected_members(keys, list, request, args, first_excluded)
  if not ejected then
    return 'Ready', choose_from(keys, 3, choose, chance, args, first_excluded, request, asked, NONE, room)
  end
  local tried, tried_services = node_to_try(keys, choose, chance, args, first_excluded, request, asked, ejected, room)
  if tried_services and takes_trials then
    note_trial(failures, ejected.blocking[tried])
    return 'Trial', tried, tried_services
  end
  local passed_over = ejected.nodes
  for i = first_excluded, #args do table.insert(passed_over, args[i]) end
  local state, node, services, size, excluded, without =
    'Ready', choose_from(keys, 3, choose, chance, passed_over, 1, request, asked, ejected.avoid, room)
  if not node then
    state, node, services, size, excluded, without =
      'Ejected', choose_from(keys, 3, choose, chance, args, first_excluded, request, asked, ejected.avoid, room)
  end
  if node and tried_services then services = services .. ' trial' end
  return state, node, services, size, excluded, without
end

-- Returns the full members that were looked at, and their slots in use and in total; nil for none.
local function count_full(keys, room)
  local ready, suspect = room.full[keys[3]] or NONE, room.full[keys[4]] or NONE
  local nodes = (ready.nodes or 0) + (suspect.nodes or 0)
  if nodes == 0 then return nil end
  return {
    nodes = nodes, in_use = (ready.in_use or 0) + (suspect.in_use or 0), total = (ready.total or 0) + (suspect.total or 0),
  }
end

-- KEYS: meta, facts, ready, suspect, endpoints, services [, load]. ARGV from `first`: strategy, chance in [0, 1) or the
-- key of an affinity [, endpoints asked for ('' = none), index field ('' = any), max age in ms ('' = any), excluded
-- names]. `failures`, `takes_trials`: see choose_ready. Returns a line `node state version age complete` and its
-- services, each a word with a blank before it; without a node `- reason version age complete ready suspect draining
-- excluded without`, with the version - for an unknown pool. The reply is one line because a client parses each element
-- of an array separately. Members are counted only if needed, because the calls dominate the cost of a pick. Also
-- returns the node and its services; without a node and for the reason Full nil, nil and true, and the reply ends with
-- the numbers of full members looked at, of their slots in use and in total. `room`: see room.lua, nil for a pick, which
-- prefers members with room if it has the key `slots`, and refuses none.
local function decide(keys, args, first, failures, takes_trials, room, slots)
  local choose, chance, max_age = STRATEGIES[args[first]], args[first + 1], non_empty(args[first + 4])
  local wish = non_empty(args[first + 2])
  if choose ~= affinity then chance = tonumber(chance) end
  local refused = argument_error(keys, choose, chance, max_age, wish)
  if refused then return redis.error_reply('BADARGUMENT ' .. refused) end
  local age, complete, maintained, limited = freshness(keys[1])
  if room then room.limited = limited end
  if limited and slots and choose ~= affinity then
    room = { slots = slots, counts = choose == uniform, limited = true, full = {} } -- with least-loaded, loads tell enough
  end
  local version, request, asked = read_pool(keys, non_empty(args[first + 3]), wish, maintained)
  local stale, fresh = is_stale(age, complete, max_age), ' ' .. age .. ' ' .. complete
  if not version then
    return '- ' .. (stale and 'Stale' or reason_without_pool(keys[1], age)) .. ' -' .. fresh .. ' 0 0 0 0 0'
  end
  local state, node, services, ready, suspect = 'Ready', nil, nil, nil, 0
  local ready_excluded, suspect_excluded, ready_without, suspect_without = 0, 0, 0, 0
  if stale then
    ready, suspect = redis.call('ZCARD', keys[3]), redis.call('ZCARD', keys[4])
  else
    local from = first + 5
    state, node, services, ready, ready_excluded, ready_without =
      choose_ready(keys, choose, chance, args, from, request, asked, failures, takes_trials, room)
    if not node then
      state = 'Suspect'
      node, services, suspect, suspect_excluded, suspect_without =
        choose_from(keys, 4, choose, chance, args, from, request, asked, NONE, room)
    end
  end
  if node then return node .. ' ' .. state .. ' ' .. version .. fresh, node, services end
  local draining, excluded = tonumber(redis.call('HGET', keys[2], 'draining')) or 0, ready_excluded + suspect_excluded
  local without = ready_without + suspect_without
  local full = room and not stale and count_full(keys, room)
  local reason = stale and 'Stale' or full and 'Full' or without > 0 and 'NoEndpoint' or excluded > 0 and 'AllExcluded'
    or draining > 0 and 'OnlyDraining' or 'Empty'
  local reply = table.concat({ '-', reason, version .. fresh, ready, suspect, draining, excluded, without }, ' ')
  if not full then return reply end
  return table.concat({ reply, full.nodes, full.in_use, full.total }, ' '), nil, nil, true
end

-- Returns the key of failures of a pick, nil if it is not passed. Only least-loaded needs the key of loads before it.
local function failures_of(keys, strategy)
  return keys[8] or strategy ~= 'least-loaded' and keys[7] or nil
end

-- KEYS: meta, facts, ready, suspect, endpoints, services [, load, for least-loaded] [, failures], or all of these, then
-- slots.
local function pick(keys, args)
  local reply, node, services = decide(keys, args, 1, failures_of(keys, args[1]), false, nil, keys[9])
  return node and reply .. services or reply
end

-- As pick, but may choose an ejected node for a trial.
local function pick_trial(keys, args)
  local reply, node, services = decide(keys, args, 1, failures_of(keys, args[1]), true, nil, keys[9])
  return node and reply .. services or reply
end

register('pick', pick, { 'no-writes' })
register('pick_trial', pick_trial, {})
