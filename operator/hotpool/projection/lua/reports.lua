-- Reports of dispatchers: a request to a service failed, or succeeded (requirements E8).

local ERRORS_IN_A_ROW = 3
-- A source that had a success within this time can reach nodes.
local TRUSTED_MS = 60000
local KINDS = { success = true, error = true, unreachable = true }
-- Effects of a report, the one that is answered for several services first.
local EFFECTS = { 'Ejected', 'Counted', 'CutOff', 'Doubted', 'Full', 'Outdated' }

local function has_source(record, source)
  return string.find(',' .. record.sources .. ',', ',' .. source .. ',', 1, true) ~= nil
end

local function add_source(record, source)
  if record.sources == '-' then
    record.sources = source
  elseif not has_source(record, source) and select(2, string.gsub(record.sources, ',', '')) < MAX_SOURCES - 1 then
    record.sources = record.sources .. ',' .. source
  end
end

-- Returns true if a source has ejected more than max(1, half) of the pool's Ready members, `node` counted, and the time
-- at which the oldest of these ejections began.
local function ejects_most(report, node)
  local names, seen, oldest = { node }, { [node] = true }, math.huge
  for _, record in ipairs(report.ejected) do
    if has_source(record, report.source) then
      if not seen[record.node] then table.insert(names, record.node) end
      seen[record.node] = true
      oldest = math.min(oldest, record.since)
    end
  end
  local size, members = read_or_nil('ZCARD', report.ready) or 0, 0
  for _, score in ipairs(read_or_nil('ZMSCORE', report.ready, unpack(names)) or NONE) do
    if score then members = members + 1 end
  end
  return members > math.max(1, math.floor(size / 2)), oldest
end

-- Returns true if the reports of a source do not count: it found most of a pool to fail, and has had no success within
-- the last minute and since its first failure. Once cut off, it needs a success.
local function is_cut_off(report, node)
  local success, cut_off = report.success, report.cut_off
  if cut_off and success < cut_off then return true end
  local most, oldest = ejects_most(report, node)
  if not most then return false end
  return report.now - success > TRUSTED_MS or not cut_off and success <= oldest
end

-- Ends what a source has ejected alone.
local function retract(report)
  local changed = {}
  for _, record in ipairs(read_ejected(report.failures)) do
    if has_source(record, report.source) then
      local others = {}
      for name in string.gmatch(record.sources, '[^,]+') do
        if name ~= report.source then table.insert(others, name) end
      end
      if others[1] then record.sources = table.concat(others, ',') else end_ejection(record) end
      table.insert(changed, record)
    end
  end
  if changed[1] then store_records(report.failures, changed) end
  redis.call('ZADD', report.sources, report.now, CUT_OFF .. report.source)
  report.cut_off = report.now
end

-- Counts a failure in a record. Returns the effect.
local function count_failure(report, record)
  local now, source = report.now, report.source
  if record.doubted == source and now - record.at <= LONGEST_EJECTION_MS then return 'Doubted' end
  local errors = record.errors + 1
  local ejects = record.till > 0 or report.kind == 'unreachable' or errors >= ERRORS_IN_A_ROW
  if ejects and is_cut_off(report, record.node) then
    retract(report)
    return 'CutOff'
  end
  if ejects and record.till == 0 and #report.ejected >= MAX_EJECTED then return 'Full' end
  record.doubted, record.at, record.pool, record.errors = '-', now, report.pool, errors
  if not ejects then return 'Counted' end
  add_source(record, source)
  if record.till > now then return 'Counted' end
  if record.till == 0 then
    record.since, record.length = now, FIRST_EJECTION_MS
  else
    record.length = math.min(2 * record.length, LONGEST_EJECTION_MS)
  end
  record.till, record.trial = now + record.length, 0
  return 'Ejected'
end

