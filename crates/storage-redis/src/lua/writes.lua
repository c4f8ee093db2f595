-- The user's writes, of which none may fail once the first has begun: the type of each key and the
-- number in each counter are judged before, as those before it in the batch will leave them.
-- Arguments: code, key, command, count, the command's arguments after the key.

-- The type that a command needs.
local needs = {
  INCRBY = 'string',
  HSET = 'hash', HDEL = 'hash', HINCRBY = 'hash',
  SADD = 'set', SREM = 'set',
  ZADD = 'zset', ZREM = 'zset',
  RPUSH = 'list', LPUSH = 'list',
}

-- How the keys will be: type, whether all else is known too (`fresh`), and the values known, by
-- field ('' for a string's).
local states = {}

local function state_of(key)
  local state = states[key]
  if not state then
    state = { kind = redis.call('TYPE', key).ok, values = {} }
    states[key] = state
  end
  return state
end

-- Far enough from the bounds of 64 bits that a Lua number's rounding does not matter.
local largest = 9.2e18

local function number_at(state, key, field)
  local value = state.values[field]
  if value == nil and not state.fresh and state.kind ~= 'none' then
    value = field == '' and redis.call('GET', key) or field ~= '' and redis.call('HGET', key, field)
  end
  if not value then return 0 end
  if type(value) == 'number' then return value end
  local canonical = value == '0' or string.match(value, '^-?[1-9]%d*$')
  local number = canonical and #value <= 20 and tonumber(value)
  return number and math.abs(number) < largest and number
end

local function refused(key, why)
  return false, string.sub(key, prefix) .. '\0' .. why
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

function judge.write(op, at)
  local key, command = key_at(at + 1), ARGV[at + 2]
  local first, second = ARGV[at + 4], ARGV[at + 5]
  local state = state_of(key)
  if command == 'SET' then
    states[key] = { kind = 'string', fresh = true, values = { [''] = first } }
    return true
  elseif command == 'DEL' then
    states[key] = { kind = 'none', fresh = true, values = {} }
    return true
  elseif command == 'PEXPIREAT' then
    if tonumber(first) <= milliseconds() then
      -- The key goes at once; said so, it does whatever the server's clock does meanwhile.
      batch.before[op] = 'DEL'
      states[key] = { kind = 'none', fresh = true, values = {} }
    end
    return true
  elseif command == 'PERSIST' then
    return true
  end
  if state.kind ~= 'none' and state.kind ~= needs[command] then
    return refused(key, 'it holds a ' .. state.kind)
  end
  state.kind = needs[command]
  if command == 'HSET' then
    state.values[first] = second
  elseif command == 'HDEL' then
    state.values[first] = false
  elseif command == 'INCRBY' or command == 'HINCRBY' then
    local field = command == 'HINCRBY' and first or ''
    local number = number_at(state, key, field)
    if not number then return refused(key, 'what it holds is no whole number') end
    number = number + tonumber(command == 'HINCRBY' and second or first)
    if math.abs(number) >= largest then return refused(key, 'the sum is too large') end
    state.values[field] = number
  end
  return true
end

function apply.write(op, at)
  if batch.before[op] then
    redis.call(batch.before[op], key_at(at + 1))
    return
  end
  local arguments = {}
  for n = 1, tonumber(ARGV[at + 3]) do arguments[n] = ARGV[at + 3 + n] end
  redis.call(ARGV[at + 2], key_at(at + 1), unpack(arguments))
end
