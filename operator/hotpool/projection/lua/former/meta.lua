-- The leader's claim, and the stamp of age and completeness.

-- ARGV: term, owner, cluster, milliseconds without a claim or stamp after which another cluster's projection is taken
-- over. Times are by the clock of Redis, which a failover may set back: a time in the future is no sign of life either.
-- Returns the stored term, and 1 if it is now ours, else 0.
local function claim(keys, args)
  local stored = read_or_nil('HMGET', keys[1], 'term', 'owner', 'cluster', 'stampMs', 'claimMs') or {}
  local term, now = parse_counter(stored[1], args[1]), now_ms()
  local seen = math.max(parse_number(stored[4]) or 0, parse_number(stored[5]) or 0)
  if term and stored[3] and stored[3] ~= args[3] and math.abs(now - seen) < tonumber(args[4]) then
    return redis.error_reply('OTHERCLUSTER ' .. stored[3])
  end
  if term and (term > parse_number(args[1]) or (term == parse_number(args[1]) and stored[2] ~= args[2])) then
    return { stored[1], 0 }
  end
  if not term then
    redis.call('UNLINK', keys[1])
    redis.call('HSET', keys[1], 'schema', '1', 'complete', '0')
  end
  local claimed = string.format('%.0f', now)
  redis.call('HSET', keys[1], 'term', args[1], 'owner', args[2], 'cluster', args[3], 'claimMs', claimed)
  return { args[1], 1 }
end

-- KEYS: meta, load, entries, expiries. Expired loads are purged here because dispatchers may have stopped reserving.
-- ARGV: term, complete ('1' or '0'). Returns the time in ms.
local function stamp(keys, args)
  local refused = check_term(keys[1], args[1])
  if refused then return refused end
  local now = now_ms()
  redis.call('HSET', keys[1], 'stampMs', string.format('%.0f', now), 'complete', args[2])
  purge_expired({ keys[2], keys[3], keys[4] }, now)
  return now
end

register('claim', claim, { 'allow-oom' })
register('stamp', stamp, { 'allow-oom' })
