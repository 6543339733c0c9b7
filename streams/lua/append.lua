-- Append a flush of one worker to response logs and to the bus.
--
-- KEYS[1]  bus            KEYS[2]  mark of the worker
-- KEYS[3…] response logs
-- ARGV[1]  number of this flush
-- ARGV[2]  the mark it must follow, or '*' when a worker puts lost entries back; then the first pair of each
--          log is an anchor: an entry that is not written, and behind which the others belong
-- ARGV[3]  boot id        ARGV[4]  approximate bound of the bus
-- ARGV[5]  life of the mark, seconds
-- then for each log:      response id, attempt, seal ('1' or '0'), count,
--                         count × (entry id, event)
--
-- Reply    {'ok', status of each log…}: 0 written now or before, 1 fenced, 2 no such log
--          {'mark', found}: the broker lost writes of this worker; nothing was written
--          an error: the broker's (OOM, READONLY, …); send the same flush again
--
-- Atomic because the mark must say exactly which flush is in the logs. Running it again
-- is harmless: entry ids are explicit, and the bus is left out where the mark shows
-- that the flush was complete.

local SEALED = '18446744073709551615-0'

local number = tonumber(ARGV[1])
local mark = tonumber(redis.call('GET', KEYS[2]) or '0')
local is_repeat = mark == number
if not is_repeat and ARGV[2] ~= '*' and mark ~= tonumber(ARGV[2]) then
  return {'mark', mark}
end

local function refused_status(log, attempt)
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if #last == 0 then return 2 end
  if string.match(last[1][1], '^%d+') ~= attempt then return 1 end
  local fence = redis.call('XRANGE', log, attempt .. '-0', attempt .. '-0')
  if #fence == 1 and string.find(fence[1][2][2], '"boot":"' .. ARGV[3] .. '"', 1, true) then
    return 0
  end
  return 1
end

-- A log that lost entries goes on only where it stands among those that are put back: Redis refuses low
-- ids but not holes. Where to go on (an index of ARGV), or nil and a status.
local function resume_at(log, attempt, first, last)
  local found = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if #found == 0 then return nil, 2 end
  local id = found[1][1]
  for i = first, last, 2 do
    if ARGV[i] == id then
      -- of a fence the boot counts: its worker may have taken twice, at another time
      local is_ours = id == attempt .. '-0' and string.find(found[1][2][2], '"boot":"' .. ARGV[3] .. '"', 1, true)
      if i > first and found[1][2][2] ~= ARGV[i + 1] and not is_ours then return nil, 1 end
      return i + 2
    end
  end
  local a, n = string.match(id, '^(%d+)-(%d+)$')
  local b, m = string.match(ARGV[last], '^(%d+)-(%d+)$')
  a, n, b, m = tonumber(a), tonumber(n), tonumber(b), tonumber(m)
  if a < b or (a == b and n < m) then return nil, 1 end
  if a < tonumber(attempt) then return last + 2 end
  return nil, refused_status(log, attempt)
end

local bus = {}
local reply = {'ok'}
local at = 6
for k = 3, #KEYS do
  local log = KEYS[k]
  local id, attempt, seal, count = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local status = 0
  local first, last = at + 4, at + 2 + 2 * count
  if ARGV[2] == '*' then
    first, status = resume_at(log, attempt, first, last)
    first, status = first or last + 2, status or 0
  end
  for i = first, last, 2 do
    local added = redis.pcall('XADD', log, 'NOMKSTREAM', ARGV[i], 'event', ARGV[i + 1])
    if not added then
      status = 2
    elseif type(added) == 'table' and added.err then
      if string.find(added.err, 'equal or smaller', 1, true) then
        status = refused_status(log, attempt)
      elseif string.find(added.err, 'WRONGTYPE', 1, true) then
        status = 2
      else
        return added
      end
    end
    if status ~= 0 then break end
    bus[#bus + 1] = id .. ' ' .. ARGV[i]
    bus[#bus + 1] = ARGV[i + 1]
  end
  at = at + 4 + 2 * count
  if status == 0 and seal == '1' then
    local sealed = redis.pcall('XSETID', log, SEALED)
    if type(sealed) == 'table' and sealed.err then return sealed end
  end
  reply[#reply + 1] = status
end

if not is_repeat then
  if #bus > 0 then
    local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*', unpack(bus))
    if type(added) == 'table' and added.err then return added end
  end
  local set = redis.pcall('SET', KEYS[2], ARGV[1], 'EX', ARGV[5])
  if set.err then return set end
end
return reply
