-- Claim the pending entries of a consumer whose lease is gone.
--
-- KEYS[1]  request stream
-- ARGV[1]  group   ARGV[2]  the dead consumer   ARGV[3]  the claiming consumer
-- ARGV[4]  most entries to claim
--
-- Reply    as XCLAIM: entries that were deleted meanwhile are dropped from the pending list
--
-- Atomic because of two claimants the second must find nothing. The lease was looked at
-- before: a consumer name never comes back to life, so that answer can not change.

local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], ARGV[2])
if #pending == 0 then return {} end
local ids = {}
for i, entry in ipairs(pending) do ids[i] = entry[1] end
return redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, unpack(ids))
