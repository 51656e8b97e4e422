#!lua name=@LIBRARY@
-- Job: everything that hotpool asks of Redis, as functions that run whole or not at all. These files are loaded as one
-- library, in the order of functions.py; this one comes first and holds what all of them use.
-- Callers: hotpool.projection (functions.py by name; nobody writes these keys in any other way).
-- Must not: touch a key that was not passed in KEYS, or trust the type or content of a key found there.
-- Error replies are one word and a text: NOTERM, STALETERM <stored> <cluster>, OTHERCLUSTER <stored>,
-- STALEVERSION <stored>, STALEBASE <stored>, NOSTAGE.

local DIGEST = '@DIGEST@'
local STATES = 3
-- No term or version of ours comes to so much more than another: one that is so far ahead was written by somebody else.
local LEAP = 1e12

-- A whole number of at most 15 digits (exact in a double), or nil for anything else.
local function whole(text)
  if type(text) ~= 'string' or #text > 15 or not string.match(text, '^%d+$') then return nil end
  return tonumber(text)
end

-- A stored term or version, or nil where no counter of ours wrote it: believed, it would be the end of ours.
local function credible(stored, ours)
  local number = whole(stored)
  return number and number - whole(ours) <= LEAP and number or nil
end

-- A read that answers nil instead of failing when the key holds another type; a missing right is an error still.
local function read(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.sub(reply.err, 1, 9) ~= 'WRONGTYPE' then error(reply) end
  return nil
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Removes a key of another type than ours: somebody did SET on it.
local function own(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('UNLINK', key) end
end

local function fence(meta, term)
  local stored = read('HMGET', meta, 'term', 'cluster') or {}
  local known = credible(stored[1], term)
  if not known then return redis.error_reply('NOTERM no leader has claimed this server') end
  if known == whole(term) then return nil end
  return redis.error_reply('STALETERM ' .. stored[1] .. ' ' .. (stored[2] or ''))
end

-- Within one term a version never goes back. Another term in the facts is of the past: the fence has already proved ours.
local function order(term, version, facts_term, facts_version)
  local stored = credible(facts_version, version)
  if whole(facts_term) ~= whole(term) or not stored or whole(version) > stored then return nil end
  return redis.error_reply('STALEVERSION ' .. facts_version)
end

local function field(generator, key)
  if not generator or generator == '' then return nil end
  return generator .. '/' .. key
end

local function register(name, callback, flags)
  redis.register_function { function_name = '@LIBRARY@_' .. name, callback = callback, flags = flags }
end
