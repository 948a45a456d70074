-- Moves a pointer. Returns 0, and changes nothing, if the pointer is not as the caller expects.
--
-- KEYS: pointer.
-- ARGV: the expected values of live, building and previous; then their new values. '' means none.
local names = {'live', 'building', 'previous'}
for place, name in ipairs(names) do
    if (redis.call('HGET', KEYS[1], name) or '') ~= ARGV[place] then return 0 end
end
for place, name in ipairs(names) do
    if ARGV[place + 3] == '' then redis.call('HDEL', KEYS[1], name)
    else redis.call('HSET', KEYS[1], name, ARGV[place + 3]) end
end
return 1
