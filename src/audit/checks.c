/*
 * The checks of the audit: which instruction, where, what goes wrong under a monitor that just runs the guest without privilege
 * and waits for traps, and what the guest must see: what its kernel (guest.S) set up.
 */
#include "audit/private.h"
#include "audit/snippets.h"

/* ---- the snippets, as bytes ---- */

#define _(name, bits, text)                                                                                            \
	__asm__(".pushsection .rodata\n.code" #bits "\nsnippet_" #name ": " text "\nsnippet_" #name                    \
		"_end:\n.code64\n.popsection\n");                                                                      \
	extern const uint8_t snippet_##name[], snippet_##name##_end[];
SNIPPETS(_)
#undef _

#define CODE(name)                                                                                                     \
	{                                                                                                              \
		snippet_##name, snippet_##name##_end                                                                   \
	}

/* ---- what a naive monitor does ---- */

#define NAIVE_TABLE    "shows the monitor's own table"
#define NAIVE_TASK     "shows the monitor's own task register"
#define NAIVE_LDT      "shows the monitor's own LDT"
#define NAIVE_CR0      "shows the real CR0"
#define NAIVE_PUSHF    "shows the real IF and IOPL: never masked, never granted"
#define NAIVE_POPF     "leaves IF alone, without a trap: no masking of interrupts"
#define NAIVE_CLI      "traps though IOPL allows it, or masks the host's interrupts"
#define NAIVE_LOOKUP   "looks into the monitor's descriptor table"
#define NAIVE_READ     "shows the ring that the guest really runs in"
#define NAIVE_LOAD     "loads from the monitor's table, with the real ring's rights"
#define NAIVE_HIDDEN   "reloads segments from the table: the old base is lost"
#define NAIVE_FAR      "finds the monitor's gates and segments"
#define NAIVE_RET      "checks against the real ring, loads the monitor's segments"
#define NAIVE_INT      "enters by the host's IDT"
#define NAIVE_IRET     "leaves IF alone, without a trap"
#define NAIVE_ENTRY    "enters the host's kernel"
#define NAIVE_CPUID    "shows the real processor and the host's settings"
#define NAIVE_TIME     "shows the host's time: pauses of the guest are seen"
#define NAIVE_AUX      "shows which CPU of the host it is"
#define NAIVE_COUNTERS "counts the host's events, if the host allows it"
#define NAIVE_XCR0     "shows the host's XCR0, whatever the guest's CR4 says"
#define NAIVE_BASES    "works as the host's CR4 says, not the guest's"
#define NAIVE_RINGS    "one real ring: user mode reaches its kernel's memory"
#define NAIVE_SPACE    "needs a part of the address space for itself"
#define NAIVE_CALL     "calls the hypervisor beneath the monitor"

/* ---- parts of rows ---- */

#define RAX_IS(name, value)                                                                                            \
	{                                                                                                              \
		FIELD_RAX, name, value, 0                                                                              \
	}
#define RBX_IS(name, value)                                                                                            \
	{                                                                                                              \
		FIELD_RBX, name, value, 0                                                                              \
	}
/* Bits of the flags that the kernel found, and of those that PUSHF put into RAX. */
#define FLAGS_ARE(name, bits_, value)                                                                                  \
	{                                                                                                              \
		FIELD_FLAGS, name, value, bits_                                                                        \
	}
#define PUSHED(name, bits_, value)                                                                                     \
	{                                                                                                              \
		FIELD_RAX, name, value, bits_                                                                          \
	}
#define CS_IS(value)                                                                                                   \
	{                                                                                                              \
		FIELD_CS, "CS", value, 0                                                                               \
	}

#define GDT_LIMIT    (GDT_SIZE - 1)
#define IDT_LIMIT_32 (IDT_VECTORS * 8 - 1)
#define IDT_LIMIT_64 (IDT_VECTORS * 16 - 1)
#define IOPL(n)	     ((n) << 12)
#define CR0_PAGING   (CR0_PG | GUEST_MSW)
#define MARK_86	     (GUEST_MARK >> 4)
#define CS_86	     (GUEST_CODE >> 4)
#define SS_86	     (GUEST_DATA >> 4)
#define GATE_ERROR   (VECTOR_KERN * 8 + 2)

/* #GP(0) of ring 3 for what CR4.UMIP forbids. */
#define UMIP .feature = FEATURE_UMIP, .cr4 = CR4_UMIP, .vector = EXC_GP
#define VME  .mode = VIRTUAL_8086, .feature = FEATURE_VME, .cr4 = CR4_VME, .vector = EXC_GP
#define V86  .mode = VIRTUAL_8086, .flags = IOPL(3)

