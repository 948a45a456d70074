-- Returns the first command of a batch that would fail, as text. Returns '' if none would fail, or if the checkpoint is not where
-- the batch begins.
--
-- KEYS: checkpoint.
-- ARGV: prefix of the keys; the commands, as in apply.lua; position before.
if redis.call('GET', KEYS[1]) ~= ARGV[3] then return '' end
local kinds = {HSET = 'hash', HDEL = 'hash', HINCRBY = 'hash', ZADD = 'zset', ZREM = 'zset', ZINCRBY = 'zset', LPUSH = 'list', LTRIM = 'list'}
local known, set = {}, {}
for _, command in ipairs(cmsgpack.unpack(ARGV[2])) do
    local name, key = command[1], ARGV[1] .. command[2]
    local kind = known[key] or redis.call('TYPE', key).ok
    if kind ~= 'none' and kind ~= kinds[name] then return name .. ' ' .. command[2] .. ', which is a ' .. kind end
    known[key] = kinds[name]
    if name == 'HSET' then
        for place = 3, #command, 2 do set[key .. ' ' .. command[place]] = command[place + 1] end
    elseif name == 'HINCRBY' then
        local value = set[key .. ' ' .. command[3]]
        if not value then value = kind == 'hash' and redis.call('HGET', key, command[3]) or '0' end
        if not string.match(value, '^-?%d+$') or #value > 18 or #command[4] > 18 then
            return 'HINCRBY ' .. command[2] .. ' ' .. command[3] .. ', which is no small integer'
        end
    elseif name == 'ZADD' then
        for place = 3, #command, 2 do
            local score = tonumber(command[place])
            if not score or score ~= score then return 'ZADD ' .. command[2] .. ', a score that is no number' end
        end
    end
end
return ''
