-- Put entries back into a log that lost them in a failover: under their ids, while no newer entry is there.
--
-- KEYS[1]  response log   KEYS[2]  open index
-- ARGV[1]  response id    ARGV[2]  time accepted, unix ms   ARGV[3]  seal ('1' or '0')
-- then pairs              entry id, event, in order; the first is the entry behind which the others belong,
--                         as the caller knows it ('', '': there is no log)
--
-- Reply    1 done, 0 the log went on, or is another: look again
--
-- Atomic because an attempt may take the log between the look and the writes, and then its word counts.
-- May create a log, but only from its first entry on.

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local found, event = '', ''
if #last == 1 then found, event = last[1][1], last[1][2][2] end
-- of a fence the boot counts: its worker may have taken twice, at another time
local function writer(id, json)
  return string.sub(id, -2) == '-0' and string.match(json, '"boot":"(.-)"') or json
end
if found ~= ARGV[4] or writer(found, event) ~= writer(ARGV[4], ARGV[5]) or (found == '' and ARGV[6] ~= '0-1') then return 0 end
for i = 6, #ARGV, 2 do
  local added = redis.pcall('XADD', KEYS[1], ARGV[i], 'event', ARGV[i + 1])
  if type(added) == 'table' and added.err then
    if i == 6 and string.find(added.err, 'equal or smaller', 1, true) then return 0 end
    return added
  end
end
if ARGV[3] == '1' then redis.call('XSETID', KEYS[1], '18446744073709551615-0') end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 1
