-- The log is one Redis stream: an entry `position-0` an event, with the fields s (its stream),
-- v (its version there) and e (the event). A stream of events has a list of its positions, and a
-- head in the hash of heads: version, trimmed through, swept through, last position (numbers), id of
-- the last batch. The head of the log is in the same hash, under a name that no stream has.

local function decimal(number)
  return string.format('%.0f', number)
end

local function log_head(heads)
  return tonumber(get(heads, '') or 0)
end

local function stream_head(heads, stream)
  local head = get(heads, stream)
  if not head then return { version = 0, trimmed = 0, swept = 0, position = 0, batch = '' } end
  local version, trimmed, swept, position, batch = struct.unpack('>ddddc16', head)
  return { version = version, trimmed = trimmed, swept = swept, position = position, batch = batch }
end

local function set_stream_head(heads, stream, head)
  local bytes = struct.pack('>ddddc16', head.version, head.trimmed, head.swept, head.position, head.batch)
  set(heads, stream, bytes)
end

local function position_of(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

-- Adds an entry to an answer: position, stream, version, event. Returns the event's length.
local function add_event(answer, entry)
  local fields = entry[2]
  local next = #answer
  answer[next + 1] = string.match(entry[1], '^%d+')
  answer[next + 2], answer[next + 3], answer[next + 4] = fields[2], fields[4], fields[6]
  return #fields[6]
end
