/*
 * forms: what there is to test, found in the encoding space itself: every prefix, opcode map, opcode and ModRM.reg is decoded,
 * and what comes out is grouped by its disassembly with the operands replaced by their kinds. So nobody keeps a list.
 */
#include "cases.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

/* ---- names ---- */

static bool in_list(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += len)
		if ((p == list || p[-1] == ' ') && (p[len] == ' ' || !p[len]))
			return true;
	return false;
}

static const char *register_kind(const char *r)
{
	size_t len = strlen(r);

	if (!strncmp(r, "xmm", 3))
		return "xmm";
	if (!strncmp(r, "ymm", 3))
		return "ymm";
	if (!strncmp(r, "mm", 2))
		return "mm";
	if (!strncmp(r, "st", 2))
		return !strcmp(r, "st0") ? "st0" : "st";
	if (in_list("es cs ss ds fs gs", r))
		return "sreg";
	if (in_list("al cl dl bl ah ch dh bh spl bpl sil dil", r))
		return "r8";
	if (in_list("ax cx dx bx sp bp si di", r))
		return "r16";
	if (in_list("eax ecx edx ebx esp ebp esi edi", r))
		return "r32";
	if (in_list("rax rcx rdx rbx rsp rbp rsi rdi", r))
		return "r64";
	if (!strncmp(r, "cr", 2))
		return "cr";
	if (!strncmp(r, "dr", 2))
		return "dr";
	if (r[0] == 'r' && isdigit((unsigned char)r[1]))
		return r[len - 1] == 'b' ? "r8" : r[len - 1] == 'w' ? "r16" : r[len - 1] == 'd' ? "r32" : "r64";
	return r;
}

static const char *operand_kind(const char *text)
{
	static const char *const sizes[][2] = { { "byte ptr", "m8" },	   { "word ptr", "m16" },
						{ "dword ptr", "m32" },	   { "fword ptr", "m48" },
						{ "qword ptr", "m64" },	   { "tbyte ptr", "m80" },
						{ "xmmword ptr", "m128" }, { "ymmword ptr", "m256" },
						{ "zmmword ptr", "m512" } };

	if (strchr(text, '[')) {
		for (unsigned n = 0; n < ARRAY_SIZE(sizes); n++)
			if (!strncmp(text, sizes[n][0], strlen(sizes[n][0])))
				return sizes[n][1];
		return "m";
	}
	return isdigit((unsigned char)text[0]) || text[0] == '-' ? "i" : register_kind(text);
}

/* "lock add dword ptr [rax], 0x05" -> "lock add m32, i" */
static void form_name(enum code_mode mode, const uint8_t *bytes, size_t len, char *name, size_t size)
{
	static const char *const prefixes = "lock rep repe repne repz repnz bnd xacquire xrelease notrack data16";
	char text[160], *p = text, *word, *rest;
	size_t at = 0;

	cpu_disassemble(mode, bytes, len, CODE, text, sizeof(text));
	for (;;) {
		rest = strchr(p, ' ');
		if (rest)
			*rest++ = '\0';
		at += (size_t)snprintf(name + at, size - at, "%s%s", at ? " " : "", p);
		if (!rest || !in_list(prefixes, p))
			break;
		p = rest;
	}
	if (!rest)
		return;
	if (!strncmp(rest, "far ", 4)) {
		at += (size_t)snprintf(name + at, size - at, " far");
		rest += 4;
	}
	for (bool first = true; (word = strtok_r(rest, ",", &rest)) && at < size; first = false) {
		while (*word == ' ')
			word++;
		at += (size_t)snprintf(name + at, size - at, "%s%s", first ? " " : ", ", operand_kind(word));
	}
}

/* ---- the table ---- */

static uint64_t name_hash(const char *name)
{
	uint64_t h = 14695981039346656037ull;

	while (*name)
		h = (h ^ (uint8_t)*name++) * 1099511628211ull;
	return h;
}

