// Programs whose results must be the same by V8's compilers and by its interpreter (--jitless), and known where they are.
'use strict';
const assert = require('assert');
const fib = (n) => n < 2 ? n : fib(n - 1) + fib(n - 2);
assert.strictEqual(fib(27), 196418);

function sieve(n) {
	const composite = new Uint8Array(n + 1);
	let count = 0;
	for (let i = 2; i <= n; i++) {
		if (composite[i])
			continue;
		count++;
		for (let j = i * i; j <= n; j += i)
			composite[j] = 1;
	}
	return count;
}
assert.strictEqual(sieve(1000000), 78498);

let seed = 12345;
const random = () => seed = seed * 16807 % 2147483647;
const out = [];
class Shape { constructor(a) { this.a = a; } area() { return this.a * this.a; } }
class Round extends Shape { area() { return Math.PI * this.a ** 2; } }

for (let round = 0; round < 60; round++) {
	const list = [], words = new Map();
	let sum = 0, x = 1.5;
	for (let i = 0; i < 2000; i++)
		list.push(random() % 100000);
	list.sort((a, b) => a - b);
	for (let i = 0; i < list.length; i++) {
		const s = i % 3 ? new Round(list[i]) : new Shape(list[i]);
		sum = Math.imul(sum, 31) + list[i] | 0;
		x = Math.sqrt(x * s.area() + i) % 1000;
		words.set(String(list[i] % 500), (words.get(String(list[i] % 500)) || 0) + 1);
		/* Code that was compiled for numbers meets something else, and must be thrown away. */
		if (round % 20 === 19 && i === 1000)
			list[i + 1] = { valueOf: () => 7 };
	}
	out.push(round, sum, x, [...words].slice(0, 5).join());
}
let big = 1n;
for (let i = 1n; i < 300n; i++)
	big = big * (i + 3n) % (2n ** 127n - 1n);
out.push(big);
/* New code all the time. */
for (let i = 0; i < 300; i++) {
	const f = new Function('a', `let s = ${i}; for (let k = 0; k < 300; k++) s = (s * a + ${i * 7919} + k) % 1000003; return s;`);
	out.push(f(i + 2));
}
/* WebAssembly (not with --jitless): (func (param i32) (result i32) sum of squares, modulo 2^32). */
if (typeof WebAssembly === 'object') {
	const code = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10,
		30, 1, 28, 1, 1, 127, 3, 64, 32, 1, 32, 0, 32, 0, 108, 106, 33, 1, 32, 0, 65, 1, 107, 34, 0, 13, 0, 11, 32, 1, 11]);
	const f = new WebAssembly.Instance(new WebAssembly.Module(code)).exports.f;
	let sum = 0;
	for (let i = 1; i <= 100000; i++)
		sum = sum + Math.imul(i, i) | 0;
	assert.strictEqual(f(100000), sum);
}
console.log(out.join('\n'));
