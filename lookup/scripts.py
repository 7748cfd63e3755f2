"""What Redis does in one go, as Lua scripts: to accept and claim a version, to flip and amend a head."""

# KEYS: 1 the versions being loaded, 2 the checked ones, 3 those that are being dropped. ARGV: 1 a version, 2 its head.
# Atomic: a version that nobody drops, and that Redis has not lost, becomes a checked one.
ACCEPT = """
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
"""

# KEYS: 1 the head, 2 when each version left it, 3 the checked versions. ARGV: 1 the new head, 2 its token, 3 its
# version, 4 its date, or nothing where an older date may replace a newer one, 5 the version's head as listed there.
# Atomic: token and date are compared, the version is seen to be there as it was, the head is set, and the time at which
# the old version left is noted.
FLIP = """
local current = redis.call('GET', KEYS[1])
if current == ARGV[1] then return {'same', ''} end
local listed = redis.call('HGET', KEYS[3], ARGV[3])
if not listed then return {'gone', ''} end
if listed ~= ARGV[5] then return {'amended', ''} end
if current then
  local ok, head = pcall(cjson.decode, current)
  if not ok or type(head) ~= 'table' or type(head.token) ~= 'number' or type(head.version) ~= 'number' then
    return {'damaged', current}
  end
  if head.token > tonumber(ARGV[2]) then return {'fenced', tostring(head.token)} end
  if ARGV[4] ~= '' and tostring(head.date) > ARGV[4] then return {'older', tostring(head.date)} end
  if tostring(head.version) ~= ARGV[3] then
    local now = redis.call('TIME')
    redis.call('HSET', KEYS[2], tostring(head.version), string.format('%d.%06d', now[1], now[2]))
  end
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[3])
return {'flipped', ''}
"""

# KEYS: 1 the head, 2 the checked versions, 3 those that are being dropped, 4 when each left, 5 those being loaded.
# ARGV: 1 a version, 2 its run.
# Atomic: a version of that run that is not the head's is moved from the others to those being dropped; from then on
# no flip finds it, and its keys are never written again.
CLAIM = """
local current = redis.call('GET', KEYS[1])
if current and tostring(cjson.decode(current).version) == ARGV[1] then return 0 end
local head = redis.call('HGET', KEYS[2], ARGV[1]) or redis.call('HGET', KEYS[5], ARGV[1])
if not head or cjson.decode(head).run_id ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], head)
return 1
"""

# KEYS: 1 the head, 2 the checked versions. ARGV: 1 a version, 2 its head there, 3 what it becomes, 4 the head that
# readers follow, 5 what it becomes; 4 and 5 are empty where readers follow another version.
# Atomic: both are compared and set together, or neither is.
AMEND = """
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[4] ~= '' then
  if redis.call('GET', KEYS[1]) ~= ARGV[4] then return 0 end
  redis.call('SET', KEYS[1], ARGV[5])
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
"""
