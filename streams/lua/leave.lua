-- A gateway shows a response no longer.
--
-- KEYS[1]  viewed set of the response   ARGV[1]  gateway
-- Reply    number of other gateways that show it
--
-- Atomic because of two gateways that leave at once the later one must find nobody.

local now = redis.call('TIME')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now[1] * 1000 + math.floor(now[2] / 1000))
return redis.call('ZCARD', KEYS[1])
