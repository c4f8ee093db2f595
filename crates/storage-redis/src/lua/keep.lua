-- A hash or sorted set vanishes with its last member, and while a cluster moves a slot away, a script
-- that asks for a key which is not there fails. Whatever loses a member is therefore kept, by a
-- member '', which nothing is named, until the call ends.

local kept_hashes, kept_sets = {}, {}

local function remove_field(hash, field)
  if not kept_hashes[hash] then
    redis.call('HSET', hash, '', '')
    kept_hashes[hash] = true
  end
  redis.call('HDEL', hash, field)
end

local function remove_member(set, member)
  if not kept_sets[set] then
    redis.call('ZADD', set, 0, '')
    kept_sets[set] = true
  end
  redis.call('ZREM', set, member)
end

-- The end of every call that removes.
local function keep_no_longer()
  for hash in pairs(kept_hashes) do redis.call('HDEL', hash, '') end
  for set in pairs(kept_sets) do redis.call('ZREM', set, '') end
end
