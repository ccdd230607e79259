/*
 * Benchmarks of plain computing: integers, memory, branches.
 */
#include "gbench.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

/* ---- integer: what registers can do; and the same by several threads ---- */

static NOINLINE uint64_t integer_steps(uint64_t x, long steps)
{
	uint64_t sum = 0;

	for (long i = 0; i < steps; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (x & 64)
			sum += x * 0x9e3779b97f4a7c15u;
		else
			sum = (sum << 5 | sum >> 59) - (uint32_t)x;
	}
	return sum;
}

uint64_t bench_integer(long n)
{
	uint64_t result = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		uint64_t seed = 4711;

		OPAQUE(seed);
		result = integer_steps(seed, 1000);
		OPAQUE(result);
	}
	timer_stop();
	return result;
}

struct share {
	pthread_t thread;
	long n;
	uint64_t result;
};

static void *do_share(void *arg)
{
	struct share *s = arg;

	for (long i = 0; i < s->n; i++) {
		uint64_t seed = 42;

		OPAQUE(seed);
		s->result = integer_steps(seed, 100000);
		OPAQUE(s->result);
	}
	return NULL;
}

uint64_t bench_parallel(long n)
{
	struct share shares[MAX_THREADS];
	uint64_t result = 0;

	timer_start();
	for (int t = 0; t < threads; t++) {
		shares[t] = (struct share){ .n = n / threads + (t < n % threads) };
		if (pthread_create(&shares[t].thread, NULL, do_share, &shares[t]))
			die("pthread_create");
	}
	for (int t = 0; t < threads; t++)
		pthread_join(shares[t].thread, NULL);
	timer_stop();
	/* All the same, or 0 of a thread without work. */
	for (int t = 0; t < threads; t++)
		result |= shares[t].result;
	return result;
}

/* ---- sort: a linked list, so loads that depend on loads ---- */

struct node {
	struct node *next;
	uint32_t key;
};

static struct node *list_merge(struct node *a, struct node *b)
{
	struct node *head = NULL, **tail = &head;

	while (a && b) {
		struct node **smaller = a->key <= b->key ? &a : &b;

		*tail = *smaller;
		tail = &(*tail)->next;
		*smaller = *tail;
	}
	*tail = a ? a : b;
	return head;
}

/* Bottom up: bin k holds a sorted list of 2^k nodes, or nothing. */
static NOINLINE struct node *list_sort(struct node *list)
{
	struct node *bins[32] = { NULL };
	unsigned used = 0;

	while (list) {
		struct node *carry = list;
		unsigned k = 0;

		list = list->next;
		carry->next = NULL;
		for (; k < used && bins[k]; k++) {
			carry = list_merge(bins[k], carry);
			bins[k] = NULL;
		}
		if (k == used)
			used++;
		bins[k] = carry;
	}
	for (unsigned k = 0; k < used; k++)
		list = list_merge(bins[k], list);
	return list;
}

uint64_t bench_sort(long n)
{
	enum { COUNT = 2048 };
	static struct node nodes[COUNT];
	struct node *list = NULL;
	uint64_t ordered = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		uint32_t state = 17;

		list = NULL;
		for (int k = 0; k < COUNT; k++) {
			nodes[k] = (struct node){ list, random_next(&state) };
			list = &nodes[k];
		}
		list = list_sort(list);
	}
	timer_stop();
	for (; list && list->next; list = list->next)
		ordered += list->key <= list->next->key;
	return ordered;
}

/* ---- sieve ---- */

uint64_t bench_sieve(long n)
{
	enum { LIMIT = 1000000 };
	uint8_t *composite = memory_take(LIMIT);
	uint64_t primes = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		primes = 0;
		memset(composite, 0, LIMIT);
		for (uint32_t p = 2; p < LIMIT; p++) {
			if (composite[p])
				continue;
			primes++;
			for (uint64_t m = (uint64_t)p * p; m < LIMIT; m += p)
				composite[m] = 1;
		}
		OPAQUE(primes);
	}
	timer_stop();
	memory_give(composite, LIMIT);
	return primes;
}

/* ---- heap ---- */

