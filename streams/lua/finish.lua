-- Acknowledge an entry and delete it.
--
-- KEYS[1]  stream   ARGV[1]  group   ARGV[2]  entry id
-- Reply    nothing of use
--
-- Atomic because an entry that is acknowledged and not deleted would stay for ever.

redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
