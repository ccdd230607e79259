/*
 * A processor's creation, its state after power-on and INIT, and what is derived from that state: privilege level, mode,
 * the view of the TLB.
 */
#include "cpu/private.h"

#include <errno.h>
#include <stdlib.h>

STATE_DESC(cpu_desc, "cpu", 1, struct cpu_state, CPU_STATE, .loaded = cpu_state_loaded);
const struct state_desc *const cpu_state_desc = &cpu_desc;

STATE_DESC(pending_desc, "vcpu", 1, struct cpu_pending, CPU_PENDING_STATE, .loaded = cpu_pending_loaded);
const struct state_desc *const cpu_pending_desc = &pending_desc;

void cpu_pending_pull(const struct vcpu *v, struct cpu_pending *p)
{
	*p = (struct cpu_pending){ .events = atomic_load(&v->events) & EVENTS_SAVED,
				   .sipi_vector = v->sipi_vector,
				   .repeating = v->repeating };
}

void cpu_pending_push(struct vcpu *v, const struct cpu_pending *p)
{
	atomic_fetch_and(&v->events, ~(uint32_t)EVENTS_SAVED);
	atomic_fetch_or(&v->events, p->events);
	v->sipi_vector = p->sipi_vector;
	v->repeating = p->repeating;
	v->interrupt_wanted = false; /* found out anew by whoever pushes the state */
}

const struct vcpu_hooks vcpu_no_hooks;

struct vcpu *vcpu_create(size_t size, unsigned index, const struct cpu_model *model, struct guest_mem *mem,
			 struct clock *clock, struct trace *trace, const struct vcpu_env *env, void *env_opaque,
			 struct error *err)
{
	struct vcpu *v;

	BUG_ON(size < sizeof(struct vcpu));
	size = align_up(size, PAGE_SIZE);
	v = aligned_alloc(PAGE_SIZE, size);
	if (!v) {
		error_set_errno(err, ENOMEM, "allocate vCPU %u", index);
		return NULL;
	}
	memset(v, 0, size);
	v->index = index;
	v->model = model;
	v->mem = mem;
	v->clock = clock;
	v->trace = trace;
	v->env = env;
	v->env_opaque = env_opaque;
	v->hooks = &vcpu_no_hooks;
	v->pairs = mem_pairs_create();
	if (mem && !mem->code_changed) {
		mem->code_changed = cpu_code_changed;
		mem->code_changed_opaque = v;
	}
	if (mem)
		cpu_map_listen(v);
	cpu_reset(v, false);
	return v;
}

void vcpu_destroy(struct vcpu *v)
{
	if (v->mem && v->mem->code_changed_opaque == v)
		v->mem->code_changed = NULL;
	if (v->mem)
		mem_unlisten(&v->mem_listener);
	mem_pairs_destroy(v->pairs);
	free(v);
}

static void set_segment(struct vcpu *v, enum seg seg, uint16_t selector, uint64_t base, uint16_t attr)
{
	v->s.seg_sel[seg] = selector;
	v->s.seg_base[seg] = base;
	v->s.seg_limit[seg] = 0xffff;
	v->s.seg_attr[seg] = attr;
}

/* What INIT leaves alone, SDM vol. 3A table 9-1. The instruction count is ours, and never goes back. */
static void keep_over_init(struct cpu_state *new, const struct cpu_state *old)
{
	new->cr0 = (new->cr0 & ~(CR0_CD | CR0_NW)) | (old->cr0 & (CR0_CD | CR0_NW));
	new->xcr0 = old->xcr0;
	memcpy(new->vec, old->vec, sizeof(new->vec));
	new->mxcsr = old->mxcsr;
	memcpy(new->st_mantissa, old->st_mantissa, sizeof(new->st_mantissa));
	memcpy(new->st_exponent, old->st_exponent, sizeof(new->st_exponent));
	new->fcw = old->fcw;
	new->fsw = old->fsw;
	new->ftw = old->ftw;
	new->fop = old->fop;
	new->fcs = old->fcs;
	new->fds = old->fds;
	new->fip = old->fip;
	new->fdp = old->fdp;
	new->msr_star = old->msr_star;
	new->msr_lstar = old->msr_lstar;
	new->msr_cstar = old->msr_cstar;
	new->msr_fmask = old->msr_fmask;
	new->msr_kernel_gs_base = old->msr_kernel_gs_base;
	new->msr_sysenter_cs = old->msr_sysenter_cs;
	new->msr_sysenter_esp = old->msr_sysenter_esp;
	new->msr_sysenter_eip = old->msr_sysenter_eip;
	new->msr_tsc_aux = old->msr_tsc_aux;
	new->tsc_offset = old->tsc_offset;
	new->msr_tsc_adjust = old->msr_tsc_adjust;
	new->msr_pat = old->msr_pat;
	new->msr_misc_enable = old->msr_misc_enable;
	new->msr_spec_ctrl = old->msr_spec_ctrl;
	new->mtrr_def_type = old->mtrr_def_type;
	memcpy(new->mtrr_fixed, old->mtrr_fixed, sizeof(new->mtrr_fixed));
	memcpy(new->mtrr_var, old->mtrr_var, sizeof(new->mtrr_var));
	new->mcg_status = old->mcg_status;
	new->kvm_system_time = old->kvm_system_time;
	new->kvm_wall_clock = old->kvm_wall_clock;
	new->kvm_pv_eoi = old->kvm_pv_eoi;
	new->kvm_poll_control = old->kvm_poll_control;
}

