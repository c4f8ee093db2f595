-- What each operation of a batch expects, and what it does.
--
-- `judge` has a function for each operation's code, which reads and never writes; it is told the
-- operation's number and where its arguments begin, and returns how many they are, whether what it
-- expects is so, and what it found. `apply` has one for each that writes.

-- The batch at hand: id, now, what its operations found (`before`), where its events went (`appended`:
-- operation, version, position of each append), and where it was applied before, what it left there
-- (`applied`: hash, field, value).
local batch

local judge, apply = {}, {}

local function key_at(place)
  return KEYS[tonumber(ARGV[place])]
end

local function key_after(place, count)
  return KEYS[tonumber(ARGV[place]) + count]
end

-- Records. Arguments: code, group (its index is the key after), id, expected.

local function as_expected(expected, record)
  if expected == '' then return true end
  local live = is_live(record, batch.now) and record
  if expected == 'absent' then return not live end
  if expected == 'present' then return live end
  return live and string.sub(live, 1, 16) == expected
end

local function judge_record(op, at)
  local record = redis.call('HGET', key_at(at + 1), ARGV[at + 2])
  batch.before[op] = record
  return 4, as_expected(ARGV[at + 3], record), record
end

judge.check, judge.delete = judge_record, judge_record

-- Put. One more argument: the record.
function judge.put(op, at)
  local record = redis.call('HGET', key_at(at + 1), ARGV[at + 2])
  batch.before[op] = record
  if record and string.sub(record, 1, 16) == batch.id then
    batch.applied = { key_at(at + 1), ARGV[at + 2], record }
  end
  return 5, as_expected(ARGV[at + 3], record), record
end

-- Which ids join (true) or leave (false) the index of their group. Nothing here reads an index, so
-- that all of them go into it at the end of the call.
local indexed = {}

local function set_indexed(index, id, is_member)
  local ids = indexed[index]
  if not ids then
    ids = {}
    indexed[index] = ids
  end
  ids[id] = is_member
end

function apply.put(op, at)
  local records, id, record, before = key_at(at + 1), ARGV[at + 2], ARGV[at + 4], batch.before[op]
  redis.call('HSET', records, id, record)
  if not before then set_indexed(key_after(at + 1, 1), id, true) end
  local expires_at = expiry(record)
  if expires_at then
    redis.call('ZADD', expiries, score(expires_at), string.sub(records, prefix) .. '\0' .. id)
  elseif before and expiry(before) then
    remove_member(expiries, string.sub(records, prefix) .. '\0' .. id)
  end
end

function apply.delete(op, at)
  local before = batch.before[op]
  if before then
    remove_record(expiries, key_at(at + 1), prefix, ARGV[at + 2], before)
    set_indexed(key_after(at + 1, 1), ARGV[at + 2], false)
  end
end

-- The log. Arguments: code, heads (log and trims are the keys after), stream.

