/*
 * Who may use which port: IOPL, and the I/O permission bitmap of the TSS, in protected and virtual-8086 mode. SDM vol. 1 19.5. (64-bit
 * mode: test_faults.)
 */
#include "legacy.h"

#define PORT	 0x107 /* its bit is the last of byte 20h of the map: what is wider crosses into the next */
#define MAP	 (sizeof(struct tss_32) + 32)
#define MAP_BYTE (MAP + PORT / 8)

CODE_LOW(in_8, "in %dx, %al")
CODE_LOW(in_16, "in %dx, %ax")
CODE_LOW(in_32, "inl %dx, %eax")
CODE_LOW(out_8, "out %al, %dx")
CODE_LOW(out_16, "out %ax, %dx")
CODE_LOW(out_32, "outl %eax, %dx")
CODE_LOW(ins_8, "insb")
CODE_LOW(ins_32, "insl")
CODE_LOW(outs_16, "outsw")
CODE_LOW(rep_ins, "rep insw")
CODE_LOW(rep_outs, "rep outsb")

static const struct op {
	const char *name;
	const u8 *code, *end;
	u8 ports; /* that it touches */
} ops[] = {
#define OP(name, code, ports)                                                                                          \
	{                                                                                                              \
		name, code, code##_end, ports                                                                          \
	}
	OP("IN AL", in_8, 1),	 OP("IN AX", in_16, 2),	     OP("IN EAX", in_32, 4),	   OP("OUT AL", out_8, 1),
	OP("OUT AX", out_16, 2), OP("OUT EAX", out_32, 4),   OP("INSB", ins_8, 1),	   OP("INSD", ins_32, 4),
	OP("OUTSW", outs_16, 2), OP("REP INSW", rep_ins, 2), OP("REP OUTSB", rep_outs, 1),
};

enum mode { RING_3, VIRTUAL_8086 };

/* INT END_VECTOR of virtual-8086 mode needs IOPL 3, and is #GP(0) without: told from the instruction's by EIP. */
static bool goes(const struct op *op, enum mode mode, unsigned iopl, u32 count)
{
	struct legacy_state s = { LEGACY_RING3_16 };
	struct legacy_trap t;

	if (mode == VIRTUAL_8086)
		s = (struct legacy_state){ LEGACY_V86 };
	s.eip = place_low(op->code, op->end);
	s.edx = PORT;
	s.edi = s.esi = 0x100;
	s.ecx = count;
	s.eflags |= iopl << 12;
	t = legacy_run(&s);
	if (t.vector != END_VECTOR && (t.vector != EXC_GP || t.error))
		die("%s: vector %u error 0x%x", op->name, t.vector, t.error);
	if (t.vector == EXC_GP && t.eip == 0 && (t.edi != 0x100 || t.esi != 0x100 || t.ecx != count))
		die("%s: registers changed", op->name);
	return t.vector == END_VECTOR || t.eip != 0;
}

static void permit(unsigned port, unsigned count)
{
	for (; count; count--, port++)
		legacy_system.ports[port / 8] &= (u8)~BIT(port % 8);
}

static void prepare(u32 limit)
{
	legacy_reset_tss();
	legacy_tss.io_map = MAP;
	*legacy_descriptor(LEGACY_TSS) = descriptor(LOW32(&legacy_tss), limit, 0x89);
}

static void test_maps(enum mode mode, const char *name)
{
	for (unsigned n = 0; n < ARRAY_SIZE(ops); n++) {
		const struct op *op = &ops[n];
		bool good;

		prepare(sizeof(legacy_system) - 1);
		check(!goes(op, mode, 0, 2), "1 19.5.2: %s, %s: its bits are set: #GP(0)", op->name, name);
		permit(PORT, op->ports);
		check(goes(op, mode, 0, 2), "1 19.5.2: %s, %s: they are clear", op->name, name);
		good = true;
		for (unsigned missing = 0; missing < op->ports; missing++) {
			prepare(sizeof(legacy_system) - 1);
			permit(PORT, op->ports);
			legacy_system.ports[(PORT + missing) / 8] |= (u8)BIT((PORT + missing) % 8);
			good = good && !goes(op, mode, 0, 2);
		}
		check(good, "1 19.5.2: %s, %s: one of its ports is not allowed", op->name, name);
		prepare(sizeof(legacy_system) - 1);
		memset(legacy_system.ports, 0xff, sizeof(legacy_system.ports));
		check(goes(op, mode, 3, 2) == (mode == RING_3), "1 19.5.1: %s, %s: IOPL 3 %s", op->name, name,
		      mode == RING_3 ? "needs no map" : "does not count");
	}
}

