/*
 * Registers as GDB has them: features of its i386 target descriptions (GDB's manual, G.5.6), whose names and order are fixed, and one of doppel's own for what only
 * a kernel sees. A register of the 32-bit view is the lower part of the other's.
 */
#include "gdb/private.h"

enum kind {
	GPR, /* number */
	RIP,
	EFLAGS,
	SELECTOR, /* enum seg */
	BASE,	  /* enum seg */
	FIELD64,  /* offset in cpu_state */
	FIELD32,
	FIELD16, /* in 32 bits */
	ST,	 /* number */
	XMM,	 /* number */
	YMMH,	 /* number: its upper half */
};

enum group { CORE, SSE, SEGMENTS, SYSTEM, AVX, GROUP_COUNT };
static const char *const feature_names[GROUP_COUNT] = {
	[CORE] = "org.gnu.gdb.i386.core",    [SSE] = "org.gnu.gdb.i386.sse", [SEGMENTS] = "org.gnu.gdb.i386.segments",
	[SYSTEM] = "org.doppel.i386.system", [AVX] = "org.gnu.gdb.i386.avx",
};

struct gdb_register {
	const char *name, *type, *group; /* group: NULL: GDB's own choice */
	uint8_t bits, feature, kind;
	uint16_t argument;
};

#define STATE(field) (uint16_t) offsetof(struct cpu_state, field)
#define FLOATS(_, n) _("st" #n, "i387_ext", "float", 80, CORE, ST, n)
#define FLOAT_CONTROL(_)                                                                                               \
	_("fctrl", "int", "float", 32, CORE, FIELD16, STATE(fcw))                                                      \
	_("fstat", "int", "float", 32, CORE, FIELD16, STATE(fsw))                                                      \
	_("ftag", "int", "float", 32, CORE, FIELD16, STATE(ftw))                                                       \
	_("fiseg", "int", "float", 32, CORE, FIELD16, STATE(fcs))                                                      \
	_("fioff", "int", "float", 32, CORE, FIELD32, STATE(fip))                                                      \
	_("foseg", "int", "float", 32, CORE, FIELD16, STATE(fds))                                                      \
	_("fooff", "int", "float", 32, CORE, FIELD32, STATE(fdp))                                                      \
	_("fop", "int", "float", 32, CORE, FIELD16, STATE(fop))
#define SELECTORS(_)                                                                                                   \
	_("cs", "int32", NULL, 32, CORE, SELECTOR, CS)                                                                 \
	_("ss", "int32", NULL, 32, CORE, SELECTOR, SS)                                                                 \
	_("ds", "int32", NULL, 32, CORE, SELECTOR, DS)                                                                 \
	_("es", "int32", NULL, 32, CORE, SELECTOR, ES)                                                                 \
	_("fs", "int32", NULL, 32, CORE, SELECTOR, FS)                                                                 \
	_("gs", "int32", NULL, 32, CORE, SELECTOR, GS)
#define X87(_)                                                                                                         \
	FLOATS(_, 0)                                                                                                   \
	FLOATS(_, 1) FLOATS(_, 2) FLOATS(_, 3) FLOATS(_, 4) FLOATS(_, 5) FLOATS(_, 6) FLOATS(_, 7) FLOAT_CONTROL(_)
#define VECTOR(_, n)		      _("xmm" #n, "vec128", NULL, 128, SSE, XMM, n)
#define UPPER(_, n)		      _("ymm" #n "h", "uint128", NULL, 128, AVX, YMMH, n)
#define LOWER_EIGHT(_, x)	      x(_, 0) x(_, 1) x(_, 2) x(_, 3) x(_, 4) x(_, 5) x(_, 6) x(_, 7)
#define UPPER_EIGHT(_, x)	      x(_, 8) x(_, 9) x(_, 10) x(_, 11) x(_, 12) x(_, 13) x(_, 14) x(_, 15)
#define MXCSR(_)		      _("mxcsr", "int", "vector", 32, SSE, FIELD32, STATE(mxcsr))
#define GENERAL(_, name, n)	      _(name, "int64", NULL, 64, CORE, GPR, n)
#define GENERAL32(_, name, n)	      _(name, "int32", NULL, 32, CORE, GPR, n)
#define CONTROL(_, bits, name, field) _(name, "int" #bits, "system", bits, SYSTEM, FIELD##bits, STATE(field))

