-- The values at several places.  KEYS: a hash each.  ARGV: an id each.

local answer = {}
for place, key in ipairs(KEYS) do
  answer[place] = redis.call('HGET', key, ARGV[place])
end
return answer
