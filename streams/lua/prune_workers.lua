-- Forget dead workers whose registry entries are still as they were seen.
--
-- KEYS[1]  registry   ARGV[1], ARGV[2]  consumer and its entry, and so on
-- Reply    how many were forgotten
--
-- Atomic because a worker that only seemed dead may write its entry anew meanwhile.

local forgotten = 0
for i = 1, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
        forgotten = forgotten + redis.call('HDEL', KEYS[1], ARGV[i])
    end
end
return forgotten
