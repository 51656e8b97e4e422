-- Job: who writes, and since when all of it is there.

local function claim(keys, args)
  local stored = read('HMGET', keys[1], 'term', 'owner') or {}
  local term = whole(stored[1])
  if term and (term > whole(args[1]) or (term == whole(args[1]) and stored[2] ~= args[2])) then
    return { stored[1], 0 }
  end
  if not term then
    redis.call('UNLINK', keys[1])
    redis.call('HSET', keys[1], 'schema', '1', 'complete', '0')
  end
  redis.call('HSET', keys[1], 'term', args[1], 'owner', args[2])
  return { args[1], 1 }
end

-- KEYS: meta, load, entries, expiries: expired loads go even where no dispatcher reserves any more.
local function stamp(keys, args)
  local refused = fence(keys[1], args[1])
  if refused then return refused end
  local now = now_ms()
  redis.call('HSET', keys[1], 'stampMs', string.format('%.0f', now), 'complete', args[2])
  tidy({ keys[2], keys[3], keys[4] }, now)
  return now
end

register('claim', claim, {})
register('stamp', stamp, { 'allow-oom' })
