/*
 * RDRAND and RDSEED. Under the host's clock the numbers are the host's; under virtual time, where the same run must give the
 * same trace, they are a fixed sequence of the instruction count: a guest must not take its secrets from there.
 */
#include "cpu/private.h"

#include <sys/random.h>

/* A bijection that mixes well (splitmix64's finaliser, Steele et al. 2014). */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static bool random_number(struct vcpu *v, uint64_t *value)
{
	if (clock_kind(v->clock) == CLOCK_VIRTUAL) {
		if (v->hooks->sync_icount)
			v->hooks->sync_icount(v);
		*value = mix(mix(v->s.icount) + v->index);
		return true;
	}
	return getrandom(value, sizeof(*value), GRND_NONBLOCK) == (ssize_t)sizeof(*value);
}

/* CF says whether there was a number; without one the destination is 0. SDM vol. 2B RDRAND. */
static void store_random(struct vcpu *v, const struct insn *i)
{
	uint64_t value;
	bool ok = random_number(v, &value);

	cpu_set_reg(v, i->reg, i->opsize, ok ? value : 0);
	cpu_set_status(v, ok ? FLAG_CF : 0);
}

void op_rdrand(struct vcpu *v, const struct insn *i) { store_random(v, i); }
void op_rdseed(struct vcpu *v, const struct insn *i) { store_random(v, i); }
