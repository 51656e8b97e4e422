-- Job: who writes, and since when all of it is there.

-- ARGV: term, owner, cluster, milliseconds without a claim or stamp after which another cluster's projection is given up.
-- By the clock of Redis, which a failover may have set back: a moment to come is no sign of life either.
local function claim(keys, args)
  local stored = read('HMGET', keys[1], 'term', 'owner', 'cluster', 'stampMs', 'claimMs') or {}
  local term, now = credible(stored[1], args[1]), now_ms()
  local seen = math.max(whole(stored[4]) or 0, whole(stored[5]) or 0)
  if term and stored[3] and stored[3] ~= args[3] and math.abs(now - seen) < tonumber(args[4]) then
    return redis.error_reply('OTHERCLUSTER ' .. stored[3])
  end
  if term and (term > whole(args[1]) or (term == whole(args[1]) and stored[2] ~= args[2])) then
    return { stored[1], 0 }
  end
  if not term then
    redis.call('UNLINK', keys[1])
    redis.call('HSET', keys[1], 'schema', '1', 'complete', '0')
  end
  redis.call('HSET', keys[1], 'term', args[1], 'owner', args[2], 'cluster', args[3], 'claimMs', string.format('%.0f', now))
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

register('claim', claim, { 'allow-oom' })
register('stamp', stamp, { 'allow-oom' })
