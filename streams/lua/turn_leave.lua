-- A turn of a conversation is archived: forget it, unless it is the last one.
--
-- KEYS[1]  turns of the conversation
-- ARGV[1]  response id    ARGV[2]  time to live of the last one, s
--
-- Reply    nothing
--
-- Atomic because the last turn must stay: who has read the history compares with it (turn_join.lua).

if redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then
  redis.call('LREM', KEYS[1], 0, ARGV[1])
elseif redis.call('LLEN', KEYS[1]) == 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
