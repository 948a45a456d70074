-- Writes a note beside a pointer. Does nothing if there is no pointer, because a note must not create one.
--
-- KEYS: pointer.
-- ARGV: name, value.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
