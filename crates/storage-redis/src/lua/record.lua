-- A record is: version (16 bytes), '\1' and its expiry (8 bytes) or '\0', value.

local function expiry(record)
  if string.byte(record, 17) == 1 then return string.sub(record, 18, 25) end
end

local function is_live(record, now)
  local expires_at = record and expiry(record)
  return record and (not expires_at or earlier(now, expires_at))
end

-- Removes a record from its group, the group's index, and the index of expiries.
local function remove_record(expiries, records, index, prefix, id, record)
  set(records, id, false)
  rank(index, id, false)
  if expiry(record) then rank(expiries, string.sub(records, prefix) .. '\0' .. id, false) end
end
