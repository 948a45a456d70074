-- Creates an empty generation. Returns 0, and changes nothing, if the generation exists.
--
-- KEYS: checkpoint, origin, names.
-- ARGV: model version; the names of these three keys, without the prefix of the generation.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], '0')
redis.call('HSET', KEYS[2], 'log_hash', '', 'model_version', ARGV[1])
redis.call('SADD', KEYS[3], ARGV[2], ARGV[3], ARGV[4])
return 1
