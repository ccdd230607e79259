/*
 * Benchmarks of floating point, vectors and copies.
 */
#include "gbench.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

uint64_t bench_matrix(long n)
{
	enum { SIZE = 128 };
	static double a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];
	uint32_t state = 3;
	uint64_t result = 0;

	for (int i = 0; i < SIZE; i++)
		for (int j = 0; j < SIZE; j++) {
			a[i][j] = (double)(random_next(&state) % 1000) / 8;
			b[i][j] = (double)(random_next(&state) % 1000) - 500;
		}
	timer_start();
	for (long pass = 0; pass < n; pass++) {
		memset(c, 0, sizeof(c));
		for (int i = 0; i < SIZE; i++)
			for (int k = 0; k < SIZE; k++)
				for (int j = 0; j < SIZE; j++)
					c[i][j] += a[i][k] * b[k][j];
		OPAQUE(pass);
	}
	timer_stop();
	for (int i = 0; i < SIZE; i++) {
		uint64_t bits;

		memcpy(&bits, &c[i][i * 5 % SIZE], 8);
		result = mix(result, bits);
	}
	return result;
}

/* Three bodies in a plane, leapfrog. */
static NOINLINE double orbit(int steps)
{
	double x[3] = { 0, 1, 0 }, y[3] = { 0, 0, 2.5 }, vx[3] = { 0, 0, -0.6 }, vy[3] = { 0, 1, 0 };
	static const double mass[3] = { 1, 0.001, 0.002 };
	const double dt = 0.0005;

	for (int s = 0; s < steps; s++) {
		for (int i = 0; i < 3; i++)
			for (int j = 0; j < 3; j++) {
				double dx = x[j] - x[i], dy = y[j] - y[i], r2, pull;

				if (i == j)
					continue;
				r2 = dx * dx + dy * dy;
				pull = mass[j] * dt / (r2 * sqrt(r2));
				vx[i] += dx * pull;
				vy[i] += dy * pull;
			}
		for (int i = 0; i < 3; i++) {
			x[i] += vx[i] * dt;
			y[i] += vy[i] * dt;
		}
	}
	return x[1] + y[1] * 3 + x[2] * 7;
}

uint64_t bench_orbit(long n)
{
	uint64_t bits;
	double end = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		int steps = 10000;

		OPAQUE(steps);
		end = orbit(steps);
		KEEP(end);
	}
	timer_stop();
	memcpy(&bits, &end, 8);
	return bits;
}

/* A chaotic map: a lost bit of the 64-bit mantissa shows. */
static NOINLINE long double x87_steps(int steps)
{
	long double x = 0.3L, sum = 0;

	for (int i = 1; i <= steps; i++) {
		x = 3.9L * x * (1 - x);
		sum += __builtin_sqrtl(x) / (long double)i;
	}
	return sum;
}

uint64_t bench_x87(long n)
{
	long double end = 0;
	uint64_t mantissa;

	timer_start();
	for (long i = 0; i < n; i++) {
		int steps = 10000;

		OPAQUE(steps);
		end = x87_steps(steps);
		KEEP(end);
	}
	timer_stop();
	memcpy(&mantissa, &end, 8);
	return mantissa;
}

static NOINLINE __m128i sse_pass(const uint8_t *data, size_t size)
{
	__m128i sum = _mm_setzero_si128(), low = _mm_set1_epi16(255), high = low;

	for (size_t i = 0; i < size; i += 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(data + i));
		__m128i even = _mm_and_si128(v, low), odd = _mm_srli_epi16(v, 8);

		high = _mm_max_epi16(high, _mm_subs_epi16(_mm_slli_epi16(even, 3), odd));
		sum = _mm_add_epi32(sum, _mm_madd_epi16(even, _mm_shufflelo_epi16(odd, 0x1b)));
		sum = _mm_xor_si128(sum, _mm_cmpgt_epi16(_mm_avg_epu16(even, odd), high));
	}
	return _mm_add_epi32(sum, high);
}

uint64_t bench_sse(long n)
{
	enum { SIZE = 64 << 10 };
	uint8_t *data = memory_take(SIZE);
	uint32_t state = 12;
	uint64_t halves[2] = { 0, 0 };

	for (size_t i = 0; i < SIZE; i++)
		data[i] = (uint8_t)random_next(&state);
	timer_start();
	for (long i = 0; i < n; i++) {
		_mm_storeu_si128((__m128i *)halves, sse_pass(data, SIZE));
		OPAQUE(i);
	}
	timer_stop();
	memory_give(data, SIZE);
	return mix(halves[0], halves[1]);
}

__attribute__((target("avx2"))) static NOINLINE void avx2_pass(const uint8_t *data, size_t size, uint64_t sums[4])
{
	__m256i sum = _mm256_setzero_si256(), other = _mm256_set1_epi32(0x1234567);

	for (size_t i = 0; i < size; i += 32) {
		__m256i v = _mm256_loadu_si256((const __m256i *)(data + i));

		other = _mm256_add_epi32(_mm256_mullo_epi32(v, other), _mm256_srlv_epi32(v, _mm256_set1_epi32(3)));
		sum = _mm256_xor_si256(sum, _mm256_permute4x64_epi64(other, 0x4b));
		sum = _mm256_add_epi64(sum, _mm256_sad_epu8(v, other));
	}
	_mm256_storeu_si256((__m256i *)sums, sum);
}

uint64_t bench_avx2(long n)
{
	enum { SIZE = 64 << 10 };
	uint64_t sums[4] = { 0 }, result = 0;
	uint32_t state = 77;
	uint8_t *data;

	if (!__builtin_cpu_supports("avx2"))
		return ABSENT;
	data = memory_take(SIZE);
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (uint8_t)random_next(&state);
	timer_start();
	for (long i = 0; i < n; i++) {
		avx2_pass(data, SIZE, sums);
		OPAQUE(i);
	}
	timer_stop();
	memory_give(data, SIZE);
	for (int k = 0; k < 4; k++)
		result = mix(result, sums[k]);
	return result;
}

uint64_t bench_copy(long n)
{
	enum { SIZE = 1 << 20 };
	uint8_t *from = memory_take(SIZE), *to = memory_take(SIZE);
	uint64_t result;

	memset(from, 0x5a, SIZE);
	timer_start();
	for (long i = 0; i < n; i++) {
		memcpy(to, from, SIZE);
		OPAQUE(to);
	}
	timer_stop();
	result = memcmp(from, to, SIZE) == 0 ? to[SIZE / 3] : 0;
	memory_give(from, SIZE);
	memory_give(to, SIZE);
	return result;
}

/* How kernels copy and clear pages. */
uint64_t bench_movs(long n)
{
	uint8_t *from = memory_take(4096), *to = memory_take(4096);
	uint64_t result;

	memset(from, 0xa5, 4096);
	timer_start();
	for (long i = 0; i < n; i++) {
		void *d = to;
		const void *s = from;
		size_t count = 4096;

		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(count) : : "memory");
	}
	timer_stop();
	result = memcmp(from, to, 4096) == 0 ? to[4095] : 0;
	memory_give(from, 4096);
	memory_give(to, 4096);
	return result;
}
