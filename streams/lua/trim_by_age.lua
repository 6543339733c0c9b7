-- Trim a stream by the age of its entries.
--
-- KEYS[1]  stream   ARGV[1]  greatest age, seconds
-- Reply    number of entries removed
--
-- The broker's clock counts: it made the ids. A script, because a Cluster has as many clocks as nodes.

local oldest = redis.call('TIME')[1] - ARGV[1]
return redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%d-0', oldest * 1000))
