-- A job is: due (8 bytes), attempt (4), flags (1), then what the flags tell of, then the payload.
--   bit 0  leased: token (16), until (8)
--   bit 1  pushed while leased: due (8), length (4) and payload
--   bit 2  ... by one that asked to be sooner: due (8)

local function decode_job(bytes)
  local due, attempt, flags, at = struct.unpack('>c8I4B', bytes)
  local job = { due = due, attempt = attempt }
  if flags % 2 == 1 then
    job.token, job.leased_until, at = struct.unpack('>c16c8', bytes, at)
  end
  if flags % 4 >= 2 then
    job.pending_due, job.pending_payload, at = struct.unpack('>c8I4c0', bytes, at)
  end
  if flags >= 4 then
    job.pending_sooner, at = struct.unpack('>c8', bytes, at)
  end
  job.payload = string.sub(bytes, at)
  return job
end

local function encode_job(job)
  local flags, held, pending, sooner = 0, '', '', ''
  if job.token then
    flags, held = 1, job.token .. job.leased_until
  end
  if job.pending_due then
    flags = flags + 2
    pending = struct.pack('>c8I4', job.pending_due, #job.pending_payload) .. job.pending_payload
  end
  if job.pending_sooner then
    flags, sooner = flags + 4, job.pending_sooner
  end
  return struct.pack('>c8I4B', job.due, job.attempt, flags) .. held .. pending .. sooner .. job.payload
end

-- When it can next be leased.
local function ready_at(job)
  return job.leased_until or job.due
end

local function end_lease(job)
  job.token, job.leased_until = nil, nil
  if job.pending_sooner then
    if earlier(job.pending_sooner, job.due) then job.due = job.pending_sooner end
    job.payload = job.pending_payload
  end
  job.pending_due, job.pending_payload, job.pending_sooner = nil, nil, nil
end