void cpu_reset(struct vcpu *v, bool init)
{
	struct cpu_state old;

	if (v->fpu_live)
		cpu_fpu_save(v);
	old = v->s;
	state_reset(cpu_state_desc, &v->s);
	v->s.icount = old.icount;
	if (init)
		keep_over_init(&v->s, &old);

	for (enum seg seg = ES; seg <= GS; seg++)
		set_segment(v, seg, 0, 0, ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED);
	set_segment(v, CS, 0xf000, 0xffff0000, ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | ATTR_ACCESSED);
	set_segment(v, LDTR, 0, 0, ATTR_P | 2);
	set_segment(v, TR, 0, 0, ATTR_P | 11);
	v->s.gpr[RDX] = v->model->signature;
	v->s.dr[6] = DR6_ONES;
	v->s.dr[7] = DR7_ONES;
	if (v->index != 0)
		v->s.activity = CPU_WAIT_SIPI;

	atomic_fetch_and(&v->events, EVENT_EXIT | EVENT_EXCLUSIVE | (init ? EVENT_SIPI : 0));
	if (v->s.activity != CPU_RUNNING)
		vcpu_post(v, EVENT_HALTED);
	v->interrupt_wanted = false;
	v->delivering = false;
	v->step_trap = v->step_resume = v->repeating = false;
	v->step_shadow = SHADOW_NONE;
	cpu_set_status(v, v->s.rflags);
	cpu_tlb_flush(v);
	cpu_update_mode(v);
}

void cpu_set_real_segment(struct vcpu *v, enum seg seg, uint16_t selector)
{
	v->s.seg_sel[seg] = selector;
	v->s.seg_base[seg] = (uint64_t)selector << 4;
	if (v->s.rflags & FLAG_VM) {
		v->s.seg_limit[seg] = 0xffff;
		v->s.seg_attr[seg] = ATTR_VIRTUAL_8086;
	} else if (!(v->s.seg_attr[seg] & ATTR_P)) {
		/* A null segment of protected mode; otherwise limit and size stay ("big real mode"). */
		v->s.seg_attr[seg] = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED;
	}
}

static bool flat_data(const struct vcpu *v, enum seg seg)
{
	const uint16_t mask = ATTR_P | ATTR_S | ATTR_CODE | ATTR_EXPAND_DOWN | ATTR_WRITABLE;

	return v->s.seg_base[seg] == 0 && v->s.seg_limit[seg] == UINT32_MAX &&
	       (v->s.seg_attr[seg] & mask) == (ATTR_P | ATTR_S | ATTR_WRITABLE);
}

static bool flat_code(const struct vcpu *v)
{
	const uint16_t mask = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE;

	return v->s.seg_base[CS] == 0 && v->s.seg_limit[CS] == UINT32_MAX && (v->s.seg_attr[CS] & mask) == mask;
}

static unsigned privilege_level(const struct vcpu *v)
{
	if (!(v->s.cr0 & CR0_PE))
		return 0;
	if (v->s.rflags & FLAG_VM)
		return 3;
	return (v->s.seg_attr[SS] & ATTR_DPL) >> ATTR_DPL_SHIFT;
}

