-- What is known of the store, which is made where there is none.
-- KEYS: the store.  ARGV: format, partitions, id.

if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'partitions', ARGV[2], 'id', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'format', 'partitions', 'id')