static uint32_t *find_slot(const struct forms *f, const char *name)
{
	for (uint64_t n = name_hash(name);; n++) {
		uint32_t *slot = &f->index[n & (FORMS_INDEX - 1)];

		if (!*slot || !strcmp(f->form[*slot - 1].name, name))
			return slot;
	}
}

struct insn_form *forms_of(struct forms *f, const uint8_t *bytes, size_t len)
{
	char name[sizeof(f->form->name)];
	uint32_t *slot;

	form_name(f->mode, bytes, len, name, sizeof(name));
	slot = find_slot(f, name);
	return *slot ? &f->form[*slot - 1] : NULL;
}

/* A doubled array: room for one more. */
static void *room(void *array, unsigned count, size_t size)
{
	return count & (count - 1) ? array : realloc(array, (count ? 2 * count : 1) * size);
}

static struct insn_form *add_form(struct forms *f, const char *name)
{
	uint32_t *slot = find_slot(f, name);
	struct insn_form *forms;

	if (*slot)
		return &f->form[*slot - 1];
	forms = f->count < FORMS_INDEX / 2 ? room(f->form, f->count, sizeof(*forms)) : NULL;
	if (!forms)
		return NULL;
	f->form = forms;
	forms[f->count] = (struct insn_form){ 0 };
	snprintf(forms[f->count].name, sizeof(forms->name), "%s", name);
	*slot = ++f->count;
	return &forms[f->count - 1];
}

static int add_encoding(struct insn_form *form, const struct encoding *e)
{
	struct encoding *more = room(form->encodings, form->encoding_count, sizeof(*e));

	if (!more)
		return -ENOMEM;
	form->encodings = more;
	more[form->encoding_count++] = *e;
	return 0;
}

/* ---- what is not executed, and why ---- */

static const char *reason_of(enum op op)
{
	switch (op) {
	case OP_INT1: return "its #DB is what the host's kernel and hypervisor make of it";
	case OP_SYSCALL:
	case OP_SYSENTER: return "calls the host's kernel";
	case OP_CPUID:
	case OP_RDPID:
	case OP_XGETBV: return "what it reads belongs to the model, not to the host: tests/unit";
	case OP_RDTSC:
	case OP_RDTSCP:
	case OP_RDRAND:
	case OP_RDSEED: return "not deterministic: tests/unit";
	case OP_SGDT:
	case OP_SIDT:
	case OP_SLDT:
	case OP_STR:
	case OP_SMSW: return "the host's kernel emulates it (UMIP)";
	case OP_VMCALL:
	case OP_VMMCALL: return "calls the host's hypervisor";
	default: return NULL;
	}
}

/* Not offered, but the host may have it. */
static const char *dangerous(const char *name)
{
	return !strncmp(name, "wrpkru", 6) ? "would lock the oracle out of its memory" : NULL;
}

/* ---- the search ---- */

struct search {
	struct forms *forms;
	const struct cpu_model *model;
	struct encoding e;
	int status;
};

static const struct encoding_fields plain = { .index = BASE_NONE, .rm = 1, .vvvv = 0 };

static unsigned decode(struct search *s, const struct encoding *e, const struct encoding_fields *f, uint8_t bytes[32],
		       struct insn *i)
{
	memset(bytes, 0, 32);
	encode(s->forms->mode, e, f, bytes);
	s->forms->decoded++;
	return cpu_decode(s->model, s->forms->mode, bytes, 15, 0, i, NULL);
}

/* Gathers want three different registers, and an SIB byte, which 16-bit addresses have none of. */
static void fields_of_vex(const struct search *s, const struct encoding *e, struct encoding_fields *f)
{
	f->index = e->vex && e->memory ? 7 : BASE_NONE;
	f->address_size = e->vex && e->memory && s->forms->mode == MODE_16;
}

/* VEX.vvvv must be 1111 where it is not an operand. */
static bool takes_vvvv(struct search *s)
{
	struct encoding e = s->e;
	struct encoding_fields f = plain;
	uint8_t bytes[32];
	struct insn i;

	e.vvvv_used = true;
	f.vvvv = 5;
	f.reg = e.reg;
	f.rm = e.rm;
	fields_of_vex(s, &e, &f);
	decode(s, &e, &f, bytes, &i);
	return i.op != OP_INVALID;
}