/* Must every data access be looked at? Alignment checks: SDM vol. 3A 6.15, #AC; data breakpoints: 17.2.4; a debugger's watches. */
static bool checks_accesses(const struct vcpu *v)
{
	if (v->cpl == 3 && (v->s.rflags & FLAG_AC) && (v->s.cr0 & CR0_AM))
		return true;
	if (unlikely(v->stops) && v->stops->watch_count)
		return true;
	if (likely(!(v->s.dr[7] & DR7_ENABLES)))
		return false;
	for (unsigned n = 0; n < 4; n++)
		if (bits(v->s.dr[7], 2 * n + 1, 2 * n) && (bits(v->s.dr[7], 17 + 4 * n, 16 + 4 * n) & 1))
			return true;
	return false;
}

/*
 * Nobody may count on the upper halves of registers behind 64-bit mode (SDM vol. 1 3.4.1.1): they are 0, whatever engine runs, so that
 * translated 32-bit code can use addresses as they are.
 */
static void leave_64_bit_code(struct vcpu *v)
{
	for (unsigned n = RAX; n <= RDI; n++)
		v->s.gpr[n] = (uint32_t)v->s.gpr[n];
}

void cpu_update_mode(struct vcpu *v)
{
	uint16_t cs = v->s.seg_attr[CS];
	uint32_t code_segment = 0;
	bool was_64 = v->code_mode == MODE_64;

	v->cpl = (uint8_t)privilege_level(v);
	if ((v->s.efer & EFER_LMA) && (cs & ATTR_L)) {
		v->code_mode = MODE_64;
		v->stack_size = 8;
		v->flat = true;
	} else {
		bool v86 = v->s.rflags & FLAG_VM;

		/* Real mode keeps the D and B bits of the segments it was entered with until they are loaded. */
		v->code_mode = (cs & ATTR_DB) && !v86 ? MODE_32 : MODE_16;
		v->stack_size = (v->s.seg_attr[SS] & ATTR_DB) && !v86 ? 4 : 2;
		v->flat = in_protected_mode(v) && flat_code(v) && flat_data(v, DS) && flat_data(v, ES) &&
			  flat_data(v, SS);
		if (was_64)
			leave_64_bit_code(v);
		code_segment = (v->s.seg_base[CS] ? 0 : MODE_KEY_BASE_0) |
			       (v->s.seg_limit[CS] == UINT32_MAX ? MODE_KEY_NO_LIMIT : 0);
	}
	v->stack_64 = v->stack_size == 8;

	if (v->cpl == 3)
		v->tlb_view = TLB_USER;
	else if ((v->s.rflags & FLAG_AC) && (v->s.cr4 & CR4_SMAP))
		v->tlb_view = TLB_KERNEL_AC;
	else
		v->tlb_view = TLB_KERNEL;
	v->tlb = unlikely(checks_accesses(v)) ? v->tlb_never : v->tlbs[v->tlb_view];
	/* RF without breakpoints comes from a snapshot alone, see cpu_set_rflags(): it lasts one instruction like any other. */
	if (unlikely((v->s.dr[7] & DR7_ENABLES) || (v->s.rflags & FLAG_RF)))
		vcpu_post(v, EVENT_STEP);

	v->mode_key = (uint32_t)v->code_mode | (v->cpl == 3) << 2 | (uint32_t)v->flat << 3 |
		      (uint32_t)v->stack_size << 4 | (in_protected_mode(v) ? MODE_KEY_PROTECTED : 0) | code_segment;
}

uint64_t cpu_rflags(const struct vcpu *v) { return (v->s.rflags & ~FLAGS_STATUS) | cpu_status(v) | RFLAGS_ONE; }

void cpu_set_rflags(struct vcpu *v, uint64_t rflags)
{
	uint64_t old = v->s.rflags, changed;

	rflags = (rflags & RFLAGS_VALID) | RFLAGS_ONE;
	/*
	 * RF matters to instruction breakpoints, cpu_after_step() clears it while there are any; and a trap behind the IRET that
	 * loaded it pushes it.
	 */
	if (!(v->s.dr[7] & DR7_ENABLES) && !v->step_trap)
		rflags &= ~FLAG_RF;
	changed = old ^ rflags;
	v->s.rflags = rflags;
	cpu_set_status(v, rflags);
	if ((changed & rflags & FLAG_IF) && v->interrupt_wanted)
		vcpu_post(v, EVENT_INTERRUPT);
	if (rflags & FLAG_TF)
		vcpu_post(v, EVENT_STEP);
	if (changed & (FLAG_AC | FLAG_VM))
		cpu_update_mode(v);
}
