-- Remove a consumer that has nothing pending (DELCONSUMER would drop what is pending).
--
-- KEYS[1]  stream   ARGV[1]  group   ARGV[2]  consumer
-- Reply    1 removed, 0 left alone
--
-- Atomic because an entry may become pending between the look and the removal.

if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
