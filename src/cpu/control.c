/*
 * Control registers and the mode changes they make, XCR0, and the flags of RFLAGS that matter to the machine.
 * SDM vol. 3A 2.5, 9.8, 20.3; debug registers and what acts on the TLB: debug.c and invalidate.c.
 */
#include "cpu/segment.h"

/* ---- CR0 ---- */

/* A change of these changes what the TLB may hold. */
#define CR0_TRANSLATION (CR0_PE | CR0_PG | CR0_WP)
#define CR0_PAE_RELOAD	(CR0_PG | CR0_CD | CR0_NW)

/* Paging goes on with EFER.LME set: into long mode (SDM vol. 3A 9.8.5). */
static void check_entry_to_long_mode(struct vcpu *v)
{
	unsigned tss = attr_type(v->s.seg_attr[TR]);

	if (!(v->s.cr4 & CR4_PAE) || (v->s.seg_attr[CS] & ATTR_L))
		cpu_raise_error(v, EXC_GP, 0);
	if (tss == SYSTEM_TSS_16 || tss == SYSTEM_TSS_16_BUSY)
		cpu_raise_error(v, EXC_GP, 0);
}

static void check_cr0(struct vcpu *v, uint64_t value, uint64_t changed)
{
	if (value >> 32)
		cpu_raise_error(v, EXC_GP, 0);
	if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
		cpu_raise_error(v, EXC_GP, 0);
	if (!(changed & CR0_PG))
		return;
	if (!(value & CR0_PG)) {
		if (v->code_mode == MODE_64 || (v->s.cr4 & CR4_PCIDE))
			cpu_raise_error(v, EXC_GP, 0);
	} else if (v->s.efer & EFER_LME) {
		check_entry_to_long_mode(v);
	}
}

void cpu_write_cr0(struct vcpu *v, uint64_t value)
{
	uint64_t changed = (v->s.cr0 ^ value) & CR0_KNOWN;

	check_cr0(v, value, changed);
	bool reload = (value & CR0_PG) && (v->s.cr4 & CR4_PAE) && !(v->s.efer & EFER_LME) && (changed & CR0_PAE_RELOAD);
	if (reload)
		cpu_load_pdptes(v, v->s.cr3);
	TRACE(v->trace, CONTROL, "cpu%u CR0 %#lx -> %#lx at rip %#lx", v->index, v->s.cr0, value, v->s.rip);
	v->s.cr0 = (value & CR0_KNOWN) | CR0_ET;
	if (changed & CR0_PG) {
		if ((value & CR0_PG) && (v->s.efer & EFER_LME))
			v->s.efer |= EFER_LMA;
		else
			v->s.efer &= ~EFER_LMA;
	}
	if (reload || (changed & CR0_TRANSLATION))
		cpu_tlb_flush(v);
	cpu_update_mode(v);
}

/* ---- CR3 ---- */

#define CR3_NO_FLUSH BIT(63)

void cpu_write_cr3(struct vcpu *v, uint64_t value)
{
	bool keep = (v->s.cr4 & CR4_PCIDE) && (value & CR3_NO_FLUSH);

	if (in_long_mode(v)) {
		if (v->s.cr4 & CR4_PCIDE)
			value &= ~CR3_NO_FLUSH;
		if (value & ~CPU_PHYS_MASK)
			cpu_raise_error(v, EXC_GP, 0);
	} else {
		value = (uint32_t)value;
		if ((v->s.cr0 & CR0_PG) && (v->s.cr4 & CR4_PAE))
			cpu_load_pdptes(v, value);
	}
	TRACE(v->trace, CONTROL, "cpu%u CR3 %#lx -> %#lx at rip %#lx", v->index, v->s.cr3, value, v->s.rip);
	v->count[COUNT_CR3_WRITES]++;
	v->s.cr3 = value;
	cpu_tlb_switch(v, keep);
}

/* ---- CR4 ---- */

#define CR4_TRANSLATION (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)
#define CR4_PAE_RELOAD	(CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)