static void sift_down(uint32_t *a, size_t root, size_t size)
{
	uint32_t value = a[root];
	size_t child;

	for (; (child = 2 * root + 1) < size; root = child) {
		if (child + 1 < size && a[child + 1] > a[child])
			child++;
		if (a[child] <= value)
			break;
		a[root] = a[child];
	}
	a[root] = value;
}

uint64_t bench_heap(long n)
{
	enum { COUNT = 50000 };
	uint32_t *a = memory_take(COUNT * sizeof(*a));
	uint64_t result = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		uint32_t state = 4711;

		for (size_t k = 0; k < COUNT; k++)
			a[k] = random_next(&state);
		for (size_t k = COUNT / 2; k-- > 0;)
			sift_down(a, k, COUNT);
		for (size_t k = COUNT - 1; k > 0; k--) {
			uint32_t largest = a[0];

			a[0] = a[k];
			a[k] = largest;
			sift_down(a, 0, k);
		}
	}
	timer_stop();
	for (size_t k = 0; k < COUNT; k++)
		result = mix(result, a[k]);
	memory_give(a, COUNT * sizeof(*a));
	return result;
}

/* ---- quick: recursion, and branches that nobody can foretell ---- */

static NOINLINE void quick_sort(uint32_t *a, size_t count)
{
	uint32_t pivot = a[count / 2];
	size_t i = 0, j = count - 1;

	for (;; i++, j--) {
		while (a[i] < pivot)
			i++;
		while (a[j] > pivot)
			j--;
		if (i >= j)
			break;
		uint32_t other = a[i];
		a[i] = a[j];
		a[j] = other;
	}
	if (i > 1)
		quick_sort(a, i);
	if (count - i > 1)
		quick_sort(a + i, count - i);
}

uint64_t bench_quick(long n)
{
	enum { COUNT = 50000 };
	uint32_t *a = memory_take(COUNT * sizeof(*a));
	uint64_t result = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		uint32_t state = 4711;

		for (size_t k = 0; k < COUNT; k++)
			a[k] = random_next(&state);
		quick_sort(a, COUNT);
	}
	timer_stop();
	for (size_t k = 0; k < COUNT; k++)
		result = mix(result, a[k]);
	memory_give(a, COUNT * sizeof(*a));
	return result;
}

/* ---- hash: linear probing ---- */

uint64_t bench_hash(long n)
{
	enum { SLOTS = 1 << 17, KEYS = 1 << 16 };
	struct slot {
		uint64_t key, value;
	} *slots = memory_take(SLOTS * sizeof(*slots));
	uint64_t sum = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		sum = 0;
		memset(slots, 0, SLOTS * sizeof(*slots));
		for (uint64_t k = 1; k <= KEYS; k++) {
			size_t s = mix(0, k) % SLOTS;

			while (slots[s].key)
				s = (s + 1) % SLOTS;
			slots[s] = (struct slot){ k, k * 3 };
		}
		for (uint64_t k = 1; k <= 4 * KEYS; k++) {
			uint64_t key = (k * 40503) % (KEYS + KEYS / 2) + 1;
			size_t s = mix(0, key) % SLOTS;

			while (slots[s].key && slots[s].key != key)
				s = (s + 1) % SLOTS;
			sum += slots[s].key ? slots[s].value : 1;
		}
	}
	timer_stop();
	memory_give(slots, SLOTS * sizeof(*slots));
	return sum;
}

/* ---- chase: the caches, and a TLB's reach ---- */

static uint64_t chase(long n, size_t size)
{
	struct cell {
		struct cell *next;
		char rest[64 - sizeof(void *)];
	} *cells = memory_take(size), *p;
	size_t count = size / sizeof(*cells), length = 0;
	uint32_t *order = memory_take(count * sizeof(*order)), state = 99;

	for (size_t i = 0; i < count; i++)
		order[i] = (uint32_t)i;
	for (size_t i = count - 1; i > 0; i--) {
		size_t j = random_next(&state) % (i + 1);
		uint32_t other = order[i];

		order[i] = order[j];
		order[j] = other;
	}
	for (size_t i = 0; i < count; i++)
		cells[order[i]].next = &cells[order[(i + 1) % count]];
	memory_give(order, count * sizeof(*order));
	p = cells;
	do {
		p = p->next;
		length++;
	} while (p != cells);
	timer_start();
	for (long i = 0; i < n; i++)
		p = p->next;
	OPAQUE(p);
	timer_stop();
	memory_give(cells, size);
	return length;
}

