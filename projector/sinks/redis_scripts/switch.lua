-- Makes the generation that was built the live one. Returns 0, and changes nothing, if the pointer is not the one that the caller
-- expects, or if the generation is behind the live one.
--
-- KEYS: pointer; checkpoint of the generation that was built; checkpoint of the live generation.
-- ARGV: the expected values of live and building; the generation to keep for a rollback. '' means none.
if (redis.call('HGET', KEYS[1], 'live') or '') ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[1], 'building') ~= ARGV[2] then return 0 end
local built, live = redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])
if not built then return 0 end
if live and tonumber(live) > tonumber(built) then return 0 end
redis.call('HSET', KEYS[1], 'live', ARGV[2])
redis.call('HDEL', KEYS[1], 'building', 'previous')
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'previous', ARGV[3]) end
return 1
