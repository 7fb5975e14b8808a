"""Writes that look before they write, as Lua scripts: Redis runs each as one step.

They are sent with their text (EVAL), which Redis compiles once; a server that was restarted, or a replica
that took over, needs no other call first. Of one call all keys lie in one slot.

Invariants
1. KEYS come in pairs: a row's key and its note's; those of bundles' items come alone.
2. A script run twice leaves what it leaves run once: calls whose answer was lost are sent again.
3. No number is compared that a double can't hold: versions are bytes, times two halves of 32 bits.
"""

from __future__ import annotations

PUT = b"""
for i = 1, #ARGV do
  redis.call('SET', KEYS[2 * i - 1], ARGV[i])
  redis.call('DEL', KEYS[2 * i])
end
"""
"""ARGV: rows."""

PUT_NEWEST = b"""
for i = 1, #ARGV do
  local row, note = KEYS[2 * i - 1], KEYS[2 * i]
  local kept = redis.call('GET', note)
  local later = true
  if kept and string.sub(kept, 1, 1) == 'T' and redis.call('EXISTS', row) == 1 then
    local low, high = struct.unpack('<I4i4', ARGV[i], 9)
    local kept_low, kept_high = struct.unpack('<I4i4', kept, 2)
    later = high > kept_high or (high == kept_high and low >= kept_low)
  end
  if later then
    redis.call('SET', row, ARGV[i])
    redis.call('SET', note, 'T' .. string.sub(ARGV[i], 9, 16))
  end
end
"""
"""ARGV: rows, each with its effective time at byte 8 (byte 9, as Lua counts)."""

REPLACE = b"""
local row, note = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
local version = ARGV[5]
if row and note and string.sub(note, 1, 1) == 'V' then
  version = string.sub(note, 2, 9)
end
if version ~= ARGV[3] then
  if row == ARGV[1] and note == ARGV[2] then
    return 1
  end
  return {row, note}
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
if ARGV[4] ~= '0' then
  redis.call('EXPIREAT', KEYS[1], ARGV[4])
  redis.call('EXPIREAT', KEYS[2], ARGV[4])
end
return 1
"""
"""ARGV: the row, its note, the version before it, the time of expiry (decimal, 0: never), the version 0.

Gives 1 if the row is written, else what is there: row and note, nil for what isn't.
"""

PUT_BUNDLED = b"""
local attribute, mark, most, tiny = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[5])
local time, full = attribute .. mark, {}
for i = 1, #KEYS do
  local item, row = KEYS[i], ARGV[5 + i]
  local kept = ARGV[4] == '1' and redis.call('HGET', item, time)
  local later = true
  if kept then
    local low, high = struct.unpack('<I4i4', row, 9)
    local kept_low, kept_high = struct.unpack('<I4i4', kept, 1)
    later = high > kept_high or (high == kept_high and low >= kept_low)
  end
  if later then
    local size = #attribute + #row
    for _, name in ipairs(redis.call('HKEYS', item)) do
      if name ~= attribute and string.sub(name, -#mark) ~= mark then
        local length = redis.call('HSTRLEN', item, name)
        size = size + (length > tiny and #name + length or 0)
      end
    end
    if size > most and #row > tiny then
      full[#full + 1] = i
    else
      redis.call('HSET', item, attribute, row)
      if ARGV[4] == '1' then
        redis.call('HSET', item, time, string.sub(row, 9, 16))
      else
        redis.call('HDEL', item, time)
      end
    end
  end
end
return full
"""
"""KEYS: items. ARGV: the attribute, `TIME_MARK`, how many bytes rows and names may have, 1 or 0 for whether
the newest stays, `TINY_ROW_BYTES`, and a row for each item. Gives the numbers, from 1, of those that have no
room.
"""