uint64_t bench_chase(long n) { return chase(n, 256 << 10); }

uint64_t bench_chase_far(long n) { return chase(n, 32 << 20); }

/* ---- tokens and pack: text ---- */

enum { TEXT = 128 << 10 };

static void text_make(uint8_t *text, size_t size)
{
	static const char *const words[] = { "mov ",	   "page",	  "0x3f8", " 1976 ",	 "/* vm */", "\n",
					     "interrupt ", "cr3",	  ", ",	   "the ",	 "guest ",   "-12.5e3 ",
					     "and ",	   "\"string\" ", "of ",   "translated " };
	uint32_t state = 5;

	for (size_t at = 0; at < size;) {
		const char *word = words[random_next(&state) >> 8 & 15];

		while (*word && at < size)
			text[at++] = (uint8_t)*word++;
	}
}

static NOINLINE uint64_t tokens_count(const uint8_t *text, size_t size)
{
	enum { BLANK, WORD, NUMBER, STRING, COMMENT, OTHER, STATES } state = BLANK;
	uint64_t counts[STATES] = { 0 }, result = 0;

	for (size_t i = 0; i < size; i++) {
		uint8_t c = text[i];

		if (state == STRING) {
			state = c == '"' ? BLANK : STRING;
			continue;
		}
		if (state == COMMENT && !(c == '/' && text[i - 1] == '*'))
			continue;
		switch (c) {
		case ' ':
		case '\n':
		case ',': state = BLANK; continue;
		case '"': state = STRING; break;
		case '*': state = i && text[i - 1] == '/' ? COMMENT : OTHER; break;
		case '/': state = state == COMMENT ? BLANK : OTHER; continue;
		case '0' ... '9':
		case '-':
		case '.':
			if (state == WORD || state == NUMBER)
				continue;
			state = NUMBER;
			break;
		default:
			if (state == WORD || state == NUMBER)
				continue;
			state = WORD;
		}
		counts[state]++;
	}
	for (int s = 0; s < STATES; s++)
		result = mix(result, counts[s]);
	return result;
}

uint64_t bench_tokens(long n)
{
	uint8_t *text = memory_take(TEXT);
	uint64_t result = 0;

	text_make(text, TEXT);
	timer_start();
	for (long i = 0; i < n; i++) {
		result = tokens_count(text, TEXT / 2);
		OPAQUE(result);
	}
	timer_stop();
	memory_give(text, TEXT);
	return result;
}

/* Byte-oriented: 0..127 literals follow, or 128 + length and a 16-bit distance. */
static NOINLINE size_t pack(const uint8_t *in, size_t size, uint8_t *out, uint32_t *last)
{
	size_t at = 0, o = 0, literals = 0;

	memset(last, 0xff, 4096 * sizeof(*last));
	while (at < size) {
		size_t length = 0, distance = 0;

		if (at + 4 <= size) {
			uint32_t four, slot;

			memcpy(&four, in + at, 4);
			slot = four * 2246822519u >> 20;
			distance = at - last[slot];
			if (last[slot] != UINT32_MAX && distance < 65536)
				while (length < 127 && at + length < size &&
				       in[at + length] == in[at + length - distance])
					length++;
			last[slot] = (uint32_t)at;
		}
		if (length < 4) {
			at++;
			literals++;
		}
		if (literals && (length >= 4 || literals == 127 || at == size)) {
			out[o++] = (uint8_t)literals;
			memcpy(out + o, in + at - literals, literals);
			o += literals;
			literals = 0;
		}
		if (length >= 4) {
			out[o++] = (uint8_t)(128 + length);
			out[o++] = (uint8_t)distance;
			out[o++] = (uint8_t)(distance >> 8);
			at += length;
		}
	}
	return o;
}

static NOINLINE size_t unpack(const uint8_t *in, size_t size, uint8_t *out)
{
	size_t at = 0, o = 0;

	while (at < size) {
		unsigned head = in[at++];

		if (head < 128) {
			memcpy(out + o, in + at, head);
			at += head;
			o += head;
		} else {
			size_t distance = in[at] | (size_t)in[at + 1] << 8;

			for (at += 2; head > 128; head--, o++)
				out[o] = out[o - distance];
		}
	}
	return o;
}

