-- Add a response to its conversation, unless another one came first.
--
-- KEYS[1]  turns of the conversation
-- ARGV[1]  response id    ARGV[2]  the last turn that the caller has seen, '' for none
-- ARGV[3]  time to live, s    ARGV[4]  most turns that may wait for the archive
--
-- Reply    1 it is in, now or before; 0 another turn is behind the one that was seen, or too many wait
--
-- Atomic because of two that have read the same history only one may go on from it.

local last = redis.call('LINDEX', KEYS[1], -1)
if last == ARGV[1] then return 1 end
if last and last ~= ARGV[2] then return 0 end
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