/* Rows: name, type, group, bits, feature, kind, its argument. */
/* clang-format off */
#define REGISTERS_X86_64(_)                                                                                            \
	GENERAL(_, "rax", RAX) GENERAL(_, "rbx", RBX) GENERAL(_, "rcx", RCX) GENERAL(_, "rdx", RDX)                    \
	GENERAL(_, "rsi", RSI) GENERAL(_, "rdi", RDI)                                                                  \
	_("rbp", "data_ptr", NULL, 64, CORE, GPR, RBP) _("rsp", "data_ptr", NULL, 64, CORE, GPR, RSP)                  \
	GENERAL(_, "r8", R8) GENERAL(_, "r9", R9) GENERAL(_, "r10", R10) GENERAL(_, "r11", R11)                        \
	GENERAL(_, "r12", R12) GENERAL(_, "r13", R13) GENERAL(_, "r14", R14) GENERAL(_, "r15", R15)                    \
	_("rip", "code_ptr", NULL, 64, CORE, RIP, 0) _("eflags", "i386_eflags", NULL, 32, CORE, EFLAGS, 0)             \
	SELECTORS(_) X87(_)                                                                                            \
	LOWER_EIGHT(_, VECTOR) UPPER_EIGHT(_, VECTOR) MXCSR(_)                                                         \
	_("fs_base", "int64", NULL, 64, SEGMENTS, BASE, FS) _("gs_base", "int64", NULL, 64, SEGMENTS, BASE, GS)        \
	CONTROL(_, 64, "k_gs_base", msr_kernel_gs_base) CONTROL(_, 64, "cr0", cr0) CONTROL(_, 64, "cr2", cr2)          \
	CONTROL(_, 64, "cr3", cr3) CONTROL(_, 64, "cr4", cr4) CONTROL(_, 64, "efer", efer)                             \
	LOWER_EIGHT(_, UPPER) UPPER_EIGHT(_, UPPER)
#define REGISTERS_I386(_)                                                                                              \
	GENERAL32(_, "eax", RAX) GENERAL32(_, "ecx", RCX) GENERAL32(_, "edx", RDX) GENERAL32(_, "ebx", RBX)            \
	_("esp", "data_ptr", NULL, 32, CORE, GPR, RSP) _("ebp", "data_ptr", NULL, 32, CORE, GPR, RBP)                  \
	GENERAL32(_, "esi", RSI) GENERAL32(_, "edi", RDI)                                                              \
	_("eip", "code_ptr", NULL, 32, CORE, RIP, 0) _("eflags", "i386_eflags", NULL, 32, CORE, EFLAGS, 0)             \
	SELECTORS(_) X87(_)                                                                                            \
	LOWER_EIGHT(_, VECTOR) MXCSR(_)                                                                                \
	CONTROL(_, 32, "cr0", cr0) CONTROL(_, 32, "cr2", cr2) CONTROL(_, 32, "cr3", cr3) CONTROL(_, 32, "cr4", cr4)    \
	LOWER_EIGHT(_, UPPER)
/* clang-format on */

#define _(name, type, group, bits, feature, kind, argument) { name, type, group, bits, feature, kind, argument },
static const struct gdb_register registers_x86_64[] = { REGISTERS_X86_64(_) };
static const struct gdb_register registers_i386[] = { REGISTERS_I386(_) };
#undef _

static const struct {
	const struct gdb_register *registers;
	unsigned count;
	const char *architecture;
} views[VIEW_COUNT] = {
	[VIEW_X86_64] = { registers_x86_64, ARRAY_SIZE(registers_x86_64), "i386:x86-64" },
	[VIEW_I386] = { registers_i386, ARRAY_SIZE(registers_i386), "i386" },
	[VIEW_I8086] = { registers_i386, ARRAY_SIZE(registers_i386), "i8086" }, /* GDB disassembles 16 bits */
};
const char *const view_names[VIEW_COUNT] = { [VIEW_X86_64] = "x86-64", [VIEW_I386] = "i386", [VIEW_I8086] = "i8086" };

bool view_find(const char *name, enum view *view)
{
	for (*view = 0; *view < VIEW_COUNT; (*view)++)
		if (!strcmp(name, view_names[*view]))
			return true;
	return false;
}

unsigned register_count(enum view view, bool avx)
{
	unsigned count = views[view].count;

	while (!avx && views[view].registers[count - 1].feature == AVX)
		count--;
	return count;
}

unsigned register_size(enum view view, unsigned number) { return views[view].registers[number].bits / 8; }

/* The 8 bytes of state that it is, or a part of them. */
static uint64_t plain_value(const struct cpu_state *s, const struct gdb_register *r)
{
	const char *field = (const char *)s + r->argument;
	uint32_t value32;
	uint16_t value16;
	uint64_t value;

	switch (r->kind) {
	case GPR: return s->gpr[r->argument];
	case RIP: return s->rip;
	case EFLAGS: return s->rflags;
	case SELECTOR: return s->seg_sel[r->argument];
	case BASE: return s->seg_base[r->argument];
	case FIELD32: memcpy(&value32, field, sizeof(value32)); return value32;
	case FIELD16: memcpy(&value16, field, sizeof(value16)); return value16;
	default: memcpy(&value, field, sizeof(value)); return value;
	}
}