uint64_t bench_pack(long n)
{
	uint8_t *text = memory_take(TEXT), *packed = memory_take(2 * TEXT), *back = memory_take(TEXT + 128);
	uint32_t *last = memory_take(4096 * sizeof(*last));
	size_t size = 0, expanded = 0;
	uint64_t result;

	text_make(text, TEXT);
	timer_start();
	for (long i = 0; i < n; i++) {
		size = pack(text, TEXT, packed, last);
		expanded = unpack(packed, size, back);
	}
	timer_stop();
	result = expanded == TEXT && !memcmp(text, back, TEXT) ? size : 1;
	memory_give(text, TEXT);
	memory_give(packed, 2 * TEXT);
	memory_give(back, TEXT + 128);
	memory_give(last, 4096 * sizeof(*last));
	return result;
}

/* ---- sha256, FIPS 180-4; the constants are the roots of the first primes ---- */

static uint32_t rotate_right(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* The first 32 bits behind the point. */
static uint32_t fraction(long double root) { return (uint32_t)(uint64_t)(root * 4294967296); }

static NOINLINE void sha256_block(uint32_t hash[8], const uint32_t k[64], const uint8_t *block)
{
	uint32_t w[64], v[8];

	for (int t = 0; t < 16; t++) {
		memcpy(&w[t], block + 4 * t, 4);
		w[t] = __builtin_bswap32(w[t]);
	}
	for (int t = 16; t < 64; t++) {
		uint32_t a = w[t - 15], b = w[t - 2];

		w[t] = w[t - 16] + w[t - 7] + (rotate_right(a, 7) ^ rotate_right(a, 18) ^ a >> 3) +
		       (rotate_right(b, 17) ^ rotate_right(b, 19) ^ b >> 10);
	}
	memcpy(v, hash, sizeof(v));
	for (int t = 0; t < 64; t++) {
		uint32_t e = v[4], a = v[0];
		uint32_t t1 = v[7] + (rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25)) +
			      (v[6] ^ (e & (v[5] ^ v[6]))) + k[t] + w[t];
		uint32_t t2 = (rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)) +
			      ((a & v[1]) | (v[2] & (a | v[1])));

		memmove(v + 1, v, 7 * sizeof(*v));
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		hash[i] += v[i];
}

uint64_t bench_sha256(long n)
{
	enum { SIZE = 64 << 10 };
	uint8_t *data = memory_take(SIZE), end[64] = { 0x80 };
	uint32_t k[64], start[8], hash[8] = { 0 };

	for (uint32_t p = 2, count = 0; count < 64; p++) {
		uint32_t d = 2;

		while (p % d)
			d++;
		if (d < p)
			continue;
		if (count < 8)
			start[count] = fraction(sqrtl(p));
		k[count++] = fraction(cbrtl(p));
	}
	memset(data, 'a', SIZE);
	end[61] = SIZE * 8 >> 16;
	timer_start();
	for (long i = 0; i < n; i++) {
		memcpy(hash, start, sizeof(hash));
		for (size_t at = 0; at < SIZE; at += 64)
			sha256_block(hash, k, data + at);
		sha256_block(hash, k, end);
	}
	timer_stop();
	memory_give(data, SIZE);
	return (uint64_t)hash[0] << 32 | hash[1]; /* as sha256sum prints it */
}

/* ---- calls and dispatch ---- */

static NOINLINE uint32_t fib(uint32_t k)
{
	OPAQUE(k);
	return k < 2 ? k : fib(k - 1) + fib(k - 2);
}

uint64_t bench_fib(long n)
{
	uint64_t result = 0;

	timer_start();
	for (long i = 0; i < n; i++)
		result = fib(25);
	timer_stop();
	return result;
}

