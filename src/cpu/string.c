/*
 * String instructions: MOVS, STOS, LODS, CMPS, SCAS with their REP prefixes. Repetitions work on runs: as many elements as lie in
 * one page of each operand, through the TLB's host pointers. What the TLB can have no entry for goes element by element
 * through the ordinary accesses, which reach devices and invalidate code; so do comparisons downwards in memory, which are
 * rare.
 */
#include "cpu/repeat.h"

/* ---- runs ---- */

static bool goes_down(const struct vcpu *v) { return v->s.rflags & FLAG_DF; }

/*
 * Host address of the first of up to *n elements at seg:[register], with *n cut to those in the same page, below the segment's limit
 * and before the offset wraps around. NULL: do one element the ordinary way. Raises what the first element raises. The entry for
 * another operand may be lost: both may have the same place in the TLB. Host addresses stay good.
 */
static void *string_run(struct vcpu *v, const struct insn *i, enum seg seg, unsigned off, enum access access,
			uint64_t *n)
{
	uint64_t offset = cpu_reg(v, off, i->addrsize);
	uint64_t lin = string_linear(v, seg, offset, i->opsize, access);
	uint64_t in_page = lin & ~PAGE_MASK, room = goes_down(v) ? in_page + i->opsize : PAGE_SIZE - in_page;
	const struct tlb_entry *e = tlb_slot(v, lin);

	if (in_page + i->opsize > PAGE_SIZE)
		return NULL;
	if ((access == ACCESS_WRITE ? e->write_tag : e->read_tag) != ((lin & PAGE_MASK) | v->asid) &&
	    !cpu_tlb_fill(v, lin, access == ACCESS_WRITE))
		return NULL;
	if (goes_down(v))
		room = MIN(room, offset + i->opsize);
	else if (i->addrsize != 8)
		room = MIN(room, (i->addrsize == 4 ? BIT(32) : BIT(16)) - offset);
	if (v->code_mode != MODE_64) {
		uint16_t attr = v->s.seg_attr[seg];
		if (!(attr & ATTR_CODE) && attr & ATTR_EXPAND_DOWN)
			return NULL;
		if (!goes_down(v))
			room = MIN(room, v->s.seg_limit[seg] - offset + 1);
	}
	*n = MIN(*n, room / i->opsize);
	return *n ? (void *)(lin + e->addend) : NULL;
}

/* The element of a run that is lowest in memory. */
static uint8_t *lowest(const struct vcpu *v, void *first, uint64_t n, unsigned size)
{
	return (uint8_t *)first - (goes_down(v) ? (n - 1) * size : 0);
}

/* ---- MOVS ---- */

/* As one element after the other would be copied: a destination inside the source repeats what comes before it. */
static void copy_up(uint8_t *to, const uint8_t *from, uint64_t bytes, unsigned size)
{
	if (to <= from || to >= from + bytes) {
		memmove(to, from, bytes);
		return;
	}
	for (uint64_t k = 0; k < bytes; k += size)
		host_store(to + k, host_load(from + k, size), size);
}

static void copy_down(uint8_t *to, const uint8_t *from, uint64_t bytes, unsigned size)
{
	if (from <= to || from >= to + bytes) {
		memmove(to, from, bytes);
		return;
	}
	for (uint64_t k = bytes; k; k -= size)
		host_store(to + k - size, host_load(from + k - size, size), size);
}

static uint64_t movs_step(struct vcpu *v, const struct insn *i, uint64_t max, bool *stop)
{
	enum seg seg = i->seg;
	uint64_t n = max;

	(void)stop;
	if (max > 1) {
		void *from = string_run(v, i, seg, OFF_RSI, ACCESS_READ, &n);
		void *to = from ? string_run(v, i, ES, OFF_RDI, ACCESS_WRITE, &n) : NULL;
		if (to) {
			(goes_down(v) ? copy_down : copy_up)(lowest(v, to, n, i->opsize), lowest(v, from, n, i->opsize),
							     n * i->opsize, i->opsize);
			goto advance;
		}
	}
	n = 1;
	uint64_t value = string_load(v, i, seg, OFF_RSI);
	uint64_t lin = string_linear(v, ES, cpu_reg(v, OFF_RDI, i->addrsize), i->opsize, ACCESS_WRITE);
	cpu_store(v, lin, value, i->opsize, false);
advance:
	string_advance(v, i, OFF_RSI, n);
	string_advance(v, i, OFF_RDI, n);
	return n;
}

void op_movs(struct vcpu *v, const struct insn *i) { string_repeat(v, i, movs_step); }

/* ---- STOS ---- */

static void fill(void *to, uint64_t value, uint64_t n, unsigned size)
{
	switch (size) {
	case 1: memset(to, (int)value, n); break;
	case 2:
		for (u16_any *p = to; n--;)
			*p++ = (uint16_t)value;
		break;
	case 4:
		for (u32_any *p = to; n--;)
			*p++ = (uint32_t)value;
		break;
	default:
		for (u64_any *p = to; n--;)
			*p++ = value;
	}
}

