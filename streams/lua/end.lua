-- End a response from outside its worker: fence, closing events, terminal event, seal.
--
-- KEYS[1]  response log   KEYS[2]  bus
-- ARGV[1]  id of the last entry that the caller has read
-- ARGV[2]  response id    ARGV[3]  approximate bound of the bus
-- then pairs              entry id, event; the first is the fence, the last is terminal
--
-- Reply    {'ok'}; {'changed'}: the log went on, read it and call again;
--          {'sealed'}: somebody else ended it; {'gone'}: no such log
--
-- Atomic because the closing events and the usage in the terminal event depend on
-- what is in the log, and because a fence without an end would leave it to nobody.

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #last == 0 then return {'gone'} end
local fence = redis.call('XRANGE', KEYS[1], ARGV[4], ARGV[4])
if last[1][1] == ARGV[#ARGV - 1] and #fence == 1 and fence[1][2][2] == ARGV[5] then
  return {'ok'}
end
if last[1][1] ~= ARGV[1] then return {'changed'} end

local bus = {}
for i = 4, #ARGV, 2 do
  local added = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', ARGV[i], 'event', ARGV[i + 1])
  if type(added) == 'table' and added.err then
    if i == 4 and string.find(added.err, 'equal or smaller', 1, true) then return {'sealed'} end
    return added
  end
  bus[#bus + 1] = ARGV[2] .. ' ' .. ARGV[i]
  bus[#bus + 1] = ARGV[i + 1]
end
redis.call('XSETID', KEYS[1], '18446744073709551615-0')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(bus))
return {'ok'}