-- Append. More arguments: the stream's positions, expected, count, the events.
function judge.append(op, at)
  local head = stream_head(key_at(at + 1), ARGV[at + 2])
  local expected, count = ARGV[at + 4], tonumber(ARGV[at + 5])
  batch.before[op] = head
  local version = tonumber(expected)
  if count > 0 and head.version > 0 then
    -- Where an append sent again would have put its first event: after the version that it expects,
    -- or else at the stream's end.
    local first = version and version + 1 or head.version - count + 1
    local position = head.position - (head.version - first)
    local origin = head.batch
    if version and first < head.version then
      position = tonumber(redis.call('LINDEX', key_at(at + 3), first - 1))
      local entry = redis.call('XRANGE', key_after(at + 1, 1), decimal(position), decimal(position))[1]
      origin = entry and string.sub(entry[2][6], 1, 16)
    end
    if origin == batch.id and first > 0 and first <= head.version then
      batch.applied = { key_at(at + 1), '', decimal(log_head(key_at(at + 1))) }
      local appended = batch.appended
      appended[#appended + 1], appended[#appended + 2], appended[#appended + 3] = op - 1, first, position
    end
  end
  local holds = expected == 'any' or (expected == 'exists' and head.version > 0) or head.version == version
  return 6 + count, holds, decimal(head.version)
end

function apply.append(op, at)
  local count = tonumber(ARGV[at + 5])
  if count == 0 then return end
  local heads, log, stream, head = key_at(at + 1), key_after(at + 1, 1), ARGV[at + 2], batch.before[op]
  local last = log_head(heads)
  local positions = {}
  for n = 1, count do
    local position = decimal(last + n)
    positions[n] = position
    local version = decimal(head.version + n)
    redis.call('XADD', log, position .. '-0', 's', stream, 'v', version, 'e', ARGV[at + 5 + n])
  end
  redis.call('RPUSH', key_at(at + 3), unpack(positions))
  local appended = batch.appended
  appended[#appended + 1], appended[#appended + 2], appended[#appended + 3] =
    op - 1, head.version + 1, last + 1
  head.version, head.position, head.batch = head.version + count, last + count, batch.id
  set_stream_head(heads, stream, head)
  redis.call('HSET', heads, '', positions[count])
end

-- Trim. One more argument: the version.
function judge.trim(op, at)
  return 4, true
end

function apply.trim(op, at)
  local heads, stream = key_at(at + 1), ARGV[at + 2]
  local head = stream_head(heads, stream)
  local through = math.min(tonumber(ARGV[at + 3]), head.version)
  if through <= head.trimmed then return end
  head.trimmed = through
  set_stream_head(heads, stream, head)
  redis.call('HSET', key_after(at + 1, 2), stream, decimal(through))
end

-- Jobs. Arguments: code, jobs (due index and id index are the keys after), id.

local function set_job(at, job)
  local id = ARGV[at + 2]
  redis.call('HSET', key_at(at + 1), id, encode_job(job))
  redis.call('ZADD', key_after(at + 1, 1), score(ready_at(job)), id)
end

local function remove_job(at)
  local id = ARGV[at + 2]
  remove_field(key_at(at + 1), id)
  remove_member(key_after(at + 1, 1), id)
  remove_member(key_after(at + 1, 2), id)
end

-- Push. More arguments: due, merge, payload.
function judge.push(op, at)
  return 6, true
end

function apply.push(op, at)
  local due, merge, payload = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local bytes = redis.call('HGET', key_at(at + 1), ARGV[at + 2])
  if not bytes then
    set_job(at, { due = due, attempt = 0, payload = payload })
    redis.call('ZADD', key_after(at + 1, 2), 0, ARGV[at + 2])
    return
  end
  local job, sooner = decode_job(bytes), merge == 'sooner'
  local function earliest(a, b)
    return b and earlier(b, a) and b or a
  end
  if not job.token then
    if not sooner then return end
    job.due, job.payload = earliest(due, job.due), payload
  elseif not job.pending_due then
    job.pending_due, job.pending_payload, job.pending_sooner = due, payload, sooner and due or nil
  elseif sooner then
    job.pending_due, job.pending_payload = earliest(due, job.pending_due), payload
    job.pending_sooner = earliest(due, job.pending_sooner)
  else
    return
  end
  set_job(at, job)
end

-- Push leased. More arguments: due, token, until, payload.
function judge.push_leased(op, at)
  local bytes = redis.call('HGET', key_at(at + 1), ARGV[at + 2])
  if bytes and decode_job(bytes).token == ARGV[at + 4] then
    batch.applied = { key_at(at + 1), ARGV[at + 2], bytes }
  end
  return 7, not bytes, bytes
end

function apply.push_leased(op, at)
  local due, token, leased_until, payload = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  set_job(at, { due = due, attempt = 1, token = token, leased_until = leased_until, payload = payload })
  redis.call('ZADD', key_after(at + 1, 2), 0, ARGV[at + 2])
end

-- Ack, retry, extend. One more argument: the token. And another: until when, but for an ack.
local function judge_held(op, at)
  local bytes = redis.call('HGET', key_at(at + 1), ARGV[at + 2])
  local job = bytes and decode_job(bytes)
  batch.before[op] = job
  return ARGV[at] == 'ack' and 4 or 5, job and job.token == ARGV[at + 3], bytes
end

judge.ack, judge.retry, judge.extend = judge_held, judge_held, judge_held

function apply.ack(op, at)
  local job = batch.before[op]
  if job.pending_due then
    set_job(at, { due = job.pending_due, attempt = 0, payload = job.pending_payload })
  else
    remove_job(at)
  end
end

function apply.retry(op, at)
  local job = batch.before[op]
  job.due = ARGV[at + 4]
  end_lease(job)
  set_job(at, job)
end

function apply.extend(op, at)
  local job = batch.before[op]
  job.leased_until = ARGV[at + 4]
  set_job(at, job)
end

-- Cancel.
function judge.cancel(op, at)
  return 3, true
end

function apply.cancel(op, at)
  remove_job(at)
end
