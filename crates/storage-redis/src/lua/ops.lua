-- What each operation of a batch expects, and what it does.
--
-- `judge` has a function for each operation's code, which reads and never writes; it is told the
-- operation's number and where its arguments begin, and returns whether what it expects is so, and what
-- it found. `apply` has one for each that writes.

-- The batch at hand: id, now, hint, where its operations begin (`starts`), what they found (`before`),
-- where its events went (`appended`: operation, version, position of each append), and where it was
-- applied before, what it left there (`applied`: hash, field, value).
local batch

local judge, apply = {}, {}

-- How many arguments there are of the operation at a place. The second and third tell the hash and the
-- field that it is about, but for a write of the user's.
local sizes = {
  check = 4, delete = 4, put = 5, trim = 4,
  push = 6, push_leased = 6, ack = 4, retry = 5, extend = 5, cancel = 3,
}

local function size_at(at)
  local code = ARGV[at]
  if code == 'append' then return 6 + tonumber(ARGV[at + 5]) end
  if code == 'write' then return 4 + tonumber(ARGV[at + 3]) end
  return sizes[code]
end

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
  local record = get(key_at(at + 1), ARGV[at + 2])
  batch.before[op] = record
  return as_expected(ARGV[at + 3], record), record
end

judge.check, judge.delete = judge_record, judge_record

-- Put. One more argument: the record.
function judge.put(op, at)
  local holds, record = judge_record(op, at)
  if record and string.sub(record, 1, 16) == batch.id then
    batch.applied = { key_at(at + 1), ARGV[at + 2], record }
  end
  return holds, record
end

function apply.put(op, at)
  local records, id, record, before = key_at(at + 1), ARGV[at + 2], ARGV[at + 4], batch.before[op]
  set(records, id, record)
  if not before then rank(key_after(at + 1, 1), id, '0') end
  local expires_at = expiry(record)
  if expires_at or before and expiry(before) then
    local name = string.sub(records, prefix) .. '\0' .. id
    rank(expiries, name, expires_at and score(expires_at) or false)
  end
end

function apply.delete(op, at)
  local before = batch.before[op]
  if before then
    remove_record(expiries, key_at(at + 1), key_after(at + 1, 1), prefix, ARGV[at + 2], before)
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
  return holds, decimal(head.version)
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
  set(heads, '', positions[count])
end

-- Trim. One more argument: the version.
function judge.trim()
  return true
end

function apply.trim(op, at)
  local heads, stream = key_at(at + 1), ARGV[at + 2]
  local head = stream_head(heads, stream)
  local through = math.min(tonumber(ARGV[at + 3]), head.version)
  if through <= head.trimmed then return end
  head.trimmed = through
  set_stream_head(heads, stream, head)
  set(key_after(at + 1, 2), stream, decimal(through))
end

-- Jobs. Arguments: code, jobs (due index and id index are the keys after), id.

local function job_at(at)
  return get(key_at(at + 1), ARGV[at + 2])
end

local function set_job(at, job)
  local id = ARGV[at + 2]
  set(key_at(at + 1), id, encode_job(job))
  rank(key_after(at + 1, 1), id, score(ready_at(job)))
end

-- As it was sent; `ready` is the score of when it can be leased.
local function add_job(at, bytes, ready)
  local id = ARGV[at + 2]
  set(key_at(at + 1), id, bytes)
  rank(key_after(at + 1, 1), id, ready)
  rank(key_after(at + 1, 2), id, '0')
end

local function remove_job(at)
  local id = ARGV[at + 2]
  set(key_at(at + 1), id, false)
  rank(key_after(at + 1, 1), id, false)
  rank(key_after(at + 1, 2), id, false)
end

-- Push. More arguments: merge, the job, when it is ready.
function judge.push()
  return true
end

function apply.push(_, at)
  local bytes, pushed, sooner = job_at(at), ARGV[at + 4], ARGV[at + 3] == 'sooner'
  if not bytes then
    add_job(at, pushed, ARGV[at + 5])
    return
  end
  local job = decode_job(bytes)
  if not sooner and (not job.token or job.pending_due) then return end
  pushed = decode_job(pushed)
  local due, payload = pushed.due, pushed.payload
  local function earliest(a, b)
    return b and earlier(b, a) and b or a
  end
  if not job.token then
    job.due, job.payload = earliest(due, job.due), payload
  elseif not job.pending_due then
    job.pending_due, job.pending_payload, job.pending_sooner = due, payload, sooner and due or nil
  else
    job.pending_due, job.pending_payload = earliest(due, job.pending_due), payload
    job.pending_sooner = earliest(due, job.pending_sooner)
  end
  set_job(at, job)
end

-- Push leased. More arguments: token, the job, when it is ready.
function judge.push_leased(_, at)
  local bytes = job_at(at)
  if bytes and decode_job(bytes).token == ARGV[at + 3] then
    batch.applied = { key_at(at + 1), ARGV[at + 2], bytes }
  end
  return not bytes, bytes
end

function apply.push_leased(_, at)
  add_job(at, ARGV[at + 4], ARGV[at + 5])
end

-- Ack, retry, extend. One more argument: the token. And another: until when, but for an ack.
local function judge_held(op, at)
  local bytes = job_at(at)
  local job = bytes and decode_job(bytes)
  batch.before[op] = job
  return job and job.token == ARGV[at + 3], bytes
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
function judge.cancel()
  return true
end

function apply.cancel(_, at)
  if job_at(at) then remove_job(at) end
end