/* A little stack machine: indirect jumps that depend on data. */
static NOINLINE uint64_t machine_run(const uint8_t *program, long steps)
{
	static void *const labels[] = { &&push, &&add, &&swap, &&rotate, &&skip, &&mixin };
	uint64_t stack[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, other;
	unsigned top = 0;
	const uint8_t *p = program;

#define NEXT()                                                                                                         \
	do {                                                                                                           \
		if (steps-- == 0)                                                                                      \
			return stack[0] ^ stack[top];                                                                  \
		if (p >= program + 1000)                                                                               \
			p -= 1000;                                                                                     \
		goto *labels[*p++];                                                                                    \
	} while (0)
	NEXT();
push:
	top = (top + 1) & 7;
	stack[top] += 0x1234567;
	NEXT();
add:
	stack[top] += stack[(top + 7) & 7];
	NEXT();
swap:
	other = stack[top];
	stack[top] = stack[(top + 3) & 7];
	stack[(top + 3) & 7] = other;
	NEXT();
rotate:
	stack[top] = stack[top] << 9 | stack[top] >> 55;
	NEXT();
skip:
	p += stack[top] & 3;
	NEXT();
mixin:
	stack[top] = mix(stack[top], top);
	NEXT();
#undef NEXT
}

uint64_t bench_dispatch(long n)
{
	static uint8_t program[1004];
	uint32_t state = 8;
	uint64_t result = 0;

	for (size_t i = 0; i < sizeof(program); i++)
		program[i] = (uint8_t)(random_next(&state) % 6);
	timer_start();
	for (long i = 0; i < n; i++) {
		result = machine_run(program, 100000);
		OPAQUE(result);
	}
	timer_stop();
	return result;
}

/* Calls of functions that only the data knows. */
static NOINLINE uint64_t call_add(uint64_t a, uint64_t b) { return a + b; }
static NOINLINE uint64_t call_subtract(uint64_t a, uint64_t b) { return a - 3 * b; }
static NOINLINE uint64_t call_both(uint64_t a, uint64_t b) { return (a & b) + 1; }
static NOINLINE uint64_t call_either(uint64_t a, uint64_t b) { return a ^ b; }
static NOINLINE uint64_t call_shift(uint64_t a, uint64_t b) { return a << (b & 7); }
static NOINLINE uint64_t call_turn(uint64_t a, uint64_t b) { return (a << 11 | a >> 53) + b; }
static NOINLINE uint64_t call_less(uint64_t a, uint64_t b) { return a < b ? a : b + 7; }
static NOINLINE uint64_t call_mix(uint64_t a, uint64_t b) { return mix(a, b); }

uint64_t bench_calls(long n)
{
	static uint64_t (*const functions[8])(uint64_t, uint64_t) = { call_add,	  call_subtract, call_both, call_either,
								      call_shift, call_turn,	 call_less, call_mix };
	uint8_t order[1000];
	uint32_t state = 21;
	uint64_t value = 0;

	for (size_t k = 0; k < sizeof(order); k++)
		order[k] = (uint8_t)(random_next(&state) & 7);
	timer_start();
	for (long i = 0; i < n; i++) {
		value = 1;
		OPAQUE(value);
		for (size_t k = 0; k < sizeof(order); k++)
			value = functions[order[k]](value, k);
		OPAQUE(value);
	}
	timer_stop();
	return value;
}

/* ---- single instructions ---- */

uint64_t bench_divide(long n)
{
	uint64_t x = 0, result = 0;

	for (int timed = 1; timed >= 0; timed--) {
		long steps = timed ? n : 1000; /* the second time for a result that does not depend on n */

		x = 0xfedcba9876543210;
		if (timed)
			timer_start();
		for (long i = 0; i < steps; i++) {
			uint64_t divisor = (x >> 35) | 1;

			x = (x / divisor ^ x % divisor << 31) + 0xda942042e4dd58b5;
		}
		OPAQUE(x);
		if (timed)
			timer_stop();
		result = x;
	}
	return result;
}

uint64_t bench_locked(long n)
{
	static uint64_t counter, flag;
	uint64_t swaps = 0;

	counter = flag = 0;
	timer_start();
	for (long i = 0; i < n; i++) {
		uint64_t expected = flag;

		__atomic_fetch_add(&counter, 2, __ATOMIC_SEQ_CST);
		swaps +=
			__atomic_compare_exchange_n(&flag, &expected, !expected, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	timer_stop();
	return counter - 2 * swaps;
}
