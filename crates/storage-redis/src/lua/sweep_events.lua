-- Removes trimmed events of a stream; their positions stay taken.
-- KEYS: log, heads, trims, the stream's positions.  ARGV: stream, limit.
-- Returns how many.

local log, heads, trims, positions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local stream, limit = ARGV[1], tonumber(ARGV[2])
local head = stream_head(heads, stream)
local last = math.min(head.trimmed, head.swept + limit)
local swept = last - head.swept
for _, position in ipairs(redis.call('LRANGE', positions, head.swept, last - 1)) do
  redis.call('XDEL', log, position .. '-0')
end
if last == head.trimmed then set(trims, stream, false) end
if swept > 0 then
  head.swept = last
  set_stream_head(heads, stream, head)
end
write_or_fail()
return swept
