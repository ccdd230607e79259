/*
 * Fast system calls: SYSCALL and SYSRET (APM vol. 2 6.1, SDM vol. 3A 5.8.8), SYSENTER and SYSEXIT (SDM vol. 3A 5.8.7).
 * They force flat segments instead of reading descriptors. Where the vendors differ the model's vendor decides: AMD has
 * SYSCALL outside 64-bit mode and no SYSENTER in long mode, Intel the other way round.
 */
#include "cpu/segment.h"

static void force_segment(struct vcpu *v, enum seg seg, uint16_t selector, uint16_t attr, unsigned dpl)
{
	v->s.seg_sel[seg] = selector;
	v->s.seg_base[seg] = 0;
	v->s.seg_limit[seg] = UINT32_MAX;
	v->s.seg_attr[seg] = (uint16_t)(attr | dpl << ATTR_DPL_SHIFT);
}

/* Clear flags where none of them needs more than that: VM is not among them, and clearing IF or TF needs no event. */
static void clear_flags(struct vcpu *v, uint64_t mask)
{
	v->s.rflags &= ~mask | BIT(1);
	if (mask & FLAGS_STATUS)
		cpu_set_status(v, cpu_status(v) & ~mask);
}

/* AMD, outside long mode: STAR's low half is the target, and only VM, IF and RF are cleared. */
static void legacy_syscall(struct vcpu *v, const struct insn *i)
{
	uint16_t cs = (uint16_t)bits(v->s.msr_star, 47, 32);

	v->s.gpr[RCX] = cpu_next_rip(v, i);
	v->s.rip = (uint32_t)v->s.msr_star;
	clear_flags(v, FLAG_VM | FLAG_IF | FLAG_RF);
	force_segment(v, CS, cs & 0xfffc, ATTR_FLAT_CODE_32, 0);
	force_segment(v, SS, (uint16_t)(cs + 8), ATTR_FLAT_STACK, 0);
	cpu_update_mode(v);
}

void op_syscall(struct vcpu *v, const struct insn *i)
{
	bool from_64 = v->code_mode == MODE_64;
	uint16_t cs = (uint16_t)bits(v->s.msr_star, 47, 32);

	if (!(v->s.efer & EFER_SCE) || (!from_64 && !(is_amd(v->model) && in_protected_mode(v))))
		cpu_raise(v, EXC_UD);
	if (!in_long_mode(v)) {
		legacy_syscall(v, i);
		return;
	}
	v->s.gpr[RCX] = cpu_next_rip(v, i);
	v->s.gpr[R11] = cpu_rflags(v) & ~FLAG_RF;
	v->s.rip = from_64 ? v->s.msr_lstar : v->s.msr_cstar;
	clear_flags(v, v->s.msr_fmask | FLAG_RF);
	force_segment(v, CS, cs & 0xfffc, ATTR_FLAT_CODE_64, 0);
	force_segment(v, SS, (uint16_t)(cs + 8), ATTR_FLAT_STACK, 0);
	v->step_trap = v->s.rflags & FLAG_TF; /* unlike elsewhere, TF as it is afterwards counts */
	cpu_update_mode(v);
}

/* RFLAGS of SYSRET: R11 without RF, VM and the reserved bits. */
#define SYSRET_FLAGS 0x3c7fd7u

void op_sysret(struct vcpu *v, const struct insn *i)
{
	uint16_t base = (uint16_t)bits(v->s.msr_star, 63, 48);
	bool to_64 = i->opsize == 8;

	if (!(v->s.efer & EFER_SCE) || (v->code_mode != MODE_64 && !(is_amd(v->model) && in_protected_mode(v))))
		cpu_raise(v, EXC_UD);
	if (v->cpl)
		cpu_raise_error(v, EXC_GP, 0);
	/* Intel: still in ring 0. AMD: the fetch at the target faults, in ring 3. */
	if (to_64 && !is_canonical(v->s.gpr[RCX]) && !is_amd(v->model))
		cpu_raise_error(v, EXC_GP, 0);

	v->s.rip = to_64 ? v->s.gpr[RCX] : (uint32_t)v->s.gpr[RCX];
	if (to_64)
		force_segment(v, CS, (uint16_t)((base + 16) | 3), ATTR_FLAT_CODE_64, 3);
	else
		force_segment(v, CS, base | 3, ATTR_FLAT_CODE_32, 3);
	force_segment(v, SS, (uint16_t)((base + 8) | 3), ATTR_FLAT_STACK, 3);
	if (in_long_mode(v))
		cpu_set_rflags(v, v->s.gpr[R11] & SYSRET_FLAGS);
	else
		cpu_set_rflags(v, cpu_rflags(v) | FLAG_IF);
	/* TF that SYSRET loads traps before the next instruction, not after it. */
	if (v->s.rflags & FLAG_TF) {
		v->s.pending_debug |= DR6_BS;
		vcpu_post(v, EVENT_STEP);
	}
	v->step_trap = false;
	cpu_update_mode(v);
}

static void check_sysenter(struct vcpu *v)
{
	if (in_long_mode(v) && is_amd(v->model))
		cpu_raise(v, EXC_UD);
	if (!(v->s.cr0 & CR0_PE) || !(v->s.msr_sysenter_cs & 0xfffc))
		cpu_raise_error(v, EXC_GP, 0);
}

void op_sysenter(struct vcpu *v, const struct insn *i)
{
	uint16_t cs = v->s.msr_sysenter_cs & 0xfffc;
	bool wide;

	(void)i;
	check_sysenter(v);
	wide = in_long_mode(v);
	clear_flags(v, FLAG_VM | FLAG_IF | FLAG_RF);
	force_segment(v, CS, cs, wide ? ATTR_FLAT_CODE_64 : ATTR_FLAT_CODE_32, 0);
	force_segment(v, SS, (uint16_t)(cs + 8), ATTR_FLAT_STACK, 0);
	v->s.gpr[RSP] = wide ? v->s.msr_sysenter_esp : (uint32_t)v->s.msr_sysenter_esp;
	v->s.rip = wide ? v->s.msr_sysenter_eip : (uint32_t)v->s.msr_sysenter_eip;
	cpu_update_mode(v);
}

void op_sysexit(struct vcpu *v, const struct insn *i)
{
	uint16_t cs = v->s.msr_sysenter_cs & 0xfffc;
	bool to_64 = i->opsize == 8;

	if (v->cpl) /* before anything else, also on AMD's */
		cpu_raise_error(v, EXC_GP, 0);
	check_sysenter(v);
	if (to_64 && (!is_canonical(v->s.gpr[RCX]) || !is_canonical(v->s.gpr[RDX])))
		cpu_raise_error(v, EXC_GP, 0);
	if (to_64) {
		force_segment(v, CS, (uint16_t)((cs + 32) | 3), ATTR_FLAT_CODE_64, 3);
		force_segment(v, SS, (uint16_t)((cs + 40) | 3), ATTR_FLAT_STACK, 3);
		v->s.gpr[RSP] = v->s.gpr[RCX];
		v->s.rip = v->s.gpr[RDX];
	} else {
		force_segment(v, CS, (uint16_t)((cs + 16) | 3), ATTR_FLAT_CODE_32, 3);
		force_segment(v, SS, (uint16_t)((cs + 24) | 3), ATTR_FLAT_STACK, 3);
		v->s.gpr[RSP] = (uint32_t)v->s.gpr[RCX];
		v->s.rip = (uint32_t)v->s.gpr[RDX];
	}
	cpu_update_mode(v);
}
