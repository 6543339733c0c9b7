-- Say that a gateway shows responses.
--
-- KEYS     viewed set of each response
-- ARGV[1]  gateway   ARGV[2]  for how long, ms
-- Reply    nothing of use
--
-- The broker's clock counts, so that gateways need not agree on theirs.

local now = redis.call('TIME')
local till = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2]
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, till, ARGV[1])
  redis.call('PEXPIRE', key, ARGV[2])
end
return 0
