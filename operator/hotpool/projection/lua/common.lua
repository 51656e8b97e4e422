#!lua name=@LIBRARY@
-- Helpers of all functions of the library. Each function runs completely or changes nothing.
-- The files are loaded as one library, in the order of functions.py, with this one first.
-- Only these functions write the keys. Functions are called by name (functions.py).
-- Must not: touch a key that was not passed in KEYS, or trust the type or content of a stored key.
-- Error replies are one word and a text: NOTERM, STALETERM <stored> <cluster>, OTHERCLUSTER <stored>,
-- STALEVERSION <stored>, STALEBASE <stored>, NOSTAGE.

local DIGEST = '@DIGEST@'
local STATES = 3
local NONE = {}
-- Two valid terms or versions never differ by more. A number further ahead was not written by this library.
local MAX_COUNTER_JUMP = 1e12

-- Returns an integer of at most 15 digits (exact in a double), or nil for anything else.
local function parse_number(text)
  if type(text) ~= 'string' or #text > 15 or not string.match(text, '^%d+$') then return nil end
  return tonumber(text)
end

-- Returns a stored term or version, or nil for an implausible one: accepting it would exhaust our counter.
local function parse_counter(stored, ours)
  local number = parse_number(stored)
  return number and number - parse_number(ours) <= MAX_COUNTER_JUMP and number or nil
end

-- Reads, and returns nil if the key holds another type. Other errors, such as a missing permission, are raised.
local function read_or_nil(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.sub(reply.err, 1, 9) ~= 'WRONGTYPE' then error(reply) end
  return nil
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Deletes a key of an unexpected type, such as after a SET by hand.
local function delete_wrong_type(key, expected)
  local actual = redis.call('TYPE', key).ok
  if actual ~= expected and actual ~= 'none' then redis.call('UNLINK', key) end
end

local function check_term(meta, term)
  local stored = read_or_nil('HMGET', meta, 'term', 'cluster') or {}
  local number = parse_counter(stored[1], term)
  if not number then return redis.error_reply('NOTERM no leader has claimed this server') end
  if number == parse_number(term) then return nil end
  return redis.error_reply('STALETERM ' .. stored[1] .. ' ' .. (stored[2] or ''))
end

-- Within one term a version never decreases. Facts of another term are older: check_term has already confirmed ours.
local function check_version(term, version, facts_term, facts_version)
  local stored = parse_counter(facts_version, version)
  if parse_number(facts_term) ~= parse_number(term) or not stored or parse_number(version) > stored then return nil end
  return redis.error_reply('STALEVERSION ' .. facts_version)
end

local function index_field(generator, key)
  if not generator or generator == '' then return nil end
  return generator .. '/' .. key
end

local function register(name, callback, flags)
  redis.register_function { function_name = '@LIBRARY@_' .. name, callback = callback, flags = flags }
end
