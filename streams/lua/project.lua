-- Put a new picture of all API keys in the place of the old one.
--
-- KEYS[1]  the keys   ARGV[1]  version that the writer saw, '' for none   ARGV[2]  fingerprint of the picture
-- ARGV[3]  1 if keys are required   ARGV[4], ARGV[5]  a key's SHA-256 and its entry, and so on
-- Reply    1; 0 if another picture came meanwhile: the writer must read SQL again
--
-- Atomic because between the look and the write a key may have been revoked: a picture that was read
-- before must not bring it back. Version and keys stand in one hash, so they are lost together.

local seen = redis.call('HGET', KEYS[1], ':version') or ''
if seen ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
local now = redis.call('TIME')
-- not a counter: after a loss it would begin anew and meet the version of a writer that is late
local version = string.format('%d.%06d.%d', now[1], now[2], (tonumber(string.match(seen, '%.(%d+)$')) or 0) + 1)
redis.call('HSET', KEYS[1], ':version', version, ':fingerprint', ARGV[2], ':required', ARGV[3])
for i = 4, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
return 1