uint64_t cpu_cr4_offered(const struct vcpu *v)
{
	uint64_t offered = CR4_PCE;

#define _(bits, feature)                                                                                               \
	if (has_feature(v, FEATURE_##feature))                                                                         \
		offered |= bits;
	CR4_FEATURES(_)
#undef _
	return offered;
}

static void check_cr4(struct vcpu *v, uint64_t value, uint64_t changed)
{
	if (value & ~cpu_cr4_offered(v))
		cpu_raise_error(v, EXC_GP, 0);
	if (in_long_mode(v) && !(value & CR4_PAE))
		cpu_raise_error(v, EXC_GP, 0);
	if ((changed & value & CR4_PCIDE) && (!in_long_mode(v) || (v->s.cr3 & 0xfff)))
		cpu_raise_error(v, EXC_GP, 0);
}

void cpu_write_cr4(struct vcpu *v, uint64_t value)
{
	uint64_t changed = v->s.cr4 ^ value;

	check_cr4(v, value, changed);
	if ((v->s.cr0 & CR0_PG) && (value & CR4_PAE) && !in_long_mode(v) && (changed & CR4_PAE_RELOAD))
		cpu_load_pdptes(v, v->s.cr3);
	TRACE(v->trace, CONTROL, "cpu%u CR4 %#lx -> %#lx at rip %#lx", v->index, v->s.cr4, value, v->s.rip);
	v->s.cr4 = value;
	if (changed & CR4_TRANSLATION)
		cpu_tlb_flush(v);
	cpu_update_mode(v);
}

/* ---- MOV CR, LMSW, SMSW, CLTS ---- */

static uint64_t read_control(struct vcpu *v, unsigned number)
{
	switch (number) {
	case 0: return v->s.cr0;
	case 2: return v->s.cr2;
	case 3: return v->s.cr3;
	case 4: return v->s.cr4;
	case 8: return v->env->tpr_read(v);
	default: cpu_raise(v, EXC_UD);
	}
}

static void write_control(struct vcpu *v, unsigned number, uint64_t value)
{
	switch (number) {
	case 0: cpu_write_cr0(v, value); break;
	case 2: v->s.cr2 = value; break;
	case 3: cpu_write_cr3(v, value); break;
	case 4: cpu_write_cr4(v, value); break;
	case 8:
		if (value & ~15ull)
			cpu_raise_error(v, EXC_GP, 0);
		v->env->tpr_write(v, (uint8_t)value);
		break;
	default: cpu_raise(v, EXC_UD);
	}
}

void op_mov_cr(struct vcpu *v, const struct insn *i)
{
	uint64_t next = cpu_next_rip(v, i);
	unsigned size = v->code_mode == MODE_64 ? 8 : 4;

	check_privileged(v);
	if (i->store)
		cpu_set_reg(v, i->reg, size, read_control(v, i->sreg));
	else
		write_control(v, i->sreg, cpu_reg(v, i->reg, size));
	v->s.rip = next;
}

#define MSW_BITS (CR0_PE | CR0_MP | CR0_EM | CR0_TS)

void op_lmsw(struct vcpu *v, const struct insn *i)
{
	uint64_t next = cpu_next_rip(v, i), word;

	check_privileged(v);
	if (i->flags & INSN_MEM)
		word = cpu_load(v, cpu_operand(v, i, 2, ACCESS_READ), 2, i->seg == SS);
	else
		word = REG16(v, i->reg);
	/* PE can be set but not cleared. */
	cpu_write_cr0(v, (v->s.cr0 & ~(MSW_BITS & ~CR0_PE)) | (word & MSW_BITS));
	v->s.rip = next;
}

void op_smsw(struct vcpu *v, const struct insn *i)
{
	cpu_check_umip(v);
	cpu_store_word(v, i, v->s.cr0);
}

void op_clts(struct vcpu *v, const struct insn *i)
{
	check_privileged(v);
	v->s.cr0 &= ~CR0_TS;
	cpu_update_mode(v);
	v->s.rip = cpu_next_rip(v, i);
}

/* ---- XCR0 ---- */

void op_xgetbv(struct vcpu *v, const struct insn *i)
{
	uint32_t index = (uint32_t)v->s.gpr[RCX];
	uint64_t value;

	(void)i;
	if (!(v->s.cr4 & CR4_OSXSAVE))
		cpu_raise(v, EXC_UD);
	if (index == 0)
		value = v->s.xcr0;
	else if (index == 1 && has_feature(v, FEATURE_XGETBV1))
		value = v->s.xcr0 & cpu_xinuse(v);
	else
		cpu_raise_error(v, EXC_GP, 0);
	v->s.gpr[RAX] = (uint32_t)value;
	v->s.gpr[RDX] = value >> 32;
}

void op_xsetbv(struct vcpu *v, const struct insn *i)
{
	uint64_t value = (uint32_t)v->s.gpr[RAX] | v->s.gpr[RDX] << 32;
	uint64_t offered = XCR0_X87 | XCR0_SSE | (has_feature(v, FEATURE_AVX) ? XCR0_AVX : 0);

	if (!(v->s.cr4 & CR4_OSXSAVE))
		cpu_raise(v, EXC_UD);
	check_privileged(v);
	if ((uint32_t)v->s.gpr[RCX] || (value & ~offered) || !(value & XCR0_X87) ||
	    ((value & XCR0_AVX) && !(value & XCR0_SSE)))
		cpu_raise_error(v, EXC_GP, 0);
	TRACE(v->trace, CONTROL, "cpu%u XCR0 %#lx -> %#lx at rip %#lx", v->index, v->s.xcr0, value, v->s.rip);
	v->s.xcr0 = value;
	cpu_update_mode(v);
	v->s.rip = cpu_next_rip(v, i);
}

/* ---- CLI, STI, CLAC, STAC ---- */

static bool is_virtual_8086(const struct vcpu *v) { return v->s.rflags & FLAG_VM; }
static unsigned iopl(const struct vcpu *v) { return (unsigned)bits(v->s.rflags, 13, 12); }

/*
 * Who may change IF, and is it IF that changes? SDM vol. 2A CLI table 3-7: with CR4.VME (virtual-8086 mode) or CR4.PVI (CPL 3)
 * it is VIF when IOPL is too low for IF. Raises #GP(0) when it is neither.
 */
static bool changes_virtual_if(struct vcpu *v)
{
	if (!(v->s.cr0 & CR0_PE) || iopl(v) >= v->cpl)
		return false;
	if (!(v->s.cr4 & (is_virtual_8086(v) ? CR4_VME : CR4_PVI)) || v->cpl != 3)
		cpu_raise_error(v, EXC_GP, 0);
	return true;
}

void op_cli(struct vcpu *v, const struct insn *i)
{
	v->s.rflags &= ~(changes_virtual_if(v) ? FLAG_VIF : FLAG_IF);
	v->s.rip = cpu_next_rip(v, i);
}

void op_sti(struct vcpu *v, const struct insn *i)
{
	if (unlikely(changes_virtual_if(v))) {
		if (v->s.rflags & FLAG_VIP)
			cpu_raise_error(v, EXC_GP, 0);
		v->s.rflags |= FLAG_VIF;
	} else if (!(v->s.rflags & FLAG_IF)) {
		v->s.rflags |= FLAG_IF;
		v->s.shadow = SHADOW_STI;
		vcpu_post(v, EVENT_STEP | (v->interrupt_wanted ? EVENT_INTERRUPT : 0));
	}
	v->s.rip = cpu_next_rip(v, i);
}

/* AC of ring 0 only chooses the TLB view; alignment is checked in ring 3 alone. */
static void set_access_control(struct vcpu *v, const struct insn *i, bool allow)
{
	if (unlikely(v->cpl))
		cpu_raise(v, EXC_UD);
	v->s.rflags = allow ? v->s.rflags | FLAG_AC : v->s.rflags & ~FLAG_AC;
	if (v->s.cr4 & CR4_SMAP) {
		v->tlb_view = allow ? TLB_KERNEL_AC : TLB_KERNEL;
		if (likely(v->tlb != v->tlb_never))
			v->tlb = v->tlbs[v->tlb_view];
	}
	v->s.rip = cpu_next_rip(v, i);
}

void op_clac(struct vcpu *v, const struct insn *i) { set_access_control(v, i, false); }
void op_stac(struct vcpu *v, const struct insn *i) { set_access_control(v, i, true); }

/* ---- PUSHF, POPF ---- */

void op_pushf(struct vcpu *v, const struct insn *i)
{
	uint64_t image = cpu_rflags(v) & ~(FLAG_RF | FLAG_VM);

	if (is_virtual_8086(v) && iopl(v) < 3) {
		if (!(v->s.cr4 & CR4_VME) || i->opsize != 2)
			cpu_raise_error(v, EXC_GP, 0);
		image = (image & ~FLAG_IF) | FLAG_IOPL | ((image & FLAG_VIF) ? FLAG_IF : 0);
	}
	cpu_push(v, image, i->opsize);
}

#define POPF_FLAGS_16 (FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT)
#define POPF_FLAGS_32 (POPF_FLAGS_16 | FLAG_AC | FLAG_ID | FLAG_RF)

/* Which flags POPF takes over: SDM vol. 2B, POPF, table 4-15. RF becomes 0. */
static uint64_t popf_mask(const struct vcpu *v, unsigned opsize)
{
	uint64_t mask = opsize == 2 ? POPF_FLAGS_16 : POPF_FLAGS_32;

	if (v->cpl == 0)
		return mask | FLAG_IF | FLAG_IOPL;
	return iopl(v) >= v->cpl ? mask | FLAG_IF : mask;
}

/* Virtual-8086 mode with IOPL below 3: IF means VIF, in the 16-bit form with CR4.VME. */
static uint64_t virtual_popf(struct vcpu *v, uint64_t value, unsigned opsize)
{
	uint64_t mask = POPF_FLAGS_16 | FLAG_VIF;

	if (!(v->s.cr4 & CR4_VME) || opsize != 2 || (value & FLAG_TF) ||
	    ((value & FLAG_IF) && (v->s.rflags & FLAG_VIP)))
		cpu_raise_error(v, EXC_GP, 0);
	if (value & FLAG_IF)
		value |= FLAG_VIF;
	return (cpu_rflags(v) & ~mask) | (value & mask);
}

void op_popf(struct vcpu *v, const struct insn *i)
{
	uint64_t rsp = v->s.gpr[RSP], next = cpu_next_rip(v, i), value, mask;

	if (is_virtual_8086(v) && iopl(v) < 3) {
		value = virtual_popf(v, stack_pop(v, &rsp, i->opsize), i->opsize);
	} else {
		mask = popf_mask(v, i->opsize);
		value = (cpu_rflags(v) & ~mask) | (stack_pop(v, &rsp, i->opsize) & mask & ~FLAG_RF);
	}
	set_stack_pointer(v, rsp);
	cpu_set_rflags(v, value);
	v->s.rip = next;
}

/* ---- waiting, caches, and what is not there ---- */

void op_hlt(struct vcpu *v, const struct insn *i)
{
	check_privileged(v);
	v->s.rip = cpu_next_rip(v, i);
	v->s.activity = CPU_HALTED;
	vcpu_post(v, EVENT_HALTED);
}

void op_monitor(struct vcpu *v, const struct insn *i)
{
	uint64_t offset = v->s.gpr[RAX];

	if (v->cpl)
		cpu_raise(v, EXC_UD);
	if ((uint32_t)v->s.gpr[RCX])
		cpu_raise_error(v, EXC_GP, 0);
	if (i->addrsize != 8)
		offset = i->addrsize == 4 ? (uint32_t)offset : (uint16_t)offset;
	cpu_load(v, cpu_linear(v, i->seg, offset, 1, ACCESS_READ), 1, i->seg == SS);
}

/* Wakes at once, which the manual allows: any store might have been to the monitored line. */
void op_mwait(struct vcpu *v, const struct insn *i)
{
	if (v->cpl)
		cpu_raise(v, EXC_UD);
	if ((uint32_t)v->s.gpr[RCX] & ~1u)
		cpu_raise_error(v, EXC_GP, 0);
	if (v->env->pause)
		v->env->pause(v);
	v->s.rip = cpu_next_rip(v, i);
}

/* Guest memory is coherent and no cache of ours holds what it does not. */
void op_invd(struct vcpu *v, const struct insn *i)
{
	(void)i;
	check_privileged(v);
}

void op_wbinvd(struct vcpu *v, const struct insn *i)
{
	(void)i;
	check_privileged(v);
}

/* RSM outside system-management mode, which there is none of. */
void op_ud(struct vcpu *v, const struct insn *i)
{
	(void)i;
	cpu_raise(v, EXC_UD);
}