void register_read(const struct cpu_state *s, enum view view, unsigned number, uint8_t *bytes)
{
	const struct gdb_register *r = &views[view].registers[number];
	uint64_t value;

	switch (r->kind) {
	case ST:
		memcpy(bytes, &s->st_mantissa[r->argument], 8);
		memcpy(bytes + 8, &s->st_exponent[r->argument], 2);
		return;
	case XMM: memcpy(bytes, &s->vec[4 * r->argument], 16); return;
	case YMMH: memcpy(bytes, &s->vec[4 * r->argument + 2], 16); return;
	default:
		value = plain_value(s, r);
		memcpy(bytes, &value, r->bits / 8);
		return;
	}
}

static bool is_real(const struct cpu_state *s) { return !(s->cr0 & CR0_PE) || (s->rflags & FLAG_VM); }

/* What a selector means comes from tables, where there are any. */
static bool write_selector(struct cpu_state *s, unsigned seg, uint64_t value)
{
	if (!is_real(s) || value > UINT16_MAX)
		return false;
	s->seg_sel[seg] = (uint16_t)value;
	s->seg_base[seg] = value << 4;
	return true;
}

static bool write_plain(struct cpu_state *s, const struct gdb_register *r, uint64_t value)
{
	char *field = (char *)s + r->argument;

	switch (r->kind) {
	case GPR: s->gpr[r->argument] = value; return true;
	case RIP: s->rip = value; return true;
	case EFLAGS: s->rflags = value; return true;
	case SELECTOR: return write_selector(s, r->argument, value);
	case BASE: s->seg_base[r->argument] = value; return true;
	case FIELD32: memcpy(field, &value, sizeof(uint32_t)); return true;
	case FIELD16: memcpy(field, &value, sizeof(uint16_t)); return value <= UINT16_MAX;
	default: memcpy(field, &value, sizeof(value)); return true;
	}
}

bool register_write(struct cpu_state *s, enum view view, unsigned number, const uint8_t *bytes)
{
	const struct gdb_register *r = &views[view].registers[number];
	uint8_t old[REGISTER_SIZE_MOST];
	uint64_t value = 0;

	register_read(s, view, number, old);
	if (!memcmp(old, bytes, r->bits / 8))
		return true;
	switch (r->kind) {
	case ST:
		memcpy(&s->st_mantissa[r->argument], bytes, 8);
		memcpy(&s->st_exponent[r->argument], bytes + 8, 2);
		return true;
	case XMM: memcpy(&s->vec[4 * r->argument], bytes, 16); return true;
	case YMMH: memcpy(&s->vec[4 * r->argument + 2], bytes, 16); return true;
	default: memcpy(&value, bytes, r->bits / 8); return write_plain(s, r, value);
	}
}

/* ---- the description ---- */

static const char *const types[GROUP_COUNT] = {
	[CORE] = "<flags id=\"i386_eflags\" size=\"4\">"
		 "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
		 "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
		 "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
		 "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
		 "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
		 "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
		 "<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/>"
		 "<field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>"
		 "<field name=\"ID\" start=\"21\" end=\"21\"/></flags>",
	[SSE] = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" "
		"count=\"2\"/>"
		"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
		"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
		"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
		"<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
		"<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
		"<field name=\"uint128\" type=\"uint128\"/></union>",
};

static bool add(struct bytes *out, const char *text) { return bytes_add(out, text, strlen(text)); }

static bool add_register(struct bytes *out, const struct gdb_register *r)
{
	char text[160];

	snprintf(text, sizeof(text), "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"%s%s%s/>", r->name, r->bits, r->type,
		 r->group ? " group=\"" : "", r->group ? r->group : "", r->group ? "\"" : "");
	return add(out, text);
}

/* Registers are numbered as they come: so are their features. */
bool register_describe(enum view view, bool avx, struct bytes *out)
{
	unsigned count = register_count(view, avx), feature = GROUP_COUNT;
	char text[160];
	bool good;

	out->size = 0;
	snprintf(text, sizeof(text),
		 "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM "
		 "\"gdb-target.dtd\"><target><architecture>%s</architecture>",
		 views[view].architecture);
	good = add(out, text);
	for (unsigned n = 0; good && n < count; n++) {
		const struct gdb_register *r = &views[view].registers[n];

		if (r->feature != feature) {
			snprintf(text, sizeof(text), "%s<feature name=\"%s\">", n ? "</feature>" : "",
				 feature_names[r->feature]);
			feature = r->feature;
			good = add(out, text) && (!types[feature] || add(out, types[feature]));
		}
		good = good && add_register(out, r);
	}
	return good && add(out, "</feature></target>");
}
