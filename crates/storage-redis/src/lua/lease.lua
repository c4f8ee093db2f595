-- Takes due jobs of a queue: as many as asked for, or as fit into one answer.
-- KEYS: jobs by id, due index.  ARGV: now, until, first 12 bytes of the tokens, max, bytes.
-- Returns when the next of the others can be leased, then id and job of each one taken.

local jobs, ready = KEYS[1], KEYS[2]
local now, until_, tokens, max, room = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

local taken, answer = {}, { false }
-- The index orders by rounded times; the job itself says whether it is due.
local due = redis.call('ZRANGEBYSCORE', ready, '-inf', score(now), 'LIMIT', 0, max)
for place, id in ipairs(due) do
  -- A few at a time, since a few may be all that there is room for.
  if place % 8 == 1 then fetch(jobs, due, place, 8) end
  local job = decode_job(get(jobs, id))
  if not earlier(now, ready_at(job)) then
    if room <= 0 then break end
    end_lease(job)
    job.attempt = math.min(job.attempt + 1, 4294967295)
    job.token, job.leased_until = tokens .. struct.pack('>I4', place), until_
    local bytes = encode_job(job)
    set(jobs, id, bytes)
    rank(ready, id, score(until_))
    taken[id] = true
    answer[#answer + 1] = id
    answer[#answer + 1] = bytes
    room = room - #bytes
  end
end

write_or_fail()
for _, id in ipairs(redis.call('ZRANGE', ready, 0, (#answer - 1) / 2)) do
  if not taken[id] then
    answer[1] = ready_at(decode_job(get(jobs, id)))
    break
  end
end
return answer
