-- The hashes and sorted sets that a call reads and changes. What it changes is written at its end, each
-- key once, with as few commands as that takes: a command costs more than a field. Fields come before
-- fields go: a key vanishes with its last one, and while a cluster moves a slot away, a script that
-- asks for a key which is not there fails.

-- By key: fields as they were read or will be (value, or false), those of them that change, and members
-- that change (score, or false).
local known, changed_fields, changed_members = {}, {}, {}

local function of(keys, key)
  if not keys[key] then keys[key] = {} end
  return keys[key]
end

-- Reads so many of the fields, from the first on, so that none takes a command of its own.
local function fetch(hash, fields, first, count)
  local values, last = of(known, hash), math.min(first + count - 1, #fields)
  for place, value in ipairs(redis.call('HMGET', hash, unpack(fields, first, last))) do
    values[fields[first + place - 1]] = value
  end
end

-- A field's value, or false.
local function get(hash, field)
  local values = of(known, hash)
  if values[field] == nil then values[field] = redis.call('HGET', hash, field) end
  return values[field]
end

-- Sets a field, or takes it away: false.
local function set(hash, field, value)
  of(known, hash)[field] = value
  of(changed_fields, hash)[field] = value
end

-- Sets a member's score, or takes it away: false.
local function rank(set, member, score)
  of(changed_members, set)[member] = score
end

-- Writes all that was changed; what cannot be written, where something else writes the store's keys,
-- keeps nothing else from being written. Returns what went wrong.
local function write()
  local problem
  local function call(command, key, arguments)
    -- No more than fit on Lua's stack at a time.
    for first = 1, #arguments, 1000 do
      local last = math.min(first + 999, #arguments)
      local answer = redis.pcall(command, key, unpack(arguments, first, last))
      if type(answer) == 'table' and answer.err then problem = answer.err end
    end
  end
  local function write_keys(keys, add, remove, in_order)
    for key, changes in pairs(keys) do
      local coming, going = {}, {}
      for name, value in pairs(changes) do
        if value then
          coming[#coming + 1], coming[#coming + 2] = in_order(name, value)
        else
          going[#going + 1] = name
        end
      end
      call(add, key, coming)
      call(remove, key, going)
    end
  end
  write_keys(changed_fields, 'HSET', 'HDEL', function(field, value) return field, value end)
  write_keys(changed_members, 'ZADD', 'ZREM', function(member, score) return score, member end)
  return problem
end

local function write_or_fail()
  local problem = write()
  if problem then error(problem, 0) end
end
