/*
 * Limits and rights of segments, for 16- and 32-bit code. Before an access in a segment that is neither plain nor wide (mode.c),
 * translated code reads the byte at "pointer of the segment + offset of the access's last byte". Up to the segment's limit that is in a
 * region of zeros, beyond it in one that cannot be accessed: the fault is an access's like any other, leaves to C, and the
 * interpreter raises what is to be raised. No flags are touched and nothing is compared.
 *
 *	boundary - 4 GiB ... boundary			zeros
 *	boundary ... boundary + 4 GiB + a guard		not accessible
 *
 * A pointer is boundary - (limit + 1); it is the boundary itself where no offset is allowed, or where that depends on more than a limit
 * (expand-down segments): then every access is C's. Compiled for general registers only, as mode.c is.
 */
#include "engine/bt/runtime.h"

#include <errno.h>
#include <sys/mman.h>

uint64_t bt_limits_create(struct error *err)
{
	void *at = mmap(NULL, BT_LIMITS_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED) {
		error_set_errno(err, errno, "no address space for what segment limits are compared with");
		return 0;
	}
	if (mprotect(at, BT_LIMITS_REACH, PROT_READ)) {
		error_set_errno(err, errno, "no memory for what segment limits are compared with");
		munmap(at, BT_LIMITS_SIZE);
		return 0;
	}
	return (uint64_t)(uintptr_t)at + BT_LIMITS_REACH;
}

void bt_limits_destroy(uint64_t boundary)
{
	if (boundary)
		munmap((void *)(uintptr_t)(boundary - BT_LIMITS_REACH), BT_LIMITS_SIZE);
}

/* Where rights do not count, limits do, and which way a segment grows. */
static bool is_usable(const struct vcpu *v, uint16_t attr, bool write)
{
	const uint16_t kind = ATTR_S | ATTR_CODE;

	if ((attr & (kind | ATTR_EXPAND_DOWN)) == (ATTR_S | ATTR_EXPAND_DOWN))
		return false;
	if (!in_protected_mode(v))
		return true;
	if (!(attr & ATTR_P) || !(attr & ATTR_S))
		return false;
	return attr & ATTR_CODE ? !write && (attr & ATTR_WRITABLE) : !write || (attr & ATTR_WRITABLE);
}

static bool are_equal(const void *a, const void *b, unsigned quadwords)
{
	uint64_t differ = 0;

	for (unsigned n = 0; n < quadwords; n++)
		differ |= ((const u64_any *)a)[n] ^ ((const u64_any *)b)[n];
	return !differ;
}

/* This is asked each time that C enters translated code. */
static bool is_known(const struct bt_limits *known, const struct vcpu *v)
{
	return are_equal(known->limit, v->s.seg_limit, sizeof(known->limit) / 8) &&
	       are_equal(known->attr, v->s.seg_attr, sizeof(known->attr) / 8) && known->idtr_limit == v->s.idtr_limit &&
	       known->protected == in_protected_mode(v) && known->known;
}

static void update_segment(struct bt_limits *limits, struct vcpu *v, enum seg seg)
{
	uint64_t pointer = limits->boundary - v->s.seg_limit[seg] - 1;
	uint16_t attr = v->s.seg_attr[seg];

	bt_frame(v)->read_limit[seg] = is_usable(v, attr, false) ? pointer : limits->boundary;
	bt_frame(v)->write_limit[seg] = is_usable(v, attr, true) ? pointer : limits->boundary;
	limits->limit[seg] = v->s.seg_limit[seg];
	limits->attr[seg] = attr;
}

/* Mostly one has changed: what kernels keep at hand is in FS or GS. */
void bt_limits_update(struct vcpu *v)
{
	struct bt_limits *limits = &bt_of(v)->limits;
	bool all = !limits->known || limits->protected != in_protected_mode(v);

	if (is_known(limits, v))
		return;
	for (enum seg seg = ES; seg <= GS; seg++)
		if (all || limits->limit[seg] != v->s.seg_limit[seg] || limits->attr[seg] != v->s.seg_attr[seg])
			update_segment(limits, v, seg);
	for (unsigned n = GS + 1; n < ARRAY_SIZE(limits->attr); n++)
		limits->attr[n] = v->s.seg_attr[n];
	bt_frame(v)->code_limit = limits->boundary - v->s.seg_limit[CS] - 1;
	bt_frame(v)->wrap_limit = limits->boundary - 0x10000;
	bt_frame(v)->idt_limit = limits->boundary - v->s.idtr_limit - 1;
	limits->idtr_limit = v->s.idtr_limit;
	limits->protected = in_protected_mode(v);
	limits->known = true;
}
