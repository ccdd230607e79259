/*
 * IN, OUT, INS, OUTS: who may (IOPL and the TSS's I/O permission bitmap, SDM vol. 1 19.5), and the way to the devices.
 */
#include "cpu/repeat.h"

#define TSS_TYPE_32	0x9 /* available; busy is 0xb */
#define TSS_TYPE_BUSY	0x2
#define TSS_IO_MAP_BASE 102
#define TSS_MIN_LIMIT	103

/* Two bytes are always read, so that any run of up to four ports is covered: the last one must be within the limit. */
static bool io_map_allows(struct vcpu *v, uint16_t port, unsigned size)
{
	uint64_t tss = v->s.seg_base[TR];
	uint32_t limit = v->s.seg_limit[TR];
	uint16_t attr = v->s.seg_attr[TR];

	if (!(attr & ATTR_P) || (attr & (ATTR_TYPE & ~TSS_TYPE_BUSY)) != TSS_TYPE_32 || limit < TSS_MIN_LIMIT)
		return false;
	uint32_t at = (uint32_t)cpu_system_load(v, tss + TSS_IO_MAP_BASE, 2) + port / 8;
	if (at + 1 > limit)
		return false;
	uint32_t map = (uint32_t)cpu_system_load(v, tss + at, 2);
	return !(map >> (port & 7) & ((1u << size) - 1));
}

static void check_permission(struct vcpu *v, uint16_t port, unsigned size)
{
	bool v86 = v->s.rflags & FLAG_VM;

	if (!(v->s.cr0 & CR0_PE))
		return;
	if (!v86 && v->cpl <= (v->s.rflags & FLAG_IOPL) >> 12)
		return;
	if (!io_map_allows(v, port, size))
		cpu_raise_error(v, EXC_GP, 0);
}

static uint32_t read_port(struct vcpu *v, uint16_t port, unsigned size)
{
	uint32_t value = v->env->pio_read(v, port, size);

	v->count[COUNT_PIO_READS]++;
	TRACE(v->trace, PIO, "cpu%u in  %#x/%u = %#x", v->index, port, size, value);
	cpu_note_port_breakpoints(v, port, size);
	return value;
}

static void write_port(struct vcpu *v, uint16_t port, unsigned size, uint32_t value)
{
	v->count[COUNT_PIO_WRITES]++;
	TRACE(v->trace, PIO, "cpu%u out %#x/%u = %#x", v->index, port, size, value);
	v->env->pio_write(v, port, size, value);
	cpu_note_port_breakpoints(v, port, size);
}

/* The immediate is one byte, sign-extended like all of them. */
static uint16_t port_operand(const struct vcpu *v, const struct insn *i)
{
	return i->form == FORM_RI ? (uint8_t)i->imm : REG16(v, OFF_RDX);
}

void op_in(struct vcpu *v, const struct insn *i)
{
	uint16_t port = port_operand(v, i);

	check_permission(v, port, i->opsize);
	cpu_set_reg(v, OFF_RAX, i->opsize, read_port(v, port, i->opsize));
}

void op_out(struct vcpu *v, const struct insn *i)
{
	uint16_t port = port_operand(v, i);

	check_permission(v, port, i->opsize);
	write_port(v, port, i->opsize, (uint32_t)cpu_reg(v, OFF_RAX, i->opsize));
}

/* A read may have side effects, so the destination is known to be good before. */
static uint64_t ins_step(struct vcpu *v, const struct insn *i, uint64_t max, bool *stop)
{
	uint16_t port = REG16(v, OFF_RDX);

	(void)max;
	(void)stop;
	check_permission(v, port, i->opsize);
	uint64_t lin = string_linear(v, ES, cpu_reg(v, OFF_RDI, i->addrsize), i->opsize, ACCESS_WRITE);
	cpu_probe_write(v, lin, i->opsize, false);
	cpu_store(v, lin, read_port(v, port, i->opsize), i->opsize, false);
	string_advance(v, i, OFF_RDI, 1);
	return 1;
}

/* Whether the port may be used at all is found before the count: also when that is 0. */
static void repeat_io(struct vcpu *v, const struct insn *i, string_step_fn *step)
{
	check_permission(v, REG16(v, OFF_RDX), i->opsize);
	string_repeat(v, i, step);
}

void op_ins(struct vcpu *v, const struct insn *i) { repeat_io(v, i, ins_step); }

static uint64_t outs_step(struct vcpu *v, const struct insn *i, uint64_t max, bool *stop)
{
	uint16_t port = REG16(v, OFF_RDX);

	(void)max;
	(void)stop;
	check_permission(v, port, i->opsize);
	write_port(v, port, i->opsize, (uint32_t)string_load(v, i, i->seg, OFF_RSI));
	string_advance(v, i, OFF_RSI, 1);
	return 1;
}

void op_outs(struct vcpu *v, const struct insn *i) { repeat_io(v, i, outs_step); }
