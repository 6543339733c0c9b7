-- Trim a stream up to what every group has acknowledged.
--
-- KEYS[1]  stream
-- Reply    number of entries removed
--
-- Atomic because an entry may be delivered between the look and the trim.

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return ms, seq
end

local function below(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  if #a_ms ~= #b_ms then return #a_ms < #b_ms end
  if a_ms ~= b_ms then return a_ms < b_ms end
  if #a_seq ~= #b_seq then return #a_seq < #b_seq end
  return a_seq < b_seq
end

local mark = nil
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  local keep = info['last-delivered-id']
  if info['pending'] > 0 then
    keep = redis.call('XPENDING', KEYS[1], info['name'])[2]
  end
  if mark == nil or below(keep, mark) then mark = keep end
end
if mark == nil then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', mark)
