-- What every operation needs of the call's keys and arguments.
local expiries, prefix = KEYS[1], tonumber(ARGV[1])