static void test_limits(enum mode mode, const char *name)
{
	static const struct {
		const char *what;
		u32 limit, base;
		bool allowed;
	} cases[] = {
		{ "the limit is at the second byte", MAP_BYTE + 1, MAP, true },
		{ "the limit is at the first: two are always read", MAP_BYTE, MAP, false },
		{ "the limit is before the map", sizeof(struct tss_32) - 1, MAP, false },
		{ "the map begins beyond the limit", MAP_BYTE + 1, 0xffff, false },
		{ "the map is within the TSS's fields", sizeof(legacy_system) - 1, sizeof(struct tss_32) - 4, false },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		prepare(cases[n].limit);
		memset(legacy_system.ports, 0, sizeof(legacy_system.ports));
		legacy_tss.io_map = (u16)cases[n].base;
		if (cases[n].base == sizeof(struct tss_32) - 4)
			legacy_system.redirection[PORT / 8 - 4] = 0xff;
		check(goes(&ops[0], mode, 0, 2) == cases[n].allowed, "1 19.5.2: %s: %s", name, cases[n].what);
	}
}

static void test_other(void)
{
	struct legacy_state s = { LEGACY_RING3_16 };
	struct legacy_trap t;

	prepare(sizeof(legacy_system) - 1);
	check(!goes(&ops[9], RING_3, 0, 0) && !goes(&ops[10], RING_3, 0, 0),
	      "2 REP INS, OUTS: a port that is not allowed: #GP with a count of 0, too");
	permit(PORT, 2);
	check(goes(&ops[9], RING_3, 0, 0), "2 REP INS: an allowed one, count 0");

	/* A TSS of 16 bits has no map. */
	prepare(sizeof(legacy_system) - 1);
	memset(legacy_system.ports, 0, sizeof(legacy_system.ports));
	{
		static struct {
			u16 link, sp0, ss0, rest[50];
		} small;

		small.sp0 = 0x2000;
		small.ss0 = LEGACY_SS16;
		small.rest[48] = 40; /* at 102, where a TSS of 32 bits has the map's base */
		*legacy_descriptor(LEGACY_FREE) = descriptor(LOW32(&small), 0xffff, 0x81);
		s.tr = LEGACY_FREE;
		s.eip = place_code(in_8);
		s.edx = PORT;
		t = legacy_run(&s);
		check_fault_32(&t, EXC_GP, 0, "1 19.5.2: a TSS of 16 bits has no map");
	}

	/* The port, then the operand: INS into a segment that is too small. */
	prepare(sizeof(legacy_system) - 1);
	*legacy_descriptor(LEGACY_FREE) = descriptor(LOW_DATA, 0xff, 0xf0);
	s = (struct legacy_state){ LEGACY_RING3_16, .es = LEGACY_FREE | 3, .edx = PORT, .edi = 0x10 };
	s.eip = place_code(ins_8);
	permit(PORT, 1);
	t = legacy_run(&s);
	check_fault_32(&t, EXC_GP, 0, "2 INS: into a read-only segment");
	s = (struct legacy_state){ LEGACY_RING3_16, .ss = LEGACY_USER_SS16, .edx = PORT };
	s.eip = place_code(ins_8);
	s.edi = 0x20;
	*(u8 *)low_data(0x20) = 0;
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && *(u8 *)low_data(0x20) == 0xff && (u16)t.edi == 0x21,
	      "2 INS: reads ones where there is no device");
}

void guest(void)
{
	test_maps(RING_3, "ring 3");
	test_maps(VIRTUAL_8086, "virtual-8086 mode");
	test_limits(RING_3, "ring 3");
	test_limits(VIRTUAL_8086, "virtual-8086 mode");
	test_other();
}
