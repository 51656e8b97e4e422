-- Ordered fallback: the first of several pools that has a node answers.
-- KEYS of all: those of the function for one pool, with the keys of the first pool; then facts, ready, suspect and
-- services of each further pool; then index. ARGV of all: number of pools, index field of each ('' = any), then as in
-- the function for one pool, whose index field is ignored.
-- Returns the number of the pool, a blank and its reply. Without a node, returns the replies of all pools in order, a
-- line each. If the index has another pool for a field than the one that was passed: a line `?` and the name of the pool
-- of each field, - for none.

local MAX_POOLS = 32
local KEYS_PER_POOL = 4

-- Returns the names of the pools of all fields, or nil if the index has none but the passed one for this field.
local function moved_pools(index, fields, field, facts)
  local name = field ~= '' and read_or_nil('HGET', index, field)
  if not name or string.sub(facts, -#name - 6) == ':pool:' .. name then return nil end
  local names = { '?' }
  for _, other in ipairs(fields) do
    local found = other ~= '' and read_or_nil('HGET', index, other)
    table.insert(names, found or '-')
  end
  return table.concat(names, ' ')
end

-- Returns index fields, keys and arguments for the first pool, or nil and an error reply. `how`: position of the strategy
-- in these arguments.
local function parse_fallback(keys, args, how)
  local count = parse_number(args[1])
  local own = count and #keys - 1 - KEYS_PER_POOL * (count - 1) or 0
  if not count or count < 1 or count > MAX_POOLS or own < SERVICES_KEY or #args < 1 + count + how then
    return nil, redis.error_reply('BADARGUMENT number of pools: 1 to 32, four keys of each further one, index, fields')
  end
  local fields, pool_args = {}, {}
  for i = 1, #args - 1 do
    if i <= count then fields[i] = args[1 + i] else pool_args[i - count] = args[1 + i] end
  end
  for i = how + 1, how + 3 do pool_args[i] = pool_args[i] or '' end
  return fields, { unpack(keys, 1, own) }, pool_args
end

-- Calls ask(keys, args) for each pool until it returns a node after its reply.
local function first_of(keys, args, how, ask)
  local fields, pool_keys, pool_args = parse_fallback(keys, args, how)
  if not fields then return pool_keys end
  local replies, at = {}, #pool_keys
  for i, field in ipairs(fields) do
    if i > 1 then
      pool_keys[2], pool_keys[3], pool_keys[4], pool_keys[SERVICES_KEY] = unpack(keys, at + 1, at + KEYS_PER_POOL)
      at = at + KEYS_PER_POOL
    end
    pool_args[how + 3] = field
    local reply, node = ask(pool_keys, pool_args)
    if type(reply) == 'table' then return reply end -- an error
    if node then return i .. ' ' .. reply end
    if string.find(reply, '^%- %a+Unknown ') then
      local moved = moved_pools(keys[#keys], fields, field, pool_keys[2])
      if moved then return moved end
    end
    replies[i] = reply
  end
  return table.concat(replies, '\n')
end

local function pick_in(takes_trials)
  return function(keys, args)
    local reply, node, services = decide(keys, args, 1, failures_of(keys, args[1]), takes_trials, nil, keys[9])
    return node and reply .. services or reply, node
  end
end

local function pick_first(keys, args)
  return first_of(keys, args, 1, pick_in(false))
end

local function pick_first_trial(keys, args)
  return first_of(keys, args, 1, pick_in(true))
end

-- KEYS and ARGV begin as those of reserve.
local function reserve_first(keys, args)
  local own, id = parse_number(args[1]) or 0, {}
  for i = 1, 3 do id[i] = args[1 + own + i] end
  local last = #keys - 1 - KEYS_PER_POOL * (own - 1)
  local reservation, refused = parse_reservation({ unpack(keys, 1, last) }, id)
  if refused then return refused end
  return first_of(keys, args, 4, function(pool_keys, pool_args)
    return reserve_in(reservation, pool_keys, pool_args)
  end)
end

register('pick_first', pick_first, { 'no-writes' })
register('pick_first_trial', pick_first_trial, {})
register('reserve_first', reserve_first, {})
