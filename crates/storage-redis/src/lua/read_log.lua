-- A run of the log: as many events as asked for, or as fit into one answer.
-- KEYS: log, heads, trims.  ARGV: after, limit, bytes.
-- Returns the head, how far it looked, then position, stream, version and event of each.

local log, heads, trims = KEYS[1], KEYS[2], KEYS[3]
local examined, left, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local head = log_head(heads)
local answer = { decimal(head), false }

-- Few streams are trimmed and not yet swept; where none is, no event need be looked up.
local trimmed = redis.call('EXISTS', trims) == 1 and {}
local function is_trimmed(stream, version)
  if not trimmed then return false end
  if trimmed[stream] == nil then
    trimmed[stream] = tonumber(redis.call('HGET', trims, stream) or 0)
  end
  return tonumber(version) <= trimmed[stream]
end

while examined < head do
  local count = math.min(left, 64)
  local entries = redis.call('XRANGE', log, '(' .. decimal(examined) .. '-0', '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    examined = position_of(entry)
    if not is_trimmed(entry[2][2], entry[2][4]) then
      room = room - add_event(answer, entry)
      left = left - 1
    end
    -- An entry counts a little in any case, so that a run of trimmed ones ends too.
    room = room - 64
    if left == 0 or room <= 0 then
      answer[2] = decimal(examined)
      return answer
    end
  end
  if #entries < count then examined = head end
end
answer[2] = decimal(examined)
return answer
