-- Applies a batch to a generation. Returns 1 if the batch was applied. Returns 0 if the checkpoint is not where the batch begins,
-- if the generation takes no batches, or if a key that the batch changes was lost. Returns 2 if a sum of money in Redis is not the sum that the caller has added to.
--
-- KEYS: pointer, checkpoint, origin, names.
-- ARGV: number of the generation; position before; position after; log hash; prefix of the keys; the commands; the sums that the
-- commands were computed from, as (key, field, value), with '' for no value. Commands and sums are encoded in MessagePack, with
-- strings only. Do no arithmetic on money here: numbers in Lua are doubles.
--
-- Redis does not undo a script that fails. A lack of memory or disk shows before the first write. If a later command fails, the
-- stored data are not what Daybook wrote. Then the script deletes the checkpoint, so that the generation counts as lost. It does
-- the same if a key was lost, because a command would make it again with only a part of its data.
local number = ARGV[1]
if redis.call('HGET', KEYS[1], 'live') ~= number and redis.call('HGET', KEYS[1], 'building') ~= number then return 0 end
if redis.call('HEXISTS', KEYS[1], 'paused') == 1 then return 0 end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
local commands, seen, new = cmsgpack.unpack(ARGV[6]), {}, {}
for _, command in ipairs(commands) do
    local name = command[2]
    if not seen[name] and redis.call('EXISTS', ARGV[5] .. name) == 0 then
        if redis.call('SISMEMBER', KEYS[4], name) == 1 or redis.call('EXISTS', KEYS[4]) == 0 then
            redis.call('DEL', KEYS[2])
            return 0
        end
        new[#new + 1] = name
    end
    seen[name] = true
end
for _, sum in ipairs(cmsgpack.unpack(ARGV[7])) do
    if (redis.call('HGET', ARGV[5] .. sum[1], sum[2]) or '') ~= sum[3] then return 2 end
end
for place, command in ipairs(commands) do
    local name = command[2]
    command[2] = ARGV[5] .. command[2]
    local answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then
        if place > 1 then redis.call('DEL', KEYS[2]) end
        return answer
    end
    -- Redis deletes a sorted set with its last member. Then the key is not lost.
    if command[1] == 'ZREM' and redis.call('EXISTS', command[2]) == 0 then redis.call('SREM', KEYS[4], name) end
end
for _, name in ipairs(new) do
    if redis.call('EXISTS', ARGV[5] .. name) == 1 then redis.call('SADD', KEYS[4], name) end
end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('HSET', KEYS[3], 'log_hash', ARGV[4])
return 1