/* clang-format off */
const struct check audit_checks[] = {
#define ROW(instruction_, where_, naive_, name) .instruction = instruction_, .where = where_, .naive = naive_, .code = CODE(name)
	{ ROW("SGDT", "64-bit", NAIVE_TABLE, sgdt_64), .mode = USER_64,
	  .values = { RAX_IS("base", GUEST_GDT), RBX_IS("limit", GDT_LIMIT) } },
	{ ROW("SGDT", "compatibility", NAIVE_TABLE, sgdt_32), .mode = USER_COMPAT,
	  .values = { RAX_IS("base", GUEST_GDT), RBX_IS("limit", GDT_LIMIT) } },
	{ ROW("SGDT", "32-bit", NAIVE_TABLE, sgdt_32), .mode = USER_LEGACY,
	  .values = { RAX_IS("base", GUEST_GDT), RBX_IS("limit", GDT_LIMIT) } },
	{ ROW("SGDT", "virtual-8086", NAIVE_TABLE, sgdt_16), V86,
	  .values = { RAX_IS("base", GUEST_GDT), RBX_IS("limit", GDT_LIMIT) } },
	{ ROW("SGDT", "64-bit, CR4.UMIP = 1", NAIVE_TABLE, sgdt_64), .mode = USER_64, UMIP },
	{ ROW("SGDT", "compatibility, CR4.UMIP = 1", NAIVE_TABLE, sgdt_32), .mode = USER_COMPAT, UMIP },
	{ ROW("SGDT", "32-bit, CR4.UMIP = 1", NAIVE_TABLE, sgdt_32), .mode = USER_LEGACY, UMIP },
	{ ROW("SGDT", "virtual-8086, CR4.UMIP = 1", NAIVE_TABLE, sgdt_16), V86, UMIP },

	{ ROW("SIDT", "64-bit", NAIVE_TABLE, sidt_64), .mode = USER_64,
	  .values = { RAX_IS("base", GUEST_IDT_64), RBX_IS("limit", IDT_LIMIT_64) } },
	{ ROW("SIDT", "compatibility", NAIVE_TABLE, sidt_32), .mode = USER_COMPAT,
	  .values = { RAX_IS("base", GUEST_IDT_64), RBX_IS("limit", IDT_LIMIT_64) } },
	{ ROW("SIDT", "32-bit", NAIVE_TABLE, sidt_32), .mode = USER_LEGACY,
	  .values = { RAX_IS("base", GUEST_IDT_32), RBX_IS("limit", IDT_LIMIT_32) } },
	{ ROW("SIDT", "virtual-8086", NAIVE_TABLE, sidt_16), V86,
	  .values = { RAX_IS("base", GUEST_IDT_32), RBX_IS("limit", IDT_LIMIT_32) } },
	{ ROW("SIDT", "64-bit, CR4.UMIP = 1", NAIVE_TABLE, sidt_64), .mode = USER_64, UMIP },
	{ ROW("SIDT", "compatibility, CR4.UMIP = 1", NAIVE_TABLE, sidt_32), .mode = USER_COMPAT, UMIP },
	{ ROW("SIDT", "32-bit, CR4.UMIP = 1", NAIVE_TABLE, sidt_32), .mode = USER_LEGACY, UMIP },
	{ ROW("SIDT", "virtual-8086, CR4.UMIP = 1", NAIVE_TABLE, sidt_16), V86, UMIP },

	{ ROW("SLDT", "64-bit", NAIVE_LDT, sldt), .mode = USER_64, .values = { RAX_IS("selector", GUEST_LDT) } },
	{ ROW("SLDT", "compatibility", NAIVE_LDT, sldt), .mode = USER_COMPAT, .values = { RAX_IS("selector", GUEST_LDT) } },
	{ ROW("SLDT", "32-bit", NAIVE_LDT, sldt), .mode = USER_LEGACY, .values = { RAX_IS("selector", GUEST_LDT) } },
	{ ROW("SLDT", "virtual-8086", NAIVE_LDT, sldt_16), V86, .vector = EXC_UD },
	{ ROW("SLDT", "64-bit, CR4.UMIP = 1", NAIVE_LDT, sldt), .mode = USER_64, UMIP },
	{ ROW("SLDT", "32-bit, CR4.UMIP = 1", NAIVE_LDT, sldt), .mode = USER_LEGACY, UMIP },

	{ ROW("STR", "64-bit", NAIVE_TASK, str), .mode = USER_64, .values = { RAX_IS("selector", TSS_64) } },
	{ ROW("STR", "compatibility", NAIVE_TASK, str), .mode = USER_COMPAT, .values = { RAX_IS("selector", TSS_64) } },
	{ ROW("STR", "32-bit", NAIVE_TASK, str), .mode = USER_LEGACY, .values = { RAX_IS("selector", TSS_32) } },
	{ ROW("STR", "virtual-8086", NAIVE_TASK, str_16), V86, .vector = EXC_UD },
	{ ROW("STR", "64-bit, CR4.UMIP = 1", NAIVE_TASK, str), .mode = USER_64, UMIP },
	{ ROW("STR", "32-bit, CR4.UMIP = 1", NAIVE_TASK, str), .mode = USER_LEGACY, UMIP },

	{ ROW("SMSW", "64-bit", NAIVE_CR0, smsw), .mode = USER_64, .values = { RAX_IS("CR0", CR0_PAGING) } },
	{ ROW("SMSW", "compatibility", NAIVE_CR0, smsw), .mode = USER_COMPAT, .values = { RAX_IS("CR0", CR0_PAGING) } },
	{ ROW("SMSW", "32-bit", NAIVE_CR0, smsw), .mode = USER_LEGACY, .values = { RAX_IS("CR0", GUEST_MSW) } },
	{ ROW("SMSW", "virtual-8086", NAIVE_CR0, smsw_16), V86, .values = { RAX_IS("CR0", GUEST_MSW) } },
	{ ROW("SMSW", "64-bit, CR4.UMIP = 1", NAIVE_CR0, smsw), .mode = USER_64, UMIP },
	{ ROW("SMSW", "32-bit, CR4.UMIP = 1", NAIVE_CR0, smsw), .mode = USER_LEGACY, UMIP },
	{ ROW("SMSW", "virtual-8086, CR4.UMIP = 1", NAIVE_CR0, smsw_16), V86, UMIP },

#define PUSHF_SHOWS(if_, iopl) .flags = (if_) | IOPL(iopl), .values = { PUSHED("IF", FLAG_IF, if_), PUSHED("IOPL", FLAG_IOPL, IOPL(iopl)) }
	{ ROW("PUSHF", "64-bit, masked, IOPL 1", NAIVE_PUSHF, pushf_64), .mode = USER_64, PUSHF_SHOWS(0, 1) },
	{ ROW("PUSHF", "64-bit, not masked, IOPL 0", NAIVE_PUSHF, pushf_64), .mode = USER_64, PUSHF_SHOWS(FLAG_IF, 0) },
	{ ROW("PUSHF", "compatibility, masked, IOPL 3", NAIVE_PUSHF, pushf_32), .mode = USER_COMPAT, PUSHF_SHOWS(0, 3) },
	{ ROW("PUSHF", "32-bit, masked, IOPL 2", NAIVE_PUSHF, pushf_32), .mode = USER_LEGACY, PUSHF_SHOWS(0, 2) },
	{ ROW("PUSHF", "kernel, 64-bit, masked", NAIVE_PUSHF, pushf_64), .mode = KERNEL_64, PUSHF_SHOWS(0, 0) },
	{ ROW("PUSHF", "kernel, 32-bit, masked", NAIVE_PUSHF, pushf_32), .mode = KERNEL_LEGACY, PUSHF_SHOWS(0, 0) },
	{ ROW("PUSHF", "virtual-8086, IOPL 3", NAIVE_PUSHF, pushf_16), .mode = VIRTUAL_8086, PUSHF_SHOWS(0, 3) },
	{ ROW("PUSHF", "virtual-8086, IOPL 0", NAIVE_PUSHF, pushf_16), .mode = VIRTUAL_8086, .vector = EXC_GP },

	/* IF is VIF there. */
	{ ROW("PUSHF", "virtual-8086, IOPL 0, CR4.VME = 1", NAIVE_PUSHF, pushf_vme), VME, .flags = FLAG_VIF,
	  .values = { PUSHED("IF", FLAG_IF, FLAG_IF), PUSHED("IOPL", FLAG_IOPL, IOPL(3)) } },

/* From IF to the argument's, and what becomes of it. */
#define IF_FROM(before, iopl) .flags = (before) | IOPL(iopl)
#define BECOMES(after, iopl) .values = { FLAGS_ARE("IF", FLAG_IF, after), FLAGS_ARE("IOPL", FLAG_IOPL, IOPL(iopl)) }
	{ ROW("POPF", "64-bit, IOPL 0: nothing changes", NAIVE_POPF, popf_64), .mode = USER_64, IF_FROM(FLAG_IF, 0),
	  .argument = IOPL(3), BECOMES(FLAG_IF, 0) },
	{ ROW("POPF", "64-bit, IOPL 3: clears IF", NAIVE_POPF, popf_64), .mode = USER_64, IF_FROM(FLAG_IF, 3),
	  .argument = IOPL(0), BECOMES(0, 3) },
	{ ROW("POPF", "32-bit, IOPL 0: nothing changes", NAIVE_POPF, popf_32), .mode = USER_LEGACY, IF_FROM(0, 0),
	  .argument = IOPL(3) | FLAG_IF, BECOMES(0, 0) },
	{ ROW("POPF", "32-bit, IOPL 3: sets IF", NAIVE_POPF, popf_32), .mode = USER_LEGACY, IF_FROM(0, 3),
	  .argument = FLAG_IF, BECOMES(FLAG_IF, 3) },
	{ ROW("POPF", "kernel, 64-bit: sets IF, IOPL", NAIVE_POPF, popf_64), .mode = KERNEL_64, IF_FROM(0, 0),
	  .argument = FLAG_IF | IOPL(2), BECOMES(FLAG_IF, 2) },
	{ ROW("POPF", "kernel, 64-bit: clears IF", NAIVE_POPF, popf_64), .mode = KERNEL_64, IF_FROM(FLAG_IF, 0),
	  .argument = 0, BECOMES(0, 0) },
	{ ROW("POPF", "kernel, 32-bit: sets IF, IOPL", NAIVE_POPF, popf_32), .mode = KERNEL_LEGACY, IF_FROM(0, 0),
	  .argument = FLAG_IF | IOPL(1), BECOMES(FLAG_IF, 1) },
	{ ROW("POPF", "virtual-8086, IOPL 3: sets IF", NAIVE_POPF, popf_16), .mode = VIRTUAL_8086, IF_FROM(0, 3),
	  .argument = FLAG_IF, BECOMES(FLAG_IF, 3) },
	{ ROW("POPF", "virtual-8086, IOPL 0", NAIVE_POPF, popf_16), .mode = VIRTUAL_8086, IF_FROM(0, 0), .vector = EXC_GP },
	{ ROW("CLI", "64-bit, IOPL 3", NAIVE_CLI, cli), .mode = USER_64, IF_FROM(FLAG_IF, 3), BECOMES(0, 3) },
	{ ROW("CLI", "64-bit, IOPL 0", NAIVE_CLI, cli), .mode = USER_64, IF_FROM(FLAG_IF, 0), .vector = EXC_GP },
	{ ROW("STI", "32-bit, IOPL 3", NAIVE_CLI, sti), .mode = USER_LEGACY, IF_FROM(0, 3), BECOMES(FLAG_IF, 3) },
	{ ROW("CLI", "virtual-8086, IOPL 0, CR4.VME = 1", NAIVE_CLI, cli_vme), VME, .flags = FLAG_VIF,
	  .values = { FLAGS_ARE("VIF", FLAG_VIF, 0) } },
	{ ROW("STI", "virtual-8086, IOPL 0, CR4.VME = 1", NAIVE_CLI, sti_vme), VME, .values = { FLAGS_ARE("VIF", FLAG_VIF, FLAG_VIF) } },
	{ ROW("IRET", "64-bit, IOPL 0: IF stays", NAIVE_IRET, iret_64), .mode = USER_64, IF_FROM(FLAG_IF, 0),
	  .argument = IOPL(3), BECOMES(FLAG_IF, 0) },
	{ ROW("IRET", "32-bit, IOPL 0: IF stays", NAIVE_IRET, iret_32), .mode = USER_LEGACY, IF_FROM(0, 0),
	  .argument = FLAG_IF, BECOMES(0, 0) },
	{ ROW("IRET", "kernel, 64-bit: sets IF, IOPL", NAIVE_IRET, iret_64), .mode = KERNEL_64, IF_FROM(0, 0),
	  .argument = FLAG_IF | IOPL(1), BECOMES(FLAG_IF, 1) },
	{ ROW("IRET", "kernel, 32-bit: sets IF, IOPL", NAIVE_IRET, iret_32), .mode = KERNEL_LEGACY, IF_FROM(0, 0),
	  .argument = FLAG_IF | IOPL(2), BECOMES(FLAG_IF, 2) },
	{ ROW("IRET", "virtual-8086, IOPL 0", NAIVE_IRET, iret_16), .mode = VIRTUAL_8086, IF_FROM(0, 0), .vector = EXC_GP },

#define FOUND(name, value) .values = { RAX_IS("ZF", 1), RBX_IS(name, value) }
#define IS_ZF(n) .values = { RAX_IS("ZF", n) }
	{ ROW("LAR", "64-bit, the guest's segment", NAIVE_LOOKUP, lar), .mode = USER_64, .argument = MARK_DS, FOUND("rights", MARK_RIGHTS) },
	{ ROW("LAR", "32-bit, the guest's segment", NAIVE_LOOKUP, lar), .mode = USER_LEGACY, .argument = MARK_DS, FOUND("rights", MARK_RIGHTS) },
	{ ROW("LAR", "64-bit, one of ring 0", NAIVE_LOOKUP, lar), .mode = USER_64, .argument = KERNEL_DS, IS_ZF(0) },
	{ ROW("LAR", "kernel, 64-bit, one of ring 0", NAIVE_LOOKUP, lar), .mode = KERNEL_64, .argument = KERNEL_DS, FOUND("rights", 0xcf9300) },
	{ ROW("LAR", "virtual-8086", NAIVE_LOOKUP, lar_16), V86, .vector = EXC_UD },
	{ ROW("LSL", "64-bit, the guest's segment", NAIVE_LOOKUP, lsl), .mode = USER_64, .argument = MARK_DS, FOUND("limit", MARK_LIMIT) },
	{ ROW("LSL", "compatibility, the guest's segment", NAIVE_LOOKUP, lsl), .mode = USER_COMPAT, .argument = MARK_DS, FOUND("limit", MARK_LIMIT) },
	{ ROW("LSL", "32-bit, the guest's segment", NAIVE_LOOKUP, lsl), .mode = USER_LEGACY, .argument = MARK_DS, FOUND("limit", MARK_LIMIT) },
	{ ROW("LSL", "64-bit, one of ring 0", NAIVE_LOOKUP, lsl), .mode = USER_64, .argument = KERNEL_DS, IS_ZF(0) },
	{ ROW("LSL", "virtual-8086", NAIVE_LOOKUP, lsl_16), V86, .vector = EXC_UD },
	{ ROW("VERR", "64-bit, readable", NAIVE_LOOKUP, verr), .mode = USER_64, .argument = READ_DS, IS_ZF(1) },
	{ ROW("VERR", "32-bit, execute-only", NAIVE_LOOKUP, verr), .mode = USER_LEGACY, .argument = EXECUTE_CS, IS_ZF(0) },
	{ ROW("VERR", "64-bit, one of ring 0", NAIVE_LOOKUP, verr), .mode = USER_64, .argument = KERNEL_DS, IS_ZF(0) },
	{ ROW("VERR", "kernel, 32-bit, one of ring 0", NAIVE_LOOKUP, verr), .mode = KERNEL_LEGACY, .argument = KERNEL_DS, IS_ZF(1) },
	{ ROW("VERR", "virtual-8086", NAIVE_LOOKUP, verr_16), V86, .vector = EXC_UD },
	{ ROW("VERW", "64-bit, writable", NAIVE_LOOKUP, verw), .mode = USER_64, .argument = MARK_DS, IS_ZF(1) },
	{ ROW("VERW", "32-bit, read-only", NAIVE_LOOKUP, verw), .mode = USER_LEGACY, .argument = READ_DS, IS_ZF(0) },
	{ ROW("VERW", "64-bit, one of ring 0", NAIVE_LOOKUP, verw), .mode = USER_64, .argument = KERNEL_DS, IS_ZF(0) },
	{ ROW("VERW", "virtual-8086", NAIVE_LOOKUP, verw_16), V86, .vector = EXC_UD },

#define CS_SS(cs, ss) .values = { RAX_IS("CS", cs), RBX_IS("SS", ss) }
	{ ROW("MOV from seg", "64-bit", NAIVE_READ, from_segments), .mode = USER_64, CS_SS(USER_CS64, USER_DS) },
	{ ROW("MOV from seg", "compatibility", NAIVE_READ, from_segments), .mode = USER_COMPAT, CS_SS(USER_CS32, USER_DS) },
	{ ROW("MOV from seg", "32-bit", NAIVE_READ, from_segments), .mode = USER_LEGACY, CS_SS(USER_CS32, USER_DS) },
	{ ROW("MOV from seg", "kernel, 64-bit", NAIVE_READ, from_segments), .mode = KERNEL_64, CS_SS(KERNEL_CS64, KERNEL_DS) },
	{ ROW("MOV from seg", "kernel, 32-bit", NAIVE_READ, from_segments), .mode = KERNEL_LEGACY, CS_SS(KERNEL_CS32, KERNEL_DS) },
	{ ROW("PUSH seg", "64-bit", NAIVE_READ, push_64), .mode = USER_64, .values = { RAX_IS("FS", USER_DS) } },
	{ ROW("PUSH seg", "32-bit", NAIVE_READ, push_32), .mode = USER_LEGACY, CS_SS(USER_CS32, USER_DS) },
	{ ROW("PUSH seg", "kernel, 32-bit", NAIVE_READ, push_32), .mode = KERNEL_LEGACY, CS_SS(KERNEL_CS32, KERNEL_DS) },
	{ ROW("PUSH seg", "virtual-8086", NAIVE_READ, push_16), V86,
	  .values = { { FIELD_RAX, "CS", CS_86, 0xffff }, { FIELD_RBX, "SS", SS_86, 0xffff } } },

#define LOADED .argument = MARK_DS, .values = { RAX_IS("word there", MARK_WORD), RBX_IS("FS", MARK_DS) }
	{ ROW("MOV to seg", "64-bit, the guest's segment", NAIVE_LOAD, to_fs_64), .mode = USER_64, LOADED },
	{ ROW("MOV to seg", "compatibility, the guest's segment", NAIVE_LOAD, to_fs), .mode = USER_COMPAT, LOADED },
	{ ROW("MOV to seg", "32-bit, the guest's segment", NAIVE_LOAD, to_fs), .mode = USER_LEGACY, LOADED },
	{ ROW("MOV to seg", "32-bit, beyond its limit", NAIVE_LOAD, beyond_limit), .mode = USER_LEGACY, .argument = MARK_DS, .vector = EXC_GP },
	{ ROW("MOV to seg", "virtual-8086", NAIVE_LOAD, to_fs_16), V86, .argument = MARK_86,
	  .values = { RAX_IS("word there", MARK_WORD), RBX_IS("FS", MARK_86) } },
	{ ROW("MOV to seg", "64-bit, one of ring 0", NAIVE_LOAD, to_fs_64), .mode = USER_64, .argument = KERNEL_DS, .vector = EXC_GP, .error = KERNEL_DS },
	{ ROW("MOV to seg", "32-bit, one of ring 0", NAIVE_LOAD, to_fs), .mode = USER_LEGACY, .argument = KERNEL_DS, .vector = EXC_GP, .error = KERNEL_DS },
	{ ROW("MOV to seg", "64-bit, SS of ring 0", NAIVE_LOAD, to_ss), .mode = USER_64, .argument = KERNEL_DS, .vector = EXC_GP, .error = KERNEL_DS },
	{ ROW("MOV to seg", "kernel, 64-bit, SS of ring 0", NAIVE_LOAD, to_ss), .mode = KERNEL_64, .argument = KERNEL_DS, .values = { RAX_IS("SS", KERNEL_DS) } },
	{ ROW("MOV to seg", "64-bit, table changed after", NAIVE_HIDDEN, hidden_64), .mode = USER_64, .argument = MARK_DS,
	  .values = { RAX_IS("word there", MARK_WORD) } },
	{ ROW("MOV to seg", "32-bit, table changed after", NAIVE_HIDDEN, hidden_32), .mode = USER_LEGACY, .argument = MARK_DS,
	  .values = { RAX_IS("word there", MARK_WORD) } },
	{ ROW("POP seg", "64-bit, the guest's segment", NAIVE_LOAD, pop_fs_64), .mode = USER_64, LOADED },
	{ ROW("POP seg", "32-bit, the guest's segment", NAIVE_LOAD, pop_fs_32), .mode = USER_LEGACY, LOADED },
	{ ROW("POP seg", "32-bit, one of ring 0", NAIVE_LOAD, pop_ds_32), .mode = USER_LEGACY, .argument = KERNEL_DS, .vector = EXC_GP, .error = KERNEL_DS },
	{ ROW("LFS", "64-bit, the guest's segment", NAIVE_LOAD, lfs_64), .mode = USER_64, LOADED },
	{ ROW("LFS", "32-bit, the guest's segment", NAIVE_LOAD, lfs_32), .mode = USER_LEGACY, LOADED },

#define BY_GATE(gate, cs) .argument = gate, .vector = CAME_BY_GATE, .values = { CS_IS(cs) }
#define REFUSED(selector) .argument = selector, .vector = EXC_GP, .error = (selector) & ~3
	{ ROW("CALL far", "64-bit, the guest's gate", NAIVE_FAR, call_64), .mode = USER_64, BY_GATE(GATE_64, USER_CS64) },
	{ ROW("CALL far", "compatibility, the guest's gate", NAIVE_FAR, call_32), .mode = USER_COMPAT, BY_GATE(GATE_64, USER_CS32) },
	{ ROW("CALL far", "32-bit, the guest's gate", NAIVE_FAR, call_32), .mode = USER_LEGACY, BY_GATE(GATE_32, USER_CS32) },
	{ ROW("CALL far", "64-bit, a segment of ring 0", NAIVE_FAR, call_64), .mode = USER_64, REFUSED(KERNEL_CS64) },
	{ ROW("JMP far", "64-bit, the guest's segment", NAIVE_FAR, jmp_64), .mode = USER_64, .argument = OTHER_CS64, .values = { RAX_IS("CS", OTHER_CS64) } },
	{ ROW("JMP far", "32-bit, the guest's segment", NAIVE_FAR, jmp_32), .mode = USER_LEGACY, .argument = OTHER_CS32, .values = { RAX_IS("CS", OTHER_CS32) } },
	{ ROW("JMP far", "32-bit, a segment of ring 0", NAIVE_FAR, jmp_32), .mode = USER_LEGACY, REFUSED(KERNEL_CS32) },
	{ ROW("RET far", "64-bit, the guest's segment", NAIVE_RET, ret_64), .mode = USER_64, .argument = OTHER_CS64, .values = { RAX_IS("CS", OTHER_CS64) } },
	{ ROW("RET far", "32-bit, the guest's segment", NAIVE_RET, ret_32), .mode = USER_LEGACY, .argument = OTHER_CS32, .values = { RAX_IS("CS", OTHER_CS32) } },
	{ ROW("RET far", "64-bit, to ring 0", NAIVE_RET, ret_64), .mode = USER_64, REFUSED(KERNEL_CS64) },
	{ ROW("RET far", "kernel, 64-bit, in ring 0", NAIVE_RET, ret_64), .mode = KERNEL_64, .argument = KERNEL_CS64, .values = { RAX_IS("CS", KERNEL_CS64) } },

#define FROM(cs) .values = { CS_IS(cs) }
	{ ROW("INT n", "64-bit, a gate for ring 3", NAIVE_INT, int_user), .mode = USER_64, .vector = VECTOR_USER, FROM(USER_CS64) },
	{ ROW("INT n", "64-bit, one for ring 0", NAIVE_INT, int_kernel), .mode = USER_64, .vector = EXC_GP, .error = GATE_ERROR },
	{ ROW("INT n", "32-bit, a gate for ring 3", NAIVE_INT, int_user), .mode = USER_LEGACY, .vector = VECTOR_USER, FROM(USER_CS32) },
	{ ROW("INT n", "32-bit, one for ring 0", NAIVE_INT, int_kernel), .mode = USER_LEGACY, .vector = EXC_GP, .error = GATE_ERROR },
	{ ROW("INT n", "kernel, 64-bit, one for ring 0", NAIVE_INT, int_kernel), .mode = KERNEL_64, .vector = VECTOR_KERN, FROM(KERNEL_CS64) },
	{ ROW("INT n", "virtual-8086, IOPL 3", NAIVE_INT, int_user), V86, .vector = VECTOR_USER, FROM(CS_86) },
	{ ROW("INT n", "virtual-8086, IOPL 0", NAIVE_INT, int_user), .mode = VIRTUAL_8086, .vector = EXC_GP },
	{ ROW("INT3", "64-bit", NAIVE_INT, int3), .mode = USER_64, .vector = EXC_BP, FROM(USER_CS64) },
	{ ROW("INTO", "32-bit", NAIVE_INT, into), .mode = USER_LEGACY, .vector = EXC_OF, FROM(USER_CS32) },
	{ ROW("SYSCALL", "64-bit", NAIVE_ENTRY, syscall), .mode = USER_64, .vector = CAME_BY_CALL, FROM(KERNEL_CS64) },
	{ ROW("SYSENTER", "32-bit", NAIVE_ENTRY, sysenter), .mode = USER_LEGACY, .vector = CAME_BY_CALL, FROM(KERNEL_CS32) },

	{ ROW("CPUID", "64-bit, CR4.OSXSAVE = 0", NAIVE_CPUID, cpuid_osxsave), .mode = USER_64, .values = { RAX_IS("OSXSAVE", 0) } },
	{ ROW("CPUID", "64-bit, CR4.OSXSAVE = 1", NAIVE_CPUID, cpuid_osxsave), .mode = USER_64, .feature = FEATURE_XSAVE, .cr4 = CR4_OSXSAVE,
	  .values = { RAX_IS("OSXSAVE", 1) } },
	{ ROW("CPUID", "32-bit", NAIVE_CPUID, cpuid_apic_id), .mode = USER_LEGACY, .values = { RAX_IS("APIC ID", 0) } },
	{ ROW("CPUID", "64-bit, nothing announced", NAIVE_CPUID, cpuid_hypervisor), .mode = USER_64, .values = { RAX_IS("hypervisor", 0) } },
	{ ROW("RDTSC", "64-bit", NAIVE_TIME, rdtsc), .mode = USER_64, .values = { RAX_IS("TSC >> 40", GUEST_TSC) } },
	{ ROW("RDTSC", "32-bit", NAIVE_TIME, rdtsc), .mode = USER_LEGACY, .values = { RAX_IS("TSC >> 40", GUEST_TSC) } },
	{ ROW("RDTSC", "64-bit, CR4.TSD = 1", NAIVE_TIME, rdtsc), .mode = USER_64, .cr4 = CR4_TSD, .vector = EXC_GP },
	{ ROW("RDTSC", "virtual-8086, CR4.TSD = 1", NAIVE_TIME, rdtsc), V86, .cr4 = CR4_TSD, .vector = EXC_GP },
	{ ROW("RDTSCP", "64-bit", NAIVE_AUX, rdtscp), .mode = USER_64, .feature = FEATURE_RDTSCP,
	  .values = { RAX_IS("TSC >> 40", GUEST_TSC), RBX_IS("TSC_AUX", GUEST_TSC_AUX) } },
	{ ROW("RDPID", "64-bit", NAIVE_AUX, rdpid), .mode = USER_64, .feature = FEATURE_RDPID, .values = { RAX_IS("TSC_AUX", GUEST_TSC_AUX) } },
	{ ROW("RDPMC", "64-bit, CR4.PCE = 0", NAIVE_COUNTERS, rdpmc), .mode = USER_64, .vector = EXC_GP },
	{ ROW("XGETBV", "64-bit, CR4.OSXSAVE = 0", NAIVE_XCR0, xgetbv), .mode = USER_64, .vector = EXC_UD },
	{ ROW("XGETBV", "64-bit, CR4.OSXSAVE = 1", NAIVE_XCR0, xgetbv), .mode = USER_64, .feature = FEATURE_XSAVE, .cr4 = CR4_OSXSAVE,
	  .values = { RAX_IS("XCR0", XCR0_X87) } },
	{ ROW("RDFSBASE", "64-bit, CR4.FSGSBASE = 0", NAIVE_BASES, rdfsbase), .mode = USER_64, .vector = EXC_UD },
	{ ROW("RDFSBASE", "64-bit, CR4.FSGSBASE = 1", NAIVE_BASES, rdfsbase), .mode = USER_64, .feature = FEATURE_FSGSBASE, .cr4 = CR4_FSGSBASE,
	  .values = { RAX_IS("FS base", GUEST_FS_BASE), RBX_IS("GS base", GUEST_GS_BASE) } },
	{ ROW("WRFSBASE", "64-bit, CR4.FSGSBASE = 0", NAIVE_BASES, wrfsbase), .mode = USER_64, .argument = GUEST_MARK, .vector = EXC_UD },
	{ ROW("WRFSBASE", "64-bit, CR4.FSGSBASE = 1", NAIVE_BASES, wrfsbase), .mode = USER_64, .feature = FEATURE_FSGSBASE, .cr4 = CR4_FSGSBASE,
	  .argument = GUEST_MARK, .values = { RAX_IS("word at FS", MARK_WORD), RBX_IS("word at GS", MARK_WORD) } },
	{ ROW("RDPKRU", "64-bit, CR4.PKE = 0", NAIVE_BASES, rdpkru), .mode = USER_64, .vector = EXC_UD },
	{ ROW("VMCALL", "64-bit", NAIVE_CALL, vmcall), .mode = USER_64, .vector = EXC_UD },
	{ ROW("VMMCALL", "64-bit", NAIVE_CALL, vmmcall), .mode = USER_64, .vector = EXC_UD },

	{ ROW("MOV", "64-bit, the kernel's memory", NAIVE_RINGS, read_kernel), .mode = USER_64, .vector = EXC_PF, .error = PF_P | PF_U },
	{ ROW("MOV", "compatibility, the kernel's memory", NAIVE_RINGS, read_kernel), .mode = USER_COMPAT, .vector = EXC_PF, .error = PF_P | PF_U },
	{ ROW("MOV", "kernel, 64-bit, its memory", NAIVE_RINGS, read_kernel), .mode = KERNEL_64, .values = { RAX_IS("word there", MARK_WORD) } },
	{ ROW("MOV", "64-bit, all of the address space", NAIVE_SPACE, everywhere), .mode = USER_64, .values = { RAX_IS("parts there", 512) } },
};
/* clang-format on */

const unsigned audit_check_count = ARRAY_SIZE(audit_checks);
_Static_assert(ARRAY_SIZE(audit_checks) <= AUDIT_MAX_CHECKS, "room for records");
