-- A turn of a conversation is archived: forget it and those before it, but keep the last one of all.
--
-- KEYS[1]  turns of the conversation
-- ARGV[1]  response id    ARGV[2]  time to live of the last one, s
--
-- Reply    nothing
--
-- Atomic because the last turn must stay: who has read the history compares with it (turn_join.lua).

local turns = redis.call('LRANGE', KEYS[1], 0, -1)
for i, turn in ipairs(turns) do
  if turn == ARGV[1] then
    if i < #turns then
      redis.call('LTRIM', KEYS[1], i, -1)
    else
      redis.call('LTRIM', KEYS[1], -1, -1)
      redis.call('EXPIRE', KEYS[1], ARGV[2])
    end
    return
  end
end
