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

-- Lua cannot roll back, so everything is judged before the first write.
local function commit(at, stop)
  local starts, failing, found = {}, nil, nil
  while at < stop do
    local op = #starts + 1
    starts[op] = at
    local size, holds, stands = judge[ARGV[at]](op, at)
    if not holds and not failing then
      failing, found = op, stands
    end
    at = at + size
  end
  if batch.applied then
    -- Written once more: WAIT promises to wait for what its own connection wrote.
    redis.call('HSET', unpack(batch.applied))
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
  for op = 1, #starts do
    local write = apply[ARGV[starts[op]]]
    if write then write(op, starts[op]) end
  end
  return true
end

-- Brings the indexes of the groups up to date.
local function index()
  for index, ids in pairs(indexed) do
    local joining, leaving = {}, {}
    for id, is_member in pairs(ids) do
      if is_member then
        joining[#joining + 1], joining[#joining + 2] = 0, id
      else
        leaving[#leaving + 1] = id
      end
    end
    -- No more than fit on Lua's stack at a time.
    for first = 1, #joining, 1000 do
      redis.call('ZADD', index, unpack(joining, first, math.min(first + 999, #joining)))
    end
    for first = 1, #leaving, 1000 do
      redis.call('ZREM', index, unpack(leaving, first, math.min(first + 999, #leaving)))
    end
  end
end

local hints, verdicts = {}, {}
local at = 5
for place = 1, tonumber(ARGV[4]) do
  batch = { id = ARGV[at], now = ARGV[at + 1], before = {}, appended = {} }
  local hint, stop = ARGV[at + 2], at + 4 + tonumber(ARGV[at + 3])
  writing = false
  local done, verdict = pcall(commit, at + 4, stop)
  if not done then
    local message = type(verdict) == 'table' and verdict.err or tostring(verdict)
    verdict = { writing and 4 or 3, message }
  elseif verdict == true then
    local appended = batch.appended
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
  at = stop
end

for _, step in ipairs({ index, keep_no_longer }) do
  local done, problem = pcall(step)
  if not done then
    local message = type(problem) == 'table' and problem.err or tostring(problem)
    for place, verdict in ipairs(verdicts) do
      if verdict == 1 or verdict[1] == 1 then verdicts[place] = { 4, message } end
    end
  end
end
-- A hint may be lost, for one where the user may not publish.
if #hints > 0 then redis.pcall('SPUBLISH', ARGV[2], ARGV[3] .. table.concat(hints)) end
return verdicts
