-- Ejected services in a pick: members that are picked last, services that are answered last, and trials.

local MAX_PARSED_LISTS = 16

-- Text of ejected services to `names` of their nodes, `records` by node and service, and the time at which the first
-- trial is due. A cache; read only.
local parsed_lists, parsed_lists_size = {}, 0

-- Returns the time from which on a service may be tried.
local function trial_time(record)
  return math.max(record.till, record.trial > 0 and record.trial + TRIAL_INTERVAL_MS or 0)
end

local function parse_ejected(text)
  local list = parsed_lists[text]
  if list then return list end
  list = { names = {}, records = {}, due = math.huge }
  for _, record in ipairs(decode_records(text)) do
    if not list.records[record.node] then
      list.records[record.node] = {}
      table.insert(list.names, record.node)
    end
    list.records[record.node][record.service] = record
    list.due = math.min(list.due, trial_time(record))
  end
  if parsed_lists_size == MAX_PARSED_LISTS then parsed_lists, parsed_lists_size = {}, 0 end
  parsed_lists[text], parsed_lists_size = list, parsed_lists_size + 1
  return list
end

-- Returns the records of those services that the node still has with the same port and addresses, by service.
local function valid_records(records, entry)
  local valid = {}
  for service, record in pairs(records) do
    if service == '-' or has_place(entry or '', record.word) then valid[service] = record end
  end
  return valid
end

-- Returns the records because of which a pick passes over a node: that of the node as a whole, or those of all usable
-- services of one type.
local function blocking_records(request, entry, allowed, records)
  if records['-'] then return { records['-'] } end
  local blocking = {}
  if not request or not entry then return blocking end
  local found = usable_services(request, entry, allowed)
  for _, kind in ipairs(request.kinds) do
    local services, failing = found[kind] or NONE, {}
    if type(services) == 'string' then services = { services } end
    for _, word in ipairs(services) do
      local record = records[string.match(word, '|([^|]+)|')]
      if record then table.insert(failing, record) end
    end
    if #failing == #services then
      for _, record in ipairs(failing) do table.insert(blocking, record) end
    end
  end
  return blocking
end

-- Returns the time at which a trial of a node became due, nil if it is not due yet.
local function due_since(blocking, now)
  local due = 0
  for _, record in ipairs(blocking) do due = math.max(due, trial_time(record)) end
  return due <= now and due or nil
end

-- Returns nil if no Ready member of the pool is affected. Else: `nodes`, members that are picked after all others;
-- `blocking`, their records by node; `avoid`, services by node that are answered after all others; `due`, the node
-- whose trial has been due for longest, and all that are due as a set. ARGV from `first_excluded`: excluded names, which
-- are not tried.
local function ejected_members(keys, list, request, args, first_excluded)
  local members, excluded = {}, {}
  local scores = list.names[1] and read_or_nil('ZMSCORE', keys[3], unpack(list.names)) or NONE
  for i, name in ipairs(list.names) do
    if scores[i] then table.insert(members, name) end
  end
  if not members[1] then return nil end
  for i = first_excluded, #args do excluded[args[i]] = true end
  local entries = request and read_or_nil('HMGET', keys[ENDPOINTS_KEY], unpack(members)) or NONE
  local allowed = request and request.required and read_or_nil('HMGET', keys[SERVICES_KEY], unpack(members)) or NONE
  local found, longest, now = { nodes = {}, blocking = {}, avoid = {}, is_due = {} }, nil, now_ms()
  for i, name in ipairs(members) do
    local records = valid_records(list.records[name], entries[i])
    local blocking = blocking_records(request, entries[i], allowed[i] or nil, records)
    if next(records) then found.avoid[name] = records end
    if blocking[1] then
      table.insert(found.nodes, name)
      found.blocking[name] = blocking
      local since = not excluded[name] and due_since(blocking, now) or nil
      if since then found.is_due[name] = true end
      if since and (not longest or since < longest) then found.due, longest = name, since end
    end
  end
  return next(found.avoid) and found or nil
end

-- Notes that the services of a node are tried now: the next trial is due a second later.
local function note_trial(failures, blocking)
  local now, changed = now_ms(), {}
  for _, tried in ipairs(blocking) do
    local record = read_record(failures, tried.node, tried.service, tried.word)
    record.trial = now
    if record.till > 0 then table.insert(changed, record) end
  end
  store_records(failures, changed)
end