-- Ends the ejection and the errors of a record. A source that ejected alone what another one then reaches on trial is
-- not believed about this service for five minutes.
local function count_success(report, record)
  local ejected, source = record.sources, report.source
  local alone = record.till > 0 and record.till <= report.now and not string.find(ejected, ',', 1, true)
  if alone and ejected ~= source then
    record.doubted, record.at = ejected, report.now
  elseif record.doubted == source or report.now - record.at > LONGEST_EJECTION_MS then
    record.doubted = '-'
  end
  end_ejection(record)
  return 'Counted'
end

-- Returns a service of the endpoints of a node, without its limit, nil if it no longer has this port and address.
local function current_service(entry, service, port, address)
  for word in string.gmatch(entry, '[^ ]+') do
    local place, id, its_port, addresses = string.match(word, '^([^|]+|([^|]+)|(%d+)|[^|]*|([^|]+))')
    if id == service and its_port == port then
      return string.find(',' .. addresses .. ',', ',' .. address .. ',', 1, true) and place or nil
    end
  end
  return nil
end

-- Counts a report about one service. Returns the effect.
local function count_report(report, service, port, address)
  local word = service == '-' and '-' or current_service(report.entry, service, port, address)
  if not word then return 'Outdated' end
  local record = read_record(report.failures, report.node, service, word)
  local unknown = record.at == 0
  if report.kind == 'success' then
    if unknown then return 'Counted' end
    count_success(report, record)
    store_records(report.failures, { record })
    return 'Counted'
  end
  local effect = count_failure(report, record)
  if effect == 'Counted' or effect == 'Ejected' then store_records(report.failures, { record }) end
  return effect
end

-- Returns the error in the arguments of a report, or nil.
local function report_error(keys, args)
  if not keys[4] then return 'keys: failures, sources, endpoints, ready' end
  if not string.match(args[1] or '', '^[%w._:/@+-]+$') then return 'source: letters, digits and ._:/@+-' end
  if not KINDS[args[3]] then return 'outcome: success, error or unreachable' end
  for i = 1, math.max(5, #args) do
    if not string.match(args[i] or '', '^%S+$') then return 'source, pool, outcome, node, then service, port, address' end
  end
  if #args > 5 and (#args - 4) % 3 ~= 0 then return 'service, port and address of each' end
  return nil
end

-- KEYS: failures, sources, endpoints, ready. ARGV: source, pool, outcome, node, then service, port and address of each
-- service, or `-` alone for the node as a whole. Returns the effect.
local function report_outcome(keys, args)
  local refused = report_error(keys, args)
  if refused then return redis.error_reply('BADARGUMENT ' .. refused) end
  local report = {
    failures = keys[1], sources = keys[2], ready = keys[4], source = args[1], pool = args[2], kind = args[3],
    node = args[4], now = now_ms(),
  }
  local effects = {}
  report.entry = read_or_nil('HGET', keys[3], report.node) or ''
  if report.kind == 'success' then
    redis.call('ZADD', report.sources, report.now, report.source)
  else
    report.success = tonumber(redis.call('ZSCORE', report.sources, report.source) or 0)
    report.cut_off = tonumber(redis.call('ZSCORE', report.sources, CUT_OFF .. report.source) or nil)
  end
  for i = 5, #args, 3 do
    if report.kind ~= 'success' then report.ejected = read_ejected(report.failures) end
    effects[count_report(report, args[i], args[i + 1], args[i + 2])] = true
  end
  for _, effect in ipairs(EFFECTS) do
    if effects[effect] then return effect end
  end
end

-- KEYS as in release [, then as report_outcome]. ARGV: id [, then as report_outcome]. Releases a reservation, and reports
-- the outcome of its request in the same step. Returns 1, or 0 for an unknown or expired id.
local function release_and_report(keys, args)
  local own = args[2] and #keys - 4 or #keys
  if args[2] then
    local reply = report_outcome({ unpack(keys, own + 1) }, { unpack(args, 2) })
    if type(reply) == 'table' then return reply end
  end
  return release({ unpack(keys, 1, own) }, args)
end

register('report_outcome', report_outcome, { 'allow-oom' })
register('release', release_and_report, { 'allow-oom' })
