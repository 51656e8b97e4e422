-- Wake-ups of waiting picks (requirement E10).
-- `wakeups`, a stream that exists only while a pick waits: each line names what may have made room. `slot` and a node:
-- slots of its services became free; `pool`, its name, `key` and its index field: members or services changed; `node` and
-- its name: endpoints or limits changed; `stamp`: the projection was confirmed. Lines are hints: a waiter tries its oldest
-- picks again at intervals anyway. `waiters`, a hash: client to `expiry pool number pool number ...`.

local MAX_LINES, WAITING_MS = 1000, 15000
-- Number of changes of pools and nodes on this server. A pool found full is looked at again after one.
local changes = 0

-- Notes that a line of words may have made room. Writes nothing unless a pick waits and the user has the right: an
-- error after the writes of the caller would leave half of its work.
local function note_room(wakeups, kind, ...)
  if kind ~= 'slot' then changes = changes + 1 end
  if not wakeups or not redis.acl_check_cmd('XADD', wakeups, '*', '1', '1') then return end
  redis.pcall('XADD', wakeups, 'NOMKSTREAM', 'MAXLEN', '~', MAX_LINES, '*', kind, ...)
end

-- Adds a line to the stream, which is created if it is missing, and returns its id. A key of another type is replaced.
local function begin_waiting(wakeups)
  local words = { 'XADD', wakeups, 'MAXLEN', '~', MAX_LINES, '*', 'waiting', '-' }
  local id = read_or_nil(unpack(words))
  if id then return id end
  redis.call('UNLINK', wakeups)
  return redis.call(unpack(words))
end

-- KEYS: wakeups, waiters. ARGV: id of the last line that the client knows ('' = none), the client, then pool and number of
-- its waiters in turn. Keeps the stream for 15 s. Returns the id to read from: the given one, or that of a new line if
-- lines may be missing.
local function wait(keys, args)
  if not keys[2] or (args[2] or '') == '' or #args % 2 ~= 0 then
    return redis.error_reply('BADARGUMENT keys: wakeups, waiters; id, client, pairs of pool and number')
  end
  for i = 4, #args, 2 do
    if not parse_number(args[i]) then return redis.error_reply('BADARGUMENT number of waiters') end
  end
  local id = args[1]
  if redis.call('PEXPIRE', keys[1], WAITING_MS) == 0 or id == '' then
    id = begin_waiting(keys[1])
    redis.call('PEXPIRE', keys[1], WAITING_MS)
  end
  local words = { string.format('%.0f', now_ms() + WAITING_MS), unpack(args, 3) }
  if not read_or_nil('HSET', keys[2], args[2], table.concat(words, ' ')) then
    redis.call('UNLINK', keys[2])
    redis.call('HSET', keys[2], args[2], table.concat(words, ' '))
  end
  redis.call('PEXPIRE', keys[2], WAITING_MS)
  return id
end

-- KEYS: meta, waiters. ARGV: term. Returns pool and number of waiters of each client in turn.
local function waiters(keys, args)
  local refused = check_term(keys[1], args[1])
  if refused then return refused end
  local now, reply = now_ms(), {}
  local stored = read_or_nil('HGETALL', keys[2]) or NONE
  for i = 1, #stored, 2 do
    local expiry, numbers = string.match(stored[i + 1], '^(%d+)(.*)$')
    if expiry and tonumber(expiry) > now then
      for pool, number in string.gmatch(numbers, ' (%S+) (%d+)') do
        table.insert(reply, pool)
        table.insert(reply, parse_number(number) and number or '0')
      end
    else
      redis.call('HDEL', keys[2], stored[i])
    end
  end
  return reply
end

register('wait', wait, { 'allow-oom' })
register('waiters', waiters, { 'allow-oom' })
