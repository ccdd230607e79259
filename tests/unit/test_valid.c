/* What the reader of a processor's state refuses, and that it takes what processors can be in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/private.h"

static int load(const struct cpu_state *state, struct error *err)
{
	struct writer writer = { 0 };
	struct cpu_state again;
	int ret;

	assert_int_equal(state_save(cpu_state_desc, 0, state, &writer), 0);
	struct reader reader = { writer.data, writer.size, 0 };
	ret = state_load(cpu_state_desc, 0, &again, &reader, err);
	writer_free(&writer);
	return ret;
}

static struct cpu_state after_reset(void)
{
	struct cpu_state s;

	state_reset(cpu_state_desc, &s);
	s.dr[6] = DR6_ONES;
	s.dr[7] = DR7_ONES;
	return s;
}

static struct cpu_state in_64_bit_mode(void)
{
	struct cpu_state s = after_reset();

	s.cr0 = CR0_PE | CR0_ET | CR0_PG;
	s.cr4 = CR4_PAE;
	s.efer = EFER_LME | EFER_LMA;
	s.seg_attr[CS] = ATTR_P | ATTR_S | ATTR_CODE | ATTR_L;
	return s;
}

static struct cpu_state in_virtual_8086_mode(void)
{
	struct cpu_state s = after_reset();

	s.cr0 = CR0_PE | CR0_ET;
	s.rflags |= FLAG_VM;
	for (unsigned seg = ES; seg <= GS; seg++) {
		s.seg_sel[seg] = 0x1234;
		s.seg_base[seg] = 0x12340;
		s.seg_attr[seg] = ATTR_VIRTUAL_8086;
	}
	return s;
}

static void possible_states_pass(void **state)
{
	struct cpu_state s = after_reset();

	(void)state;
	assert_int_equal(load(&s, NULL), 0);
	s.activity = CPU_WAIT_SIPI;
	assert_int_equal(load(&s, NULL), 0);
	s = in_64_bit_mode();
	assert_int_equal(load(&s, NULL), 0);
	s.rip = BIT(47); /* behind the last instruction of the lower half */
	s.gpr[RAX] = UINT64_MAX;
	s.seg_base[FS] = 0xffff800000000000;
	assert_int_equal(load(&s, NULL), 0);
	s = in_virtual_8086_mode();
	assert_int_equal(load(&s, NULL), 0);
}

/* (from, what is changed) */
/* clang-format off */
#define IMPOSSIBLE(_)                                                                                                  \
	_(after_reset, s.cr0 |= BIT(7))                                                                                \
	_(after_reset, s.cr0 &= ~CR0_ET)                                                                               \
	_(after_reset, s.cr0 |= CR0_PG)                                                                                \
	_(after_reset, s.cr0 = CR0_ET | CR0_NW)                                                                        \
	_(after_reset, s.cr3 = BIT(40))                                                                                \
	_(after_reset, s.cr4 |= CR4_LA57)                                                                              \
	_(after_reset, s.cr4 |= CR4_PCIDE)                                                                             \
	_(after_reset, s.efer |= BIT(1))                                                                               \
	_(after_reset, s.efer |= EFER_LMA)                                                                             \
	_(after_reset, s.rflags |= BIT(15))                                                                            \
	_(after_reset, s.rflags = 0)                                                                                   \
	_(after_reset, s.rflags |= FLAG_VM)                                                                            \
	_(after_reset, s.dr[6] = 0)                                                                                    \
	_(after_reset, s.dr[7] |= BIT(14))                                                                             \
	_(after_reset, s.pending_debug = BIT(12))                                                                      \
	_(after_reset, s.xcr0 = 5)                                                                                     \
	_(after_reset, s.rip = BIT(32))                                                                                \
	_(after_reset, s.gpr[RDI] = BIT(32))                                                                           \
	_(after_reset, s.seg_base[DS] = BIT(32))                                                                       \
	_(after_reset, s.seg_base[GS] = BIT(47))                                                                       \
	_(after_reset, s.seg_attr[ES] = 0x0100)                                                                        \
	_(after_reset, s.gdtr_base = BIT(47))                                                                          \
	_(after_reset, s.msr_lstar = BIT(63))                                                                          \
	_(after_reset, s.msr_sysenter_eip = BIT(63))                                                                   \
	_(in_64_bit_mode, s.cr4 = 0)                                                                                   \
	_(in_64_bit_mode, s.efer = EFER_LME)                                                                           \
	_(in_64_bit_mode, s.rflags |= FLAG_VM)                                                                         \
	_(in_64_bit_mode, s.rip = BIT(47) + 16)                                                                        \
	_(in_64_bit_mode, s.activity = CPU_WAIT_SIPI)                                                                  \
	_(in_virtual_8086_mode, s.seg_base[SS] = 0)                                                                    \
	_(in_virtual_8086_mode, s.seg_limit[SS] = 0xfffff)                                                             \
	_(in_virtual_8086_mode, s.seg_attr[SS] = 0)
/* clang-format on */

static void impossible_states_are_refused(void **state)
{
	struct error err;

	(void)state;
#define _(from, change)                                                                                                \
	{                                                                                                              \
		struct cpu_state s = from();                                                                           \
		change;                                                                                                \
		if (!load(&s, &err))                                                                                   \
			fail_msg(#from ", " #change ": taken");                                                        \
		assert_non_null(strstr(err.text, "cpu: "));                                                            \
	}
	IMPOSSIBLE(_)
#undef _
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(possible_states_pass),
		cmocka_unit_test(impossible_states_are_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
