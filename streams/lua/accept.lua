-- Create a response log with the events of attempt 0 and add it to the open index.
--
-- KEYS[1]  response log   KEYS[2]  open index   KEYS[3]  unqueued index
-- ARGV[1]  response id    ARGV[2]  time accepted, unix ms
-- ARGV[3…] events: accepted, queued, and what a fork copies from another log
--
-- Reply    1 created now or before by the same call; 0 another log has this id
--
-- Atomic because an id outside the indexes is invisible to every sweep, and a fork without a part of what it
-- copies would be another. The only script that creates a log, but for put_back.lua.

local first = redis.call('XRANGE', KEYS[1], '0-1', '0-1')
if #first == 1 then
  if first[1][2][2] == ARGV[3] then return 1 end
  return 0
end
for i = 3, #ARGV do redis.call('XADD', KEYS[1], '0-' .. (i - 2), 'event', ARGV[i]) end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
return 1
