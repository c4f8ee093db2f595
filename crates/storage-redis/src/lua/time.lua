-- Points in time are 8 bytes, big-endian, biased so that the earliest is all zeros. They are
-- compared by halves, since a Lua number holds no more than 53 bits, and `<` on strings follows the
-- server's locale.

local function earlier(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  return a_high < b_high or (a_high == b_high and a_low < b_low)
end

-- The microseconds since 1970, to order by; exact until the year 2255.
local function score(time)
  local high, low = struct.unpack('>I4I4', time)
  return (high - 2147483648) * 4294967296 + low
end
