"""The scripts in Lua. Each is one step on the server; all of them use string commands only."""

from __future__ import annotations

from typing import Final

TAKE: Final = b"""
for i = 1, #KEYS do
  local place = (ARGV[3] + i) % #KEYS + 1
  local key = KEYS[place]
  if redis.call('set', key, ARGV[1], 'NX', 'PX', ARGV[2])
      or redis.call('get', key) == ARGV[1] then
    return place
  end
end
return false
"""
"""Take the first free key, from a given one on: token, milliseconds, number. Return which (from 1).

A key that holds the token already counts as free: the same request may be sent twice.
"""

GIVE_BACK: Final = b"""
local deleted = 0
for _, key in ipairs(KEYS) do
  if redis.call('get', key) == ARGV[1] then deleted = deleted + redis.call('del', key) end
end
return deleted
"""
"""Delete the keys that hold a token; return how many did."""

EXTEND: Final = b"""
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('pttl', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('pexpire', KEYS[1], ARGV[2])
end
return 1
"""
"""Let a key that holds a token live for so many milliseconds at least; return 1 if it does."""

HOLDS: Final = b"""
return redis.call('get', KEYS[1]) == ARGV[1] and 1 or 0
"""
"""Return 1 if a key holds a token."""

COUNT: Final = b"""
return redis.call('exists', unpack(KEYS))
"""
"""Return how many of the keys exist."""

LIMIT: Final = b"""
local limit, per, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('time')
local now = clock[1] * 1000000 + clock[2]
local times, counts, used, must_write = {}, {}, 0, false

for written_at, written_count in string.gmatch(redis.call('get', KEYS[1]) or '', '(%d+):(%d+)') do
  local at, count = tonumber(written_at), tonumber(written_count)
  if at > now then  -- the clock was set back: nobody shall wait until it is there again
    at, must_write = now, true
  end
  if at + per > now then
    times[#times + 1], counts[#counts + 1], used = at, count, used + count
  end
end

local wait, excess = 0, used + cost - limit
if excess > 0 then
  for i = 1, #times do
    excess = excess - counts[i]
    if excess <= 0 then
      wait = times[i] + per - now
      break
    end
  end
elseif cost > 0 then
  local last, part = #times, per / 32
  if last > 0 and math.floor(times[last] / part) == math.floor(now / part) then
    times[last], counts[last] = now, counts[last] + cost
  else
    times[last + 1], counts[last + 1] = now, cost
  end
  used, must_write = used + cost, true
end

if must_write then
  local written = {}
  for i = 1, #times do written[i] = string.format('%.0f:%.0f', times[i], counts[i]) end
  redis.call('set', KEYS[1], table.concat(written, ' '), 'PX',
    string.format('%.0f', math.ceil(per / 1000) + 1))
end
return {wait == 0 and 1 or 0, limit - used, wait,
  #times > 0 and times[#times] + per - now or 0}
"""
"""Count a hit against a limit: limit, microseconds, cost (0: only look).

Return 1 if it was allowed, what is left, and the microseconds until it would be, and until all is
left again. The key holds times and counts. Hits in the same 32nd of the window are kept as one, with
the time of the last of them, so that a window never holds more than the limit.
"""

CLAIM: Final = b"""
local token, mode, life = ARGV[1], ARGV[3], tonumber(ARGV[4])
local versions = {}
for i = 5, #KEYS do
  local version = redis.call('get', KEYS[i])
  if not version then
    version = token
    redis.call('set', KEYS[i], version, 'PX', ARGV[4])
  elseif redis.call('pttl', KEYS[i]) < life then
    redis.call('pexpire', KEYS[i], ARGV[4])
  end
  versions[i - 4] = version
end
versions = table.concat(versions, ' ')

local entry, value = redis.call('get', KEYS[1]), false
if entry and mode ~= 'refresh' then
  local cut = string.find(entry, '\\n', 1, true)
  if cut and string.sub(entry, 1, cut - 1) == versions then value = string.sub(entry, cut + 1) end
end
if value and (mode == 'plain' or redis.call('exists', KEYS[2]) == 1) then return {'hit', value} end

if mode == 'refresh' then redis.call('set', KEYS[4], token, 'PX', ARGV[4]) end
local evicted = redis.call('get', KEYS[4]) or ''
local holder = redis.call('get', KEYS[3])
if holder and holder ~= token and mode ~= 'refresh' then
  if value then return {'hit', value} end
  return {'wait', versions, evicted}
end
redis.call('set', KEYS[3], token, 'PX', ARGV[2])
return {'compute', versions, evicted}
"""
"""Return a cached value, or who has to compute it: token, guard's milliseconds, mode, milliseconds.

Keys: the entry, whether it is fresh, the guard, the last eviction, the versions of its tags. A tag
without a version gets one, for so many milliseconds (the last argument).
"""

STORE: Final = b"""
local versions, life = {}, tonumber(ARGV[5])
for i = 5, #KEYS do versions[i - 4] = redis.call('get', KEYS[i]) or '' end
local stored = 0
if table.concat(versions, ' ') == ARGV[2] and (redis.call('get', KEYS[4]) or '') == ARGV[3] then
  redis.call('set', KEYS[1], ARGV[2] .. '\\n' .. ARGV[4], 'PX', ARGV[5])
  if ARGV[6] ~= ARGV[5] then redis.call('set', KEYS[2], '1', 'PX', ARGV[6]) end
  for i = 5, #KEYS do
    if redis.call('pttl', KEYS[i]) < life then redis.call('pexpire', KEYS[i], ARGV[5]) end
  end
  stored = 1
end
if redis.call('get', KEYS[3]) == ARGV[1] then redis.call('del', KEYS[3]) end
return stored
"""
"""Store what was computed, if nothing was evicted since CLAIM, and give the guard back.

Token, versions and eviction as CLAIM has returned them, the value, the milliseconds for which it is
kept, and for which it is fresh. Return 1 if it was stored.
"""

EVICT: Final = b"""
local deleted = redis.call('del', KEYS[1])
redis.call('del', KEYS[2], KEYS[3])
redis.call('set', KEYS[4], ARGV[1], 'PX', ARGV[2])
return deleted
"""
"""Delete a cached value, and have what is being computed now not be stored: token, milliseconds."""