static void visit(struct search *s)
{
	struct encoding_fields f = plain;
	uint8_t bytes[32];
	char name[64];
	struct insn i;
	struct insn_form *form;
	bool undefined;
	unsigned len;

	f.reg = s->e.reg;
	f.rm = s->e.rm;
	s->e.vvvv_used = false;
	if (s->e.vex) {
		s->e.vvvv_used = takes_vvvv(s);
		f.vvvv = s->e.vvvv_used ? 5 : 0;
		fields_of_vex(s, &s->e, &f);
	}
	len = decode(s, &s->e, &f, bytes, &i);
	if (s->status || i.op == OP_TOO_LONG)
		return;
	form_name(s->forms->mode, bytes, i.op == OP_INVALID ? 15 : len, name, sizeof(name));
	undefined = !strcmp(name, "(bad)");
	if (i.op == OP_INVALID && !undefined)
		strncat(name, " ?", sizeof(name) - strlen(name) - 1); /* a name apart from what is offered */
	form = add_form(s->forms, name);
	if (!form || add_encoding(form, &s->e)) {
		s->status = -ENOMEM;
		return;
	}
	form->op = i.op;
	form->host = i.flags & INSN_HOST;
	form->undefined = i.op == OP_INVALID;
	form->reason = form->undefined ? dangerous(name) : reason_of(i.op);
}

/* With mod = 2 there are four bytes more than with mod = 3, if there is a ModRM byte at all. */
static bool has_modrm(struct search *s)
{
	struct encoding e = s->e;
	struct encoding_fields f = plain;
	struct insn reg, memory;
	uint8_t bytes[32];
	unsigned len;

	if (e.map > MAP_0F)
		return true;
	if (e.map == MAP_0F && e.opcode >= 0x20 && e.opcode <= 0x23)
		return true; /* MOV CR, DR: mod does not matter */
	e.modrm = true;
	e.memory = false;
	e.reg = e.rm = 0;
	f.rm = 0;
	len = decode(s, &e, &f, bytes, &reg);
	e.memory = true;
	f.mod = 2;
	return decode(s, &e, &f, bytes, &memory) != len || reg.op == OP_INVALID || memory.op == OP_INVALID;
}

/* Opcodes of which ModRM.rm chooses the instruction in the register form. */
static bool rm_chooses(const struct encoding *e)
{
	if (e->vex)
		return false;
	if (e->map == MAP_ONE_BYTE)
		return (e->opcode & 0xf8) == 0xd8 || e->opcode == 0xc6 || e->opcode == 0xc7;
	return e->map == MAP_0F && (e->opcode == 0x01 || e->opcode == 0xae || e->opcode == 0x1e);
}

/* LES, LDS, BOUND outside 64-bit mode: what would be their register forms are VEX and EVEX prefixes. */
static bool is_vex_prefix(const struct search *s)
{
	uint8_t opcode = s->e.opcode;

	return !s->e.vex && s->e.map == MAP_ONE_BYTE && (opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62);
}

static void visit_opcode(struct search *s)
{
	bool lock = memchr(s->e.prefixes, 0xf0, sizeof(s->e.prefixes)), memory_only = is_vex_prefix(s);

	s->e.modrm = memory_only || has_modrm(s);
	s->e.memory = s->e.rm_fixed = false;
	s->e.reg = s->e.rm = 0;
	if (!s->e.modrm) {
		if (!lock)
			visit(s);
		return;
	}
	for (unsigned reg = 0; reg < 8; reg++) {
		s->e.reg = (uint8_t)reg;
		s->e.memory = true;
		s->e.rm = 0;
		s->e.rm_fixed = false;
		visit(s);
		if (lock || memory_only)
			continue;
		s->e.memory = false;
		s->e.rm_fixed = rm_chooses(&s->e);
		for (unsigned rm = 0; rm < 8; rm++) {
			s->e.rm = (uint8_t)rm;
			if (s->e.rm_fixed || rm == 1)
				visit(s);
		}
	}
}

