-- The ledger of reservations as drains need it (requirement C5): the three keys of loads, with a mark that is lost with
-- them. The mark is an entry of its own that never expires. A server that begins, or takes over from another one, may
-- lack reservations although it has the mark, so it makes a new one: this variable lives as long as its process.
-- A node's name does not begin with a dot.

local MARK = '.ledger'
local MARK_WEIGHT = 0.001
local MARK_EXPIRY = 4e15
local LEDGER_WINDOW = 1000
local EVIDENCE_MS = 3600000
local marked_here, read_at = nil, {}

-- Returns the time in ms since which the ledger has been complete.
local function ledger_birth(keys, now)
  purge_expired(keys, now)
  local expiry = tonumber(redis.call('ZMSCORE', keys[3], MARK)[1] or 0)
  if not marked_here or expiry ~= MARK_EXPIRY + marked_here then
    remove_entry(keys, MARK)
    marked_here = now
    add_entry(keys, MARK, MARK, MARK_WEIGHT, MARK_EXPIRY + now)
  end
  return marked_here
end

-- Calls visit(node, expiry, id) for entries by descending expiry, from a rank on (0: the mark).
local function visit_entries(keys, rank, visit)
  local found = redis.call('ZRANGE', keys[3], rank, rank + LEDGER_WINDOW - 1, 'REV', 'WITHSCORES')
  local ids = {}
  for i = 1, #found, 2 do table.insert(ids, found[i]) end
  if #ids == 0 then return end
  local entries = redis.call('HMGET', keys[2], unpack(ids))
  for i, id in ipairs(ids) do
    local node = string.match(entries[i] or '', '^%S+')
    if node and id ~= MARK then visit(node, tonumber(found[2 * i]), id) end
  end
end

-- Returns what was reserved since the last reading, also if it is released or expired. What may be older than an hour is
-- no evidence that dispatchers reserve.
local function take_reserved(load, now)
  local news = reserved[load] or { nodes = NONE, last = 0 }
  local nodes = now - (read_at[load] or now) < EVIDENCE_MS and news.nodes or NONE
  reserved[load], read_at[load] = nil, now
  return nodes, news.last
end

-- KEYS: load, entries, expiries. ARGV: rank from which further entries are looked at, then nodes. Returns the age of the
-- ledger and the time until the last expiry in ms, the number of entries, the nodes with a reservation among those
-- looked at or since the last call, and for each node of ARGV its sum of weights and its last expiry in ms (0: none among
-- the first entries).
local function ledger(keys, args)
  local now, last, found, names = now_ms(), {}, {}, {}
  local age = now - ledger_birth(keys, now)
  local nodes, last_of_new = take_reserved(keys[1], now)
  local longest = math.max(0, last_of_new - now)
  for node in pairs(nodes) do found[node] = true end
  local function note(node, expiry, id)
    if not is_report(id) then found[node] = true end
    last[node] = math.max(last[node] or 0, expiry)
    longest = math.max(longest, expiry - now)
  end
  visit_entries(keys, 0, note)
  local rank = tonumber(args[1])
  if rank >= LEDGER_WINDOW then visit_entries(keys, rank, function(node, _, id)
    if not is_report(id) then found[node] = true end
  end) end
  for node in pairs(found) do table.insert(names, node) end
  local uses = {}
  if #args > 1 then
    local weights = redis.call('ZMSCORE', keys[1], unpack(args, 2))
    for i = 2, #args do
      table.insert(uses, string.format('%.17g', tonumber(weights[i - 1] or 0)))
      table.insert(uses, string.format('%.0f', last[args[i]] or 0))
    end
  end
  return { age, longest, redis.call('ZCARD', keys[3]) - 1, names, uses }
end

register('ledger', ledger, { 'allow-oom' })
