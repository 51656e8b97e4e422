-- Strategies of a pick: each chooses one member of a sorted set.

local WINDOW = 64
-- Members looked at when a pick passes over members: WINDOW, then at most so many more.
local FURTHER = 1000
local PROBES = 21
local RING = 4503599627370496

-- Returns the members among the names from `first` on: a table from name to rank, and the sorted ranks.
local function excluded_ranks(key, names, first)
  local excluded, ranks = {}, {}
  for i = first, #names do
    local rank = not excluded[names[i]] and redis.call('ZRANK', key, names[i])
    if rank then
      excluded[names[i]] = rank
      table.insert(ranks, rank)
    end
  end
  table.sort(ranks)
  return excluded, ranks
end

-- Draws a rank uniformly from the members not excluded: a rank among these, shifted past each excluded rank below it.
-- Also returns the rest of the chance, uniform in [0, 1) again. An integer times a double below 1 never rounds up to
-- the integer.
local function draw_rank(chance, available, ranks)
  local product = chance * available
  local rank = math.floor(product)
  local rest = product - rank
  for i = 1, #ranks do
    if ranks[i] > rank then break end
    rank = rank + 1
  end
  return rank, rest
end

-- Chooses one of the items. Also returns the rest of the chance.
local function draw(items, chance)
  local product = chance * #items
  local index = math.floor(product)
  return items[index + 1], product - index
end

-- Strategies return a node and the rest of the chance; affinity has none.
local function uniform(key, chance, available, _, ranks)
  local rank, rest = draw_rank(chance, available, ranks)
  return redis.call('ZRANGE', key, rank, rank)[1], rest
end

-- Returns up to `most` members from a rank on, around the ring, without the excluded ones.
local function window(key, first, most, available, excluded, ranks)
  local wanted = math.min(most, available)
  local names = redis.call('ZRANGE', key, first, first + wanted + #ranks - 1)
  local members, size = {}, 0
  for turn = 1, 2 do
    for i = 1, #names do
      if size < wanted and not excluded[names[i]] then
        size = size + 1
        members[size] = names[i]
      end
    end
    if turn == 1 and size < wanted then names = redis.call('ZRANGE', key, 0, wanted - size + #ranks - 1) end
    if size == wanted then break end
  end
  return members
end

-- Chooses one of the names with the smallest load. Ties are drawn.
local function draw_least(names, chance, load)
  local loads = read_or_nil('ZMSCORE', load, unpack(names)) or {}
  local least, ties
  for i, name in ipairs(names) do
    local value = tonumber(loads[i] or 0)
    if not least or value < least then least, ties = value, {} end
    if value == least then table.insert(ties, name) end
  end
  return draw(ties, chance)
end

-- Picks the smallest load of the window, which holds all members of a small pool.
local function least_loaded(key, chance, available, excluded, ranks, load)
  local first, rest = draw_rank(chance, available, ranks)
  return draw_least(window(key, first, WINDOW, available, excluded, ranks), rest, load)
end

-- Returns the first member not excluded at or after a position on the ring, and its score.
local function successor(key, position, excluded)
  local start, skipped = position, 0
  while true do
    local found = redis.call('ZRANGEBYSCORE', key, start, '+inf', 'WITHSCORES', 'LIMIT', skipped, 1)
    if not found[1] then
      start, skipped = '-inf', 0
    elseif not excluded[found[1]] then
      return found[1], tonumber(found[2])
    else
      skipped = skipped + 1
    end
  end
end

-- Multi-probe consistent hashing (docs/design/0004): the member at the smallest distance after any probe wins.
local function affinity(key, text, _, excluded)
  local hash = redis.sha1hex(text)
  local probe, step = tonumber(string.sub(hash, 1, 13), 16), tonumber(string.sub(hash, 14, 26), 16)
  local nearest, node
  for _ = 1, PROBES do
    local name, score = successor(key, probe, excluded)
    local distance = (score - probe) % RING
    if not nearest or distance < nearest then nearest, node = distance, name end
    probe = (probe + step) % RING
  end
  return node
end

-- Returns the rank from which neighbours are looked at, and the rest of the chance; affinity has none.
local function first_rank(key, choose, chance, available, excluded, ranks)
  if choose ~= affinity then return draw_rank(chance, available, ranks) end
  local probe = tonumber(string.sub(redis.sha1hex(chance), 1, 13), 16)
  return redis.call('ZRANK', key, (successor(key, probe, excluded)))
end

local STRATEGIES = { uniform = uniform, ['least-loaded'] = least_loaded, affinity = affinity }
