-- A run of a stream: as many events as asked for, or as fit into one answer.
-- KEYS: log, heads, the stream's positions.  ARGV: stream, beyond, direction, limit, bytes.
-- Returns the head, how far it looked, then position, stream, version and event of each.

local log, heads, positions = KEYS[1], KEYS[2], KEYS[3]
local stream, beyond, direction = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local left, room = tonumber(ARGV[4]), tonumber(ARGV[5])
local head = stream_head(heads, stream)
local answer = { decimal(head.version), false }

-- The positions of the versions first to last, as runs of neighbours.
local function runs(first, last)
  local found = {}
  for _, position in ipairs(redis.call('LRANGE', positions, first - 1, last - 1)) do
    position = tonumber(position)
    local run = found[#found]
    if run and run[2] + 1 == position then
      run[2] = position
    else
      found[#found + 1] = { position, position }
    end
  end
  return found
end

local function entries(first, last)
  local found = {}
  for _, run in ipairs(runs(first, last)) do
    for _, entry in ipairs(redis.call('XRANGE', log, decimal(run[1]), decimal(run[2]))) do
      found[#found + 1] = entry
    end
  end
  return found
end

-- Adds entries until there is no room; whether there still is.
local function add(entry)
  room = room - add_event(answer, entry)
  left = left - 1
  answer[2] = answer[#answer - 1]
  return left > 0 and room > 0
end

if direction == 'forwards' then
  local first = math.max(beyond, head.trimmed) + 1
  while first <= head.version do
    local last = math.min(first + math.min(left, 64) - 1, head.version)
    for _, entry in ipairs(entries(first, last)) do
      if not add(entry) then return answer end
    end
    first = last + 1
  end
  answer[2] = decimal(math.max(beyond, head.version))
else
  local last = math.min(beyond - 1, head.version)
  while last > head.trimmed do
    local first = math.max(last - math.min(left, 64) + 1, head.trimmed + 1)
    local found = entries(first, last)
    for place = #found, 1, -1 do
      if not add(found[place]) then return answer end
    end
    last = first - 1
  end
  answer[2] = '0'
end
return answer
