-- Put entries back into a log that lost them in a failover: under their ids, while no newer entry is there.
--
-- KEYS[1]  response log   KEYS[2]  open index
-- ARGV[1]  id of the log's last entry as the caller saw it, '' where there is no log
-- ARGV[2]  response id    ARGV[3]  time accepted, unix ms   ARGV[4]  seal ('1' or '0')
-- then pairs              entry id, event, in order
--
-- Reply    1 done, 0 the log went on: look again
--
-- Atomic because an attempt may take the log between the look and the writes, and then its word counts.
-- May create a log, but only from its first entry on.

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local found = #last == 1 and last[1][1] or ''
if found ~= ARGV[1] or (found == '' and ARGV[5] ~= '0-1') then return 0 end
for i = 5, #ARGV, 2 do
  local added = redis.pcall('XADD', KEYS[1], ARGV[i], 'event', ARGV[i + 1])
  if type(added) == 'table' and added.err then
    if i == 5 and string.find(added.err, 'equal or smaller', 1, true) then return 0 end
    return added
  end
end
if ARGV[4] == '1' then redis.call('XSETID', KEYS[1], '18446744073709551615-0') end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
return 1
