-- A page of a hash in the order of its index: as many as asked for, or as fit into one answer.
-- KEYS: values by id, index of ids.  ARGV: command, from, to, limit, bytes.
-- Returns the id to go on after, or false at the end, then id and value of each.

local limit, room = tonumber(ARGV[4]), tonumber(ARGV[5])
local ids = redis.call(ARGV[1], KEYS[2], ARGV[2], ARGV[3], 'LIMIT', 0, limit + 1)
local answer = { false }
for place, id in ipairs(ids) do
  if place > limit or room <= 0 then
    answer[1] = ids[place - 1]
    break
  end
  local value = redis.call('HGET', KEYS[1], id)
  answer[#answer + 1] = id
  answer[#answer + 1] = value
  room = room - #value
end
return answer
