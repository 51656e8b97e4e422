-- The leader's claim, and the stamp of age and completeness.

-- KEYS: meta [, endpoints, if this leader maintains them]. ARGV: term, owner, cluster, milliseconds without a claim or
-- stamp after which another cluster's projection is taken over. Times are by the clock of Redis, which a failover may
-- set back: a time in the future is no sign of life either. Endpoints are valid while the field `endpoints` has the
-- stored term: the former library raises the term alone, and so invalidates what it does not maintain.
-- Returns the stored term, and 1 if it is now ours, else 0.
local function claim(keys, args)
  local stored = read_or_nil('HMGET', keys[1], 'term', 'owner', 'cluster', 'stampMs', 'claimMs', 'endpoints') or {}
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
  if keys[2] and (not term or stored[6] ~= stored[1]) then
    redis.call('UNLINK', keys[2])
    redis.call('HDEL', keys[1], 'limits')
  end
  redis.call('HSET', keys[1], 'term', args[1], 'owner', args[2], 'cluster', args[3], 'claimMs', claimed,
    'endpoints', keys[2] and args[1] or '')
  return { args[1], 1 }
end

-- Each call blocks the server, so it returns only so many.
local SLOTS_PER_PAGE = 250

-- KEYS: meta, load, entries, expiries [, slots, entries and expiries of slots [, wakeups]]. What has expired is purged
-- here because dispatchers may have stopped reserving.
-- ARGV: term, complete ('1' or '0'). Returns the numbers of refused reservations since the last call (take_refused), and
-- slots in use, flat, as the first page of the function `part`: cursor, elements.
local function stamp(keys, args)
  local refused = check_term(keys[1], args[1])
  if refused then return refused end
  local now = now_ms()
  redis.call('HSET', keys[1], 'stampMs', string.format('%.0f', now), 'complete', args[2])
  purge_expired({ keys[2], keys[3], keys[4] }, now)
  local numbers = take_refused(keys[1])
  if not keys[7] then return { numbers, '0', {} } end
  purge_slots({ keys[5], keys[6], keys[7] }, now)
  note_room(keys[8], 'stamp', '-')
  local page = redis.call('HSCAN', keys[5], '0', 'COUNT', SLOTS_PER_PAGE)
  return { numbers, page[1], page[2] }
end

-- KEYS: meta. ARGV: keys. Returns a line `command key` for each right that a writer of endpoints lacks on these keys.
-- They are not in KEYS: the call itself would be refused.
local function missing_rights(_, args)
  local missing = {}
  local commands = {
    { 'TYPE' }, { 'EXISTS' }, { 'UNLINK' }, { 'HSET', '1', '1' }, { 'HDEL', '1' }, { 'HGET', '1' }, { 'HMGET', '1' },
    { 'HGETALL' }, { 'HLEN' }, { 'HSCAN', '0' }, { 'PEXPIRE', '1' }, { 'PERSIST' }, { 'RENAME', args[1] },
  }
  for _, key in ipairs(args) do
    for _, words in ipairs(commands) do
      if not redis.acl_check_cmd(words[1], key, unpack(words, 2)) then
        table.insert(missing, words[1] .. ' ' .. key)
      end
    end
  end
  return missing
end

-- ARGV: commands, each as words separated by a blank. Returns those that the user may not execute. Their keys are not in
-- KEYS: the call itself would be refused.
local function denied_commands(_, args)
  local denied = {}
  for _, command in ipairs(args) do
    local words = {}
    for word in string.gmatch(command, '[^ ]+') do table.insert(words, word) end
    local key = string.match(command, '[^ ]*{[^ ]*') or words[2]
    if not redis.acl_check_cmd(unpack(words)) then table.insert(denied, words[1] .. ' ' .. key) end
  end
  return denied
end

register('denied_commands', denied_commands, { 'no-writes' })
register('missing_rights', missing_rights, { 'no-writes' })
register('claim', claim, { 'allow-oom' })
register('stamp', stamp, { 'allow-oom' })