static uint64_t stos_step(struct vcpu *v, const struct insn *i, uint64_t max, bool *stop)
{
	uint64_t n = max, value = cpu_reg(v, OFF_RAX, i->opsize);
	void *to = NULL;

	(void)stop;
	if (max > 1)
		to = string_run(v, i, ES, OFF_RDI, ACCESS_WRITE, &n);
	if (to) {
		fill(lowest(v, to, n, i->opsize), value, n, i->opsize);
	} else {
		n = 1;
		uint64_t lin = string_linear(v, ES, cpu_reg(v, OFF_RDI, i->addrsize), i->opsize, ACCESS_WRITE);
		cpu_store(v, lin, value, i->opsize, false);
	}
	string_advance(v, i, OFF_RDI, n);
	return n;
}

void op_stos(struct vcpu *v, const struct insn *i) { string_repeat(v, i, stos_step); }

/* ---- LODS: of a run only the last element is ever seen ---- */

static uint64_t lods_step(struct vcpu *v, const struct insn *i, uint64_t max, bool *stop)
{
	uint64_t n = max, value;
	const char *from = NULL;

	(void)stop;
	if (max > 1)
		from = string_run(v, i, i->seg, OFF_RSI, ACCESS_READ, &n);
	if (from) {
		value = host_load(goes_down(v) ? from - (n - 1) * i->opsize : from + (n - 1) * i->opsize, i->opsize);
	} else {
		n = 1;
		value = string_load(v, i, i->seg, OFF_RSI);
	}
	cpu_set_reg(v, OFF_RAX, i->opsize, value);
	string_advance(v, i, OFF_RSI, n);
	return n;
}

void op_lods(struct vcpu *v, const struct insn *i) { string_repeat(v, i, lods_step); }

/* ---- CMPS and SCAS ---- */

/* Status flags of x - y. */
static void set_difference(struct vcpu *v, uint64_t x, uint64_t y, unsigned size)
{
	unsigned sign = size * 8 - 1;
	uint64_t d = x - y, f = 0;

	if (x < y)
		f |= FLAG_CF;
	if (!__builtin_parity(d & 0xff))
		f |= FLAG_PF;
	if ((x ^ y ^ d) & 0x10)
		f |= FLAG_AF;
	if (x == y)
		f |= FLAG_ZF;
	if (d >> sign & 1)
		f |= FLAG_SF;
	if (((x ^ y) & (x ^ d)) >> sign & 1)
		f |= FLAG_OF;
	cpu_set_status(v, f);
}

/* REPE goes on while equal, REPNE while different. */
static bool ends_repetition(const struct insn *i, uint64_t x, uint64_t y) { return (x == y) == !(i->flags & INSN_REP); }

static uint64_t cmps_step(struct vcpu *v, const struct insn *i, uint64_t max, bool *stop)
{
	uint64_t n = max, done = 0, x, y;
	const char *a = NULL, *b = NULL;

	if (max > 1 && !goes_down(v)) {
		b = string_run(v, i, ES, OFF_RDI, ACCESS_READ, &n);
		a = b ? string_run(v, i, i->seg, OFF_RSI, ACCESS_READ, &n) : NULL;
	}
	if (a) {
		do {
			x = host_load(a + done * i->opsize, i->opsize);
			y = host_load(b + done * i->opsize, i->opsize);
			done++;
		} while (done < n && !ends_repetition(i, x, y));
	} else {
		/* Which of two faults comes the manuals leave open: the one that AMD's processors find first. */
		y = string_load(v, i, ES, OFF_RDI);
		x = string_load(v, i, i->seg, OFF_RSI);
		done = 1;
	}
	*stop = ends_repetition(i, x, y);
	set_difference(v, x, y, i->opsize);
	string_advance(v, i, OFF_RSI, done);
	string_advance(v, i, OFF_RDI, done);
	return done;
}

void op_cmps(struct vcpu *v, const struct insn *i) { string_repeat(v, i, cmps_step); }

static uint64_t scas_step(struct vcpu *v, const struct insn *i, uint64_t max, bool *stop)
{
	uint64_t n = max, done = 0, x = cpu_reg(v, OFF_RAX, i->opsize), y;
	const char *b = NULL;

	if (max > 1 && !goes_down(v))
		b = string_run(v, i, ES, OFF_RDI, ACCESS_READ, &n);
	if (b) {
		do {
			y = host_load(b + done * i->opsize, i->opsize);
			done++;
		} while (done < n && !ends_repetition(i, x, y));
	} else {
		y = string_load(v, i, ES, OFF_RDI);
		done = 1;
	}
	*stop = ends_repetition(i, x, y);
	set_difference(v, x, y, i->opsize);
	string_advance(v, i, OFF_RDI, done);
	return done;
}

void op_scas(struct vcpu *v, const struct insn *i) { string_repeat(v, i, scas_step); }