/* Bytes that are no opcodes of their map: prefixes, escapes; and 3DNow!'s, whose opcode comes last. */
static bool is_opcode(enum code_mode mode, enum opcode_map map, unsigned b)
{
	static const char prefixes[] = "\x0f\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3";

	if (map != MAP_ONE_BYTE)
		return map != MAP_0F || (b != 0x38 && b != 0x3a && b != 0x0f);
	if (mode == MODE_64 && (b == 0x62 || b == 0xc4 || b == 0xc5 || (b & 0xf0) == 0x40))
		return false;
	return !memchr(prefixes, (int)b, sizeof(prefixes) - 1);
}

static void search_legacy(struct search *s)
{
	static const uint8_t prefixes[][4] = {
		{ 0 },		{ 0x66 }, { 0xf2 },	  { 0xf3 },	  { 0x66, 0xf2 },
		{ 0x66, 0xf3 }, { 0xf0 }, { 0x66, 0xf0 }, { 0xf2, 0xf0 }, { 0xf3, 0xf0 }
	};

	for (unsigned p = 0; p < ARRAY_SIZE(prefixes); p++)
		for (unsigned w = 0; w < (s->forms->mode == MODE_64 ? 2 : 1); w++)
			for (enum opcode_map map = 0; map < MAP_COUNT; map++)
				for (unsigned opcode = 0; opcode < 256; opcode++) {
					if (!is_opcode(s->forms->mode, map, opcode))
						continue;
					s->e = (struct encoding){ .map = (uint8_t)map,
								  .opcode = (uint8_t)opcode,
								  .w = w };
					memcpy(s->e.prefixes, prefixes[p], 4);
					visit_opcode(s);
				}
}

/* JCXZ, JECXZ, JRCXZ: the address size makes another instruction of it, here alone. */
static void search_count_jump(struct search *s)
{
	s->e = (struct encoding){ .prefixes = { 0x67 }, .opcode = 0xe3 };
	visit_opcode(s);
}

static void search_vex(struct search *s)
{
	for (enum opcode_map map = MAP_0F; map < MAP_COUNT; map++)
		for (unsigned n = 0; n < 16; n++)
			for (unsigned opcode = 0; opcode < 256; opcode++) {
				s->e = (struct encoding){ .vex = true,
							  .map = (uint8_t)map,
							  .opcode = (uint8_t)opcode,
							  .w = n & 1,
							  .l = n >> 1 & 1,
							  .vex_pp = (uint8_t)(n >> 2) };
				visit_opcode(s);
			}
}

static void add_sequences(struct search *s)
{
	static const char *const names[] = { "(sequence)", "(x87 sequence)" };

	for (unsigned n = 0; n < ARRAY_SIZE(names); n++) {
		struct insn_form *form = add_form(s->forms, names[n]);

		if (!form) {
			s->status = -ENOMEM;
			return;
		}
		form->sequence = true;
		form->x87 = n == 1;
	}
}

int forms_find(struct forms *f, const struct cpu_model *model, enum code_mode mode, struct error *err)
{
	struct search s = { .forms = f, .model = model };

	memset(f, 0, sizeof(*f));
	f->mode = mode;
	f->index = calloc(FORMS_INDEX, sizeof(*f->index));
	if (!f->index)
		return error_set(err, ENOMEM, "no memory for the table of forms");
	search_legacy(&s);
	search_count_jump(&s);
	search_vex(&s);
	if (!s.status)
		add_sequences(&s);
	return s.status ? error_set(err, -s.status, "cannot keep all forms (%u so far, at most %u)", f->count,
				    FORMS_INDEX / 2)
			: 0;
}

void forms_free(struct forms *f)
{
	for (unsigned n = 0; n < f->count; n++)
		free(f->form[n].encodings);
	free(f->form);
	free(f->index);
}
