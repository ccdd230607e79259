/*
 * MOV to and from debug registers: SDM vol. 3B 17.2. What the registers do is found in access.c and event.c.
 */
#include "cpu/segment.h"

/* DR4 and DR5 are names of DR6 and DR7 unless CR4.DE makes them undefined. */
static unsigned register_number(struct vcpu *v, unsigned number)
{
	if (number > 7)
		cpu_raise(v, EXC_UD);
	if (number != 4 && number != 5)
		return number;
	if (v->s.cr4 & CR4_DE)
		cpu_raise(v, EXC_UD);
	return number + 2;
}

/* DR0 to DR3 take any address: one that is not canonical only never matches (17.2.6). */
static void write_debug(struct vcpu *v, unsigned number, uint64_t value)
{
	if (number >= 6 && value >> 32)
		cpu_raise_error(v, EXC_GP, 0);
	if (number == 6)
		value = (value & DR6_WRITABLE) | DR6_ONES;
	else if (number == 7)
		value = (value & DR7_WRITABLE) | DR7_ONES;
	TRACE(v->trace, CONTROL, "cpu%u DR%u %#lx -> %#lx at rip %#lx", v->index, number, v->s.dr[number], value,
	      v->s.rip);
	v->s.dr[number] = value;
	cpu_update_mode(v);
	if (number == 7)
		vcpu_post(v, EVENT_STEP);
}

void cpu_note_port_breakpoints(struct vcpu *v, uint16_t port, unsigned size)
{
	if (unlikely(v->s.dr[7] & DR7_ENABLES) && (v->s.cr4 & CR4_DE))
		v->s.pending_debug |= cpu_matching_breakpoints(v, port, size, BIT(BREAK_PORT));
}

void op_mov_dr(struct vcpu *v, const struct insn *i)
{
	unsigned size = v->code_mode == MODE_64 ? 8 : 4, number;

	check_privileged(v);
	number = register_number(v, i->sreg);
	if (v->s.dr[7] & DR7_GD) {
		v->s.dr[7] &= ~DR7_GD;
		cpu_report_debug(v, DR6_BD);
		cpu_raise(v, EXC_DB);
	}
	if (i->store)
		cpu_set_reg(v, i->reg, size, v->s.dr[number]);
	else
		write_debug(v, number, cpu_reg(v, i->reg, size));
	v->s.rip = cpu_next_rip(v, i);
}
