-- Records of failing services, which dispatchers report and picks read.
-- `failures`, a hash: `<node> <service>` to a record; EJECTED to the records of all ejected services, a line each, so
-- that a pick reads them with one command. `sources`, a sorted set: a source to the ms of its last success; CUT_OFF and a
-- source to the ms at which it was last found to be cut off.
-- A record is one line of words: node, service ('-': the node as a whole), the service as in `endpoints`, pool of the
-- last report, errors in a row, ms of the ejection's begin, its length and its end (0: not ejected), ms of the last
-- trial and of the last report, sources of the ejection, and the source that is not believed ('-': none).

local EJECTED, CUT_OFF = '.ejected', '!'
local MAX_EJECTED, MAX_SOURCES = 1000, 16
local FIRST_EJECTION_MS, LONGEST_EJECTION_MS, TRIAL_INTERVAL_MS = 30000, 300000, 1000
-- A record or a source without a report is deleted after so long.
local FORGET_MS = 3600000
local NUMBERS = { 'errors', 'since', 'length', 'till', 'trial', 'at' }
local RECORD = '^(%S+) (%S+) (%S+) (%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+)$'

local function decode_record(line)
  local words = { string.match(line, RECORD) }
  if not words[1] then return nil end
  local record = { node = words[1], service = words[2], word = words[3], pool = words[4] }
  for i, name in ipairs(NUMBERS) do record[name] = tonumber(words[4 + i]) end
  record.sources, record.doubted = words[5 + #NUMBERS], words[6 + #NUMBERS]
  return record
end

local function encode_record(record)
  local words = { record.node, record.service, record.word, record.pool }
  for i, name in ipairs(NUMBERS) do words[4 + i] = string.format('%.0f', record[name]) end
  return table.concat(words, ' ') .. ' ' .. record.sources .. ' ' .. record.doubted
end

local function record_field(record)
  return record.node .. ' ' .. record.service
end

-- Returns the record of a service, or a new one. One of another port or address counts no more.
local function read_record(failures, node, service, word)
  local record = decode_record(read_or_nil('HGET', failures, node .. ' ' .. service) or '')
  if record and record.word == word then return record end
  record = { node = node, service = service, word = word, pool = '-', sources = '-', doubted = '-' }
  for _, name in ipairs(NUMBERS) do record[name] = 0 end
  return record
end

-- Returns the records of all ejected services.
local function decode_records(text)
  local records = {}
  for line in string.gmatch(text or '', '[^\n]+') do
    local record = decode_record(line)
    if record then table.insert(records, record) end
  end
  return records
end

local function read_ejected(failures)
  return decode_records(read_or_nil('HGET', failures, EJECTED))
end

-- Stores changed records. One that states nothing is deleted.
local function store_records(failures, changed)
  local lines, fields, ejected = {}, {}, false
  for _, record in ipairs(changed) do fields[record_field(record)] = true end
  for line in string.gmatch(read_or_nil('HGET', failures, EJECTED) or '', '[^\n]+') do
    if fields[string.match(line, '^%S+ %S+') or ''] then ejected = true else table.insert(lines, line) end
  end
  for _, record in ipairs(changed) do
    if record.till > 0 then
      table.insert(lines, encode_record(record))
      ejected = true
    end
    if record.till > 0 or record.errors > 0 or record.doubted ~= '-' then
      redis.call('HSET', failures, record_field(record), encode_record(record))
    else
      redis.call('HDEL', failures, record_field(record))
    end
  end
  if not ejected then return end
  if lines[1] then
    redis.call('HSET', failures, EJECTED, table.concat(lines, '\n'))
  else
    redis.call('HDEL', failures, EJECTED)
  end
end

local function end_ejection(record)
  record.errors, record.since, record.length, record.till, record.trial, record.sources = 0, 0, 0, 0, 0, '-'
end

-- Returns true if the endpoints of a node have a service at the same port and addresses, whatever its limit.
local function has_place(endpoints, word)
  local text = ' ' .. endpoints .. ' '
  return (string.find(text, ' ' .. word .. ' ', 1, true) or string.find(text, ' ' .. word .. '|', 1, true)) ~= nil
end

-- Ends the ejections of services that a node no longer has with the same port and addresses. `endpoints`: of the node.
-- `changed`: true if anything about the node has changed, which ends an ejection of the node as a whole.
local function end_ejections_of(failures, node, endpoints, changed)
  local ended = {}
  for _, record in ipairs(read_ejected(failures)) do
    local stays = not changed
    if record.word ~= '-' then stays = has_place(endpoints, record.word) end
    if record.node == node and not stays then
      end_ejection(record)
      table.insert(ended, record)
    end
  end
  if ended[1] then store_records(failures, ended) end
end

-- KEYS: meta, failures, sources. ARGV: term. Deletes what was not reported for an hour, and returns the records of all
-- ejected services, a line each.
local function ejections(keys, args)
  local refused = check_term(keys[1], args[1])
  if refused then return refused end
  local now, old = now_ms(), {}
  delete_wrong_type(keys[2], 'hash')
  delete_wrong_type(keys[3], 'zset')
  for _, value in ipairs(redis.call('HGETALL', keys[2])) do
    local record = decode_record(value)
    if record and math.max(record.at, record.trial) < now - FORGET_MS then
      end_ejection(record)
      record.doubted = '-'
      table.insert(old, record)
    end
  end
  if old[1] then store_records(keys[2], old) end
  for _, source in ipairs(redis.call('ZRANGEBYSCORE', keys[3], '-inf', now - FORGET_MS)) do
    redis.call('ZREM', keys[3], source)
  end
  return redis.call('HGET', keys[2], EJECTED) or ''
end

register('ejections', ejections, { 'allow-oom' })
