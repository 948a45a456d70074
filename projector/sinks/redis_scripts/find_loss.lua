-- Looks for lost keys among some of the names of a generation. If one is lost, deletes the checkpoint, so that the generation
-- counts as lost. Returns the cursor for the next names, and the name of the lost key or ''. The cursor is '0' after the last name.
--
-- KEYS: checkpoint, names.
-- ARGV: prefix of the keys; cursor; about how many names to look at.
local function lost(name)
    redis.call('DEL', KEYS[1])
    return {'0', name}
end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'0', ''} end
if redis.call('TYPE', KEYS[2]).ok ~= 'set' then return lost('names') end
local found = redis.call('SSCAN', KEYS[2], ARGV[2], 'COUNT', ARGV[3])
for _, name in ipairs(found[2]) do
    if redis.call('EXISTS', ARGV[1] .. name) == 0 then return lost(name) end
end
return {found[1], ''}
