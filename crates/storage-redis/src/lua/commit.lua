-- Commits batches in order, each judged against the state that those before it leave.
--
-- KEYS: expiry index, then whatever the operations name by its place.
-- ARGV: length of the keys' prefix, channel, sender, number of batches; then of each batch: id, now,
-- hint, number of arguments of its operations, those.
-- Returns a verdict for each:
--   1                                        it is applied
--   { 1, operation, version, position, ... } it is applied, and its events went there
--   { 2, operation, found }                  an expectation does not hold; nothing is written
--   { 3, message }                           an error came before anything was written
--   { 4, message }                           an error came in between: damage from outside

local writing

-- Lua cannot roll back, so everything is judged before anything is changed.
local function commit()
  local starts, failing, found = batch.starts, nil, nil
  for op, at in ipairs(starts) do
    local holds, stands = judge[ARGV[at]](op, at)
    if not holds and not failing then
      failing, found = op, stands
    end
  end
  if batch.applied then
    -- Written once more: WAIT promises to wait for what its own connection wrote.
    set(unpack(batch.applied))
    return true
  end
  if failing then
    local code = ARGV[starts[failing]]
    if (code == 'put' or code == 'delete' or code == 'check') and not is_live(found, batch.now) then
      found = false
    end
    return { 2, failing - 1, found }
  end
  writing, batch.appended = true, {}
  for op, at in ipairs(starts) do
    local change = apply[ARGV[at]]
    if change then change(op, at) end
  end
  return true
end

-- Reads what the operations are about; what cannot be read is the matter of the batch that asks for it.
local function fetch_all(batches)
  local fields, seen = {}, {}
  for _, one in ipairs(batches) do
    for _, at in ipairs(one.starts) do
      if ARGV[at] ~= 'write' then
        local hash, field = key_at(at + 1), ARGV[at + 2]
        if not of(seen, hash)[field] then
          seen[hash][field] = true
          local names = of(fields, hash)
          names[#names + 1] = field
        end
      end
    end
  end
  for hash, names in pairs(fields) do
    for first = 1, #names, 64 do pcall(fetch, hash, names, first, 64) end
  end
end

local batches = {}
local at = 5
for place = 1, tonumber(ARGV[4]) do
  local starts, stop = {}, at + 4 + tonumber(ARGV[at + 3])
  batches[place] =
    { id = ARGV[at], now = ARGV[at + 1], hint = ARGV[at + 2], starts = starts, before = {}, appended = {} }
  at = at + 4
  while at < stop do
    starts[#starts + 1] = at
    at = at + size_at(at)
  end
end
fetch_all(batches)

local hints, verdicts = {}, {}
for place, one in ipairs(batches) do
  batch, writing = one, false
  local done, verdict = pcall(commit)
  if not done then
    local message = type(verdict) == 'table' and verdict.err or tostring(verdict)
    verdict = { writing and 4 or 3, message }
  elseif verdict == true then
    local appended, hint = batch.appended, batch.hint
    verdict = 1
    if #appended > 0 then
      table.insert(appended, 1, 1)
      verdict = appended
    end
    if hint ~= '' and not hints[hint] then
      hints[hint] = true
      hints[#hints + 1] = hint
    end
  end
  verdicts[place] = verdict
end

local problem = write()
if problem then
  for place, verdict in ipairs(verdicts) do
    if verdict == 1 or verdict[1] == 1 then verdicts[place] = { 4, problem } end
  end
end
-- A hint may be lost, for one where the user may not publish.
if #hints > 0 then redis.pcall('SPUBLISH', ARGV[2], ARGV[3] .. table.concat(hints)) end
return verdicts
