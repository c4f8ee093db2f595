-- Removes records that expired before an instant, of those that the expiry index named.
-- KEYS: expiry index, then for each record its group and the group's index.
-- ARGV: length of the keys' prefix, instant, then the id of each.
-- Returns how many.

local prefix, instant = tonumber(ARGV[1]), ARGV[2]
local swept = 0
for place = 3, #ARGV do
  local id, records, index = ARGV[place], KEYS[2 * place - 4], KEYS[2 * place - 3]
  local record = get(records, id)
  if record and expiry(record) and earlier(expiry(record), instant) then
    remove_record(KEYS[1], records, index, prefix, id, record)
    swept = swept + 1
  end
end
write_or_fail()
return swept
