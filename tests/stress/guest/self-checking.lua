-- Programs whose results must be the same by LuaJIT's compiler and by its interpreter (-joff), and known where they are.
local bit = require("bit")
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
assert(fib(27) == 196418)

local function sieve(n)
	local composite, count = {}, 0
	for i = 2, n do
		if not composite[i] then
			count = count + 1
			for j = i * i, n, i do composite[j] = true end
		end
	end
	return count
end
assert(sieve(1000000) == 78498)

local function crc(s)
	local c = -1
	for i = 1, #s do
		c = bit.bxor(c, s:byte(i))
		for _ = 1, 8 do c = bit.bxor(bit.rshift(c, 1), bit.band(0xedb88320, -bit.band(c, 1))) end
	end
	return bit.bnot(c)
end
assert(crc("123456789") == bit.tobit(0xcbf43926))

-- Floating point, tables, closures, strings, each with side exits now and then.
local seed, out = 12345, {}
local function random()
	seed = (seed * 16807) % 2147483647
	return seed
end
for round = 1, 60 do
	local t, words, sum, x = {}, {}, 0, 1.5
	for i = 1, 2000 do t[i] = random() % 100000 end
	table.sort(t, function(a, b) return a < b end)
	for i = 1, 2000 do
		if t[i] % 97 == 0 then words[#words + 1] = tostring(t[i]) .. string.char(65 + i % 26) end
		sum = bit.tobit(sum * 31 + t[i])
		x = math.sqrt(x * t[i] + i) % 1000 + math.sin(x)
	end
	out[#out + 1] = string.format("%d %d %.17g %s", round, sum, x, table.concat(words, ","):sub(-40))
end
-- 64-bit integers and memory by the foreign function interface.
local ffi = require("ffi")
local a, h = ffi.new("uint64_t[4096]"), 14695981039346656037ULL
for i = 0, 4095 do a[i] = (i + 1) * 0x9e3779b97f4a7c15ULL end
for round = 1, 200 do
	for i = 0, 4095 do
		h = bit.bxor(h, a[i]) * 1099511628211ULL
		a[(i * 7) % 4096] = bit.rol(h, round % 63 + 1)
	end
end
out[#out + 1] = tostring(h)
print(table.concat(out, "\n"))
