local out, ticks = {}, 0
local function text(v)
  local kind, meta = type(v), nil
  if kind == 'table' then meta = getmetatable(v) end
  if kind == 'function' or kind == 'thread' then return kind end
  if kind == 'table' and (type(meta) ~= 'table' or rawget(meta, '__tostring') == nil) then return kind end
  return tostring(v)
end
local function tick(...)
  ticks = ticks + 1
  if ticks > 60 then error('tired', 0) end
  for _, v in ipairs({...}) do if type(v) == 'string' and #v > 5000 then error('long', 0) end end
end
local function cap(v) if type(v) == 'string' and #v > 60 then return v:sub(1, 60) end return v end
local function flat(v)
  if type(v) == 'table' or type(v) == 'function' or type(v) == 'thread' then return type(v) end
  return cap(v)
end
local function flats(...)
  local v, n = {...}, select('#', ...)
  for i = 1, n do v[i] = flat(v[i]) end
  return unpack(v, 1, n)
end
local function add(...)
  for i = 1, select('#', ...) do
    if #out > 300 then error('enough', 0) end
    local v = text((select(i, ...)))
    if type(v) == 'string' and #v > 2000 then v = #v .. ': ' .. v:sub(1, 2000) end
    out[#out + 1] = type(v) == 'string' and v or type(v)
  end
end
local function thrown(v)
  if type(v) == 'function' or type(v) == 'thread' then return type(v) end
  if type(v) == 'table' and type(rawget(v, 'err')) ~= 'string' then return 'a table' end
  return v
end
local function bare(v) if type(v) == 'table' and getmetatable(v) ~= nil then return 'a table' end return v end
local function try(f, ...) add(pcall(f, ...)) end
local function note(v) if type(v) == 'table' and v.err then add(v.err) else add(type(v)) end end
local function with(set, value, normal, f, v)
  local was, made = {pcall(set, value)}, {pcall(f, v)}
  set(normal)
  add(was[1], was[2], made[1], type(made[2]) == 'string' and made[2] or type(made[2]))
end
local function order() tick() return #out % 2 == 0 end
local function sorted(v)
  if type(v) ~= 'table' or v.err then return v end
  local list = {}
  for k, w in pairs(v.set or v) do list[#list + 1] = tostring(v.set and k or w) end
  table.sort(list)
  return table.concat(list, ' ')
end
local function names(v)
  local list = {}
  for k, w in pairs(v) do
    -- Which Redis has not.
    if k ~= 'os' then list[#list + 1] = tostring(k) .. '=' .. type(w) end
  end
  table.sort(list)
  return table.concat(list, ' ')
end
local a, b, c, d, s, i, k, w = 1, 'x', 7, 2.5, 'hello', 0, nil, nil
local t, u, v = {1, 2, 3, x = 1}, {x = 's', y = 2, 'one'}, {}
local f, g, h = function(...) return ... end, function(a) tick() a = a or 1 return a, 2 end, tostring and function() tick() end
t.me, u.me, v.me = u, v, t
