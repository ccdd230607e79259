/* Are two decoded instructions the same? Field by field: structs have padding. */
#ifndef DOPPEL_TESTS_SAME_INSN_H
#define DOPPEL_TESTS_SAME_INSN_H

#include "cpu/cpu.h"

/* The engine's own fields are not decoding's. */
/* clang-format off */
#define INSN_FIELDS(_)                                                                                                 \
	_(imm) _(disp) _(op) _(offset) _(flags) _(len) _(form) _(opsize) _(srcsize) _(addrsize) _(seg) _(reg) _(rm)    \
	_(reg2) _(base) _(index) _(scale) _(sreg) _(ea_flat) _(store)
#define INSN_HOST_FIELDS(_)                                                                                            \
	_(vec_read) _(vec_written) _(x87) _(mmx) _(vex) _(wide) _(writes_flags) _(reads_flags)                         \
	_(gpr_read) _(gpr_written) _(gpr_place) _(mem_size) _(mem_read) _(mem_written) _(mem_align) _(prefix_len)      \
	_(modrm_offset) _(disp_offset) _(disp_len) _(imm_offset) _(imm_len) _(control) _(waiting) _(mnemonic)
/* clang-format on */

/* The first field that differs, or NULL. */
static inline const char *insn_difference(const struct insn *a, const struct insn *b)
{
#define _(field)                                                                                                       \
	if (a->field != b->field)                                                                                      \
		return #field;
	INSN_FIELDS(_)
#undef _
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) ? "bytes" : NULL;
}

static inline const char *insn_host_difference(const struct insn_host *a, const struct insn_host *b)
{
#define _(field)                                                                                                       \
	if (a->field != b->field)                                                                                      \
		return "host." #field;
	INSN_HOST_FIELDS(_)
#undef _
	return NULL;
}

#endif
