/*
 * Decoding: the only file that knows the decoding library (Zydis). It turns bytes into struct insn, refuses what the
 * processor model does not offer, and describes MMX, SSE, AVX and x87 instructions for those who run them natively.
 */
#include "cpu/private.h"

#include <Zydis/Zydis.h>

/* ---- which instruction sets the model must offer ---- */

#define ALWAYS FEATURE_COUNT /* every x86-64 processor, or a mode decides */

/* (Zydis's instruction set, the feature that announces it). Sets without a row are never offered: #UD. */
/* clang-format off */
#define INSTRUCTION_SETS(_)                                                                                            \
	_(I86, ALWAYS) _(I186, ALWAYS) _(I286PROTECTED, ALWAYS) _(I286REAL, ALWAYS) _(I386, ALWAYS)                    \
	_(I486, ALWAYS) _(I486REAL, ALWAYS) _(PENTIUMREAL, ALWAYS) _(PENTIUMMMX, FEATURE_MMX) _(PPRO, ALWAYS)          \
	_(LONGMODE, FEATURE_LM) _(FAT_NOP, ALWAYS) _(PREFETCH_NOP, ALWAYS) _(PAUSE, ALWAYS) _(LAHF, ALWAYS)            \
	_(AMD, FEATURE_SYSCALL) _(CMOV, FEATURE_CMOV) _(FCMOV, FEATURE_CMOV) _(CMPXCHG16B, FEATURE_CX16)               \
	_(X87, FEATURE_FPU) _(RDPMC, ALWAYS) _(FXSAVE, FEATURE_FXSR) _(FXSAVE64, FEATURE_FXSR)                         \
	_(SSE, FEATURE_SSE) _(SSEMXCSR, FEATURE_SSE) _(SSE_PREFETCH, FEATURE_SSE) _(PREFETCHWT1, ALWAYS) _(SSE2, FEATURE_SSE2)                \
	_(SSE2MMX, FEATURE_SSE2) _(SSE3, FEATURE_SSE3) _(SSE3X87, FEATURE_SSE3) _(SSSE3, FEATURE_SSSE3)                \
	_(SSSE3MMX, FEATURE_SSSE3) _(SSE4, FEATURE_SSE41) _(SSE42, FEATURE_SSE42) _(POPCNT, FEATURE_POPCNT)            \
	_(AES, FEATURE_AES) _(PCLMULQDQ, FEATURE_PCLMULQDQ) _(SHA, FEATURE_SHA) _(AVX, FEATURE_AVX)                    \
	_(AVX2, FEATURE_AVX2) _(AVX2GATHER, FEATURE_AVX2) _(AVXAES, FEATURE_AES) _(VAES, FEATURE_VAES)                 \
	_(VPCLMULQDQ, FEATURE_VPCLMULQDQ) _(FMA, FEATURE_FMA) _(F16C, FEATURE_F16C) _(BMI1, FEATURE_BMI1)              \
	_(BMI2, FEATURE_BMI2) _(LZCNT, FEATURE_ABM) _(ADOX_ADCX, FEATURE_ADX) _(MOVBE, FEATURE_MOVBE)                  \
	_(RDRAND, FEATURE_RDRAND) _(RDSEED, FEATURE_RDSEED) _(RDTSCP, FEATURE_RDTSCP) _(RDPID, FEATURE_RDPID)          \
	_(RDWRFSGS, FEATURE_FSGSBASE) _(CLFSH, FEATURE_CLFSH) _(CLFLUSHOPT, FEATURE_CLFLUSHOPT)                        \
	_(CLWB, FEATURE_CLWB) _(INVPCID, FEATURE_INVPCID) _(SMAP, FEATURE_SMAP) _(MONITOR, FEATURE_MONITOR)            \
	_(XSAVE, FEATURE_XSAVE) _(XSAVEC, FEATURE_XSAVEC) _(XSAVEOPT, FEATURE_XSAVEOPT)                                      \
	/* of these only VMCALL and VMMCALL are ops: hypercalls */                                                     \
	_(VTX, ALWAYS) _(SVM, ALWAYS)
/* clang-format on */

/* Feature + 1, so that 0 means never. */
static const uint8_t set_feature[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
#define _(set, feature) [ZYDIS_ISA_SET_##set] = feature + 1,
	INSTRUCTION_SETS(_)
#undef _
};

/* PREFETCH and PREFETCHW of a register; VPEXTRD and VPINSRD with VEX.W outside 64-bit mode, where Intel's ignore it. */
static bool undefined_on_amd(const ZydisDecodedInstruction *in)
{
	if (in->opcode_map == ZYDIS_OPCODE_MAP_0F && in->opcode == 0x0d)
		return in->raw.modrm.mod == 3;
	return in->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 && in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
	       in->raw.vex.W && (in->mnemonic == ZYDIS_MNEMONIC_VPEXTRD || in->mnemonic == ZYDIS_MNEMONIC_VPINSRD);
}

/* Feature + 1 likewise. Of the P6's set SYSENTER has a feature of its own; LAHF and SAHF need one in 64-bit mode. */
static unsigned feature_of(const ZydisDecodedInstruction *in)
{
	if (in->mnemonic == ZYDIS_MNEMONIC_SYSENTER || in->mnemonic == ZYDIS_MNEMONIC_SYSEXIT)
		return FEATURE_SEP + 1;
	if (in->meta.isa_set == ZYDIS_ISA_SET_LAHF && in->machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
		return FEATURE_LAHF64 + 1;
	return set_feature[in->meta.isa_set];
}

static bool offered(const struct cpu_model *model, const ZydisDecodedInstruction *in)
{
	unsigned feature = feature_of(in);

	if (model && is_amd(model) && undefined_on_amd(in))
		return false;

	if (!feature)
		return false;
	return feature - 1 == ALWAYS || model->features[feature - 1];
}

/* ---- mnemonics ---- */

static const uint16_t op_of[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define _(mnemonic, ...) [ZYDIS_MNEMONIC_##mnemonic] = OP_##mnemonic,
	CPU_SYSTEM_OPS(_) CPU_INTEGER_OPS(_)
#undef _
		[ZYDIS_MNEMONIC_VZEROUPPER] = OP_VZERO,
	[ZYDIS_MNEMONIC_VZEROALL] = OP_VZERO,
	[ZYDIS_MNEMONIC_PREFETCHWT1] = OP_PREFETCH, /* 0F 0D /2: any prefetch where it is not announced */
	[ZYDIS_MNEMONIC_MASKMOVQ] = OP_MASKMOV,
	[ZYDIS_MNEMONIC_MASKMOVDQU] = OP_MASKMOV,
	[ZYDIS_MNEMONIC_VMASKMOVDQU] = OP_MASKMOV,
	[ZYDIS_MNEMONIC_VMASKMOVPS] = OP_MASKMOV,
	[ZYDIS_MNEMONIC_VMASKMOVPD] = OP_MASKMOV,
	[ZYDIS_MNEMONIC_VPMASKMOVD] = OP_MASKMOV,
	[ZYDIS_MNEMONIC_VPMASKMOVQ] = OP_MASKMOV,
};

static const uint16_t op_flags[OP_COUNT] = {
#define _(mnemonic, name, flags) [OP_##mnemonic] = INSN_SYSTEM | (flags),
	CPU_SYSTEM_OPS(_)
#undef _
		[OP_MOVSD_STRING] = INSN_SYSTEM,
	[OP_CMPSD_STRING] = INSN_SYSTEM,
	[OP_MOV_SREG] = INSN_SYSTEM | INSN_ENDS,
	[OP_PUSH_SREG] = INSN_SYSTEM,
	[OP_POP_SREG] = INSN_SYSTEM | INSN_ENDS,
	[OP_MOV_CR] = INSN_SYSTEM | INSN_ENDS,
	[OP_MOV_DR] = INSN_SYSTEM | INSN_ENDS,
	[OP_JMP_FAR] = INSN_SYSTEM | INSN_ENDS | INSN_FAR,
	[OP_CALL_FAR] = INSN_SYSTEM | INSN_ENDS | INSN_FAR,
	[OP_RET_FAR] = INSN_SYSTEM | INSN_ENDS | INSN_FAR,
	[OP_HOST] = INSN_HOST,
	[OP_INVALID] = INSN_ENDS,
	[OP_TOO_LONG] = INSN_ENDS,
	[OP_UD0] = INSN_ENDS,
	[OP_UD1] = INSN_ENDS,
	[OP_UD2] = INSN_ENDS,
};

const char *cpu_op_name(enum op op)
{
	static const char *const names[OP_COUNT] = {
#define _(mnemonic, ...) [OP_##mnemonic] = #mnemonic,
		CPU_SYSTEM_OPS(_) CPU_INTEGER_OPS(_)
#undef _
			[OP_INVALID] = "invalid",
		[OP_TOO_LONG] = "too long",
		[OP_MOVSD_STRING] = "MOVSD",
		[OP_CMPSD_STRING] = "CMPSD",
		[OP_MOV_SREG] = "MOV Sreg",
		[OP_PUSH_SREG] = "PUSH Sreg",
		[OP_POP_SREG] = "POP Sreg",
		[OP_MOV_CR] = "MOV CR",
		[OP_MOV_DR] = "MOV DR",
		[OP_JMP_FAR] = "JMP far",
		[OP_CALL_FAR] = "CALL far",
		[OP_RET_FAR] = "RET far",
		[OP_HOST] = "SIMD/x87",
		[OP_GATHER] = "gather",
		[OP_MASKMOV] = "masked move",
		[OP_VZERO] = "VZEROUPPER/ALL",
	};

	return op < OP_COUNT && names[op] ? names[op] : "?";
}

static bool is_string_op(const ZydisDecodedInstruction *in)
{
	return in->meta.category == ZYDIS_CATEGORY_STRINGOP || in->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

static enum op find_op(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOVSD: return is_string_op(in) ? OP_MOVSD_STRING : OP_HOST;
	case ZYDIS_MNEMONIC_CMPSD: return is_string_op(in) ? OP_CMPSD_STRING : OP_HOST;
	case ZYDIS_MNEMONIC_MOV:
		for (unsigned n = 0; n < 2; n++) {
			if (o[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
				continue;
			switch (ZydisRegisterGetClass(o[n].reg.value)) {
			case ZYDIS_REGCLASS_SEGMENT: return OP_MOV_SREG;
			case ZYDIS_REGCLASS_CONTROL: return OP_MOV_CR;
			case ZYDIS_REGCLASS_DEBUG: return OP_MOV_DR;
			case ZYDIS_REGCLASS_TEST: return OP_INVALID;
			default: break;
			}
		}
		return OP_MOV;
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP:
		if (o[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(o[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
			return in->mnemonic == ZYDIS_MNEMONIC_PUSH ? OP_PUSH_SREG : OP_POP_SREG;
		break;
	case ZYDIS_MNEMONIC_JMP:
		if (in->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
			return OP_JMP_FAR;
		break;
	case ZYDIS_MNEMONIC_CALL:
		if (in->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
			return OP_CALL_FAR;
		break;
	case ZYDIS_MNEMONIC_RET:
		if (in->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
			return OP_RET_FAR;
		break;
	default: break;
	}
	if (op_of[in->mnemonic])
		return op_of[in->mnemonic];
	if (in->meta.category == ZYDIS_CATEGORY_AVX2GATHER || in->meta.category == ZYDIS_CATEGORY_GATHER)
		return OP_GATHER;
	switch (in->meta.isa_ext) {
	case ZYDIS_ISA_EXT_MMX:
	case ZYDIS_ISA_EXT_X87:
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
	case ZYDIS_ISA_EXT_SHA:
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_AVXAES:
	case ZYDIS_ISA_EXT_VAES:
	case ZYDIS_ISA_EXT_VPCLMULQDQ:
	case ZYDIS_ISA_EXT_FMA:
	case ZYDIS_ISA_EXT_F16C: return OP_HOST;
	default: return OP_INVALID;
	}
}

/* ---- operands ---- */

/* Byte offset of a general register from cpu_state.gpr[0]; NO_REG for others. */
#define NO_REG 0xff

static uint8_t gpr_offset(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
		return (uint8_t)(8 * (r - ZYDIS_REGISTER_AL));
	if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
		return (uint8_t)(8 * (r - ZYDIS_REGISTER_AH) + 1);
	if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_DIL)
		return (uint8_t)(8 * (r - ZYDIS_REGISTER_SPL + 4));
	if (r >= ZYDIS_REGISTER_R8B && r <= ZYDIS_REGISTER_R15B)
		return (uint8_t)(8 * (r - ZYDIS_REGISTER_R8B + 8));
	if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
		return (uint8_t)(8 * (r - ZYDIS_REGISTER_AX));
	if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
		return (uint8_t)(8 * (r - ZYDIS_REGISTER_EAX));
	if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
		return (uint8_t)(8 * (r - ZYDIS_REGISTER_RAX));
	return NO_REG;
}

static uint8_t segment_number(ZydisRegister r)
{
	switch (r) {
	case ZYDIS_REGISTER_ES: return ES;
	case ZYDIS_REGISTER_CS: return CS;
	case ZYDIS_REGISTER_SS: return SS;
	case ZYDIS_REGISTER_FS: return FS;
	case ZYDIS_REGISTER_GS: return GS;
	default: return DS;
	}
}

/* A SIB byte without a base, SDM vol. 2 table 2-3. The library knows no such thing of 32-bit addresses with REX.B. */
static bool sib_without_base(const struct insn *i, const ZydisDecodedInstruction *in)
{
	return i->addrsize != 2 && in->raw.modrm.offset && in->raw.modrm.mod == 0 && in->raw.modrm.rm == 4 &&
	       in->raw.sib.base == 5;
}

static void set_memory(struct insn *i, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o,
		       enum code_mode mode)
{
	const ZydisDecodedOperandMem *m = &o->mem;

	i->flags |= INSN_MEM;
	i->seg = segment_number(m->segment);
	if (mode == MODE_64 && i->seg < FS && i->seg != SS)
		i->seg = DS; /* CS, ES and DS are the same there, and only SS has a fault of its own */
	i->disp = (int32_t)in->raw.disp.value;
	if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
		i->flags |= INSN_RIPREL;
	else if (gpr_offset(m->base) != NO_REG && !sib_without_base(i, in))
		i->base = gpr_offset(m->base);
	if (gpr_offset(m->index) != NO_REG) {
		i->index = gpr_offset(m->index);
		i->scale = (uint8_t)(m->scale == 8 ? 3 : m->scale / 2);
	}
	i->ea_flat = mode == MODE_64 && i->addrsize == 8 && i->seg < FS;
	if (i->flags & INSN_RIPREL)
		decode_ip_relative(i, i->disp);
}

/* String instructions name their memory by implicit operands: element size and the source's segment are what matters. */
static void set_string(struct insn *i, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o)
{
	i->form = FORM_NONE;
	i->seg = DS;
	for (unsigned n = 0; n < in->operand_count; n++) {
		if (o[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		i->opsize = (uint8_t)(o[n].size / 8);
		if (gpr_offset(o[n].mem.base) == 8 * RSI)
			i->seg = segment_number(o[n].mem.segment);
	}
	if (i->seg == SS && in->machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
		i->seg = DS;
	i->srcsize = i->opsize;
}

/* Kinds of visible operands, as letters of a word that names the form. */
#define KIND_R	      1 /* general register */
#define KIND_M	      2
#define KIND_I	      3
#define KIND_X	      4 /* any other register */
#define WORD(a, b, c) (KIND_##a | KIND_##b << 4 | KIND_##c << 8)
#define KIND_0	      0

static unsigned operand_kind(const ZydisDecodedOperand *o)
{
	switch (o->type) {
	case ZYDIS_OPERAND_TYPE_MEMORY: return KIND_M;
	case ZYDIS_OPERAND_TYPE_IMMEDIATE: return KIND_I;
	case ZYDIS_OPERAND_TYPE_REGISTER: return gpr_offset(o->reg.value) != NO_REG ? KIND_R : KIND_X;
	default: return KIND_X;
	}
}

static enum form form_of(unsigned word)
{
	switch (word) {
	case WORD(0, 0, 0): return FORM_NONE;
	case WORD(R, 0, 0): return FORM_R;
	case WORD(M, 0, 0): return FORM_M;
	case WORD(I, 0, 0): return FORM_I;
	case WORD(R, R, 0): return FORM_RR;
	case WORD(R, I, 0): return FORM_RI;
	case WORD(R, M, 0): return FORM_RM;
	case WORD(M, R, 0): return FORM_MR;
	case WORD(M, I, 0): return FORM_MI;
	case WORD(R, R, I): return FORM_RRI;
	case WORD(R, M, I): return FORM_RMI;
	case WORD(M, R, I): return FORM_MRI;
	case WORD(R, R, R): return FORM_RRR;
	case WORD(R, R, M): return FORM_RRM;
	case WORD(R, M, R): return FORM_RMR;
	default: return FORM_OTHER;
	}
}

static uint8_t *register_field(struct insn *i, unsigned n, enum form form)
{
	switch (form) {
	case FORM_RRM: return n == 0 ? &i->reg : &i->reg2;
	case FORM_RMR: return n == 0 ? &i->reg : &i->reg2;
	case FORM_MR:
	case FORM_MRI: return &i->reg;
	default: return n == 0 ? &i->reg : n == 1 ? &i->rm : &i->reg2;
	}
}

static void set_operands(struct insn *i, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o,
			 enum code_mode mode)
{
	unsigned count = MIN(in->operand_count_visible, 3), word = 0;

	for (unsigned n = 0; n < count; n++)
		word |= operand_kind(&o[n]) << (4 * n);
	/* SHLD/SHRD by CL: r/m, reg, CL. The count is implied, as for the other shifts a register operand says it. */
	if (i->op == OP_SHLD || i->op == OP_SHRD)
		word = word == WORD(R, R, R) ? WORD(R, R, 0) : word == WORD(M, R, R) ? WORD(M, R, 0) : word;
	i->form = (uint8_t)form_of(word);
	for (unsigned n = 0; n < count; n++) {
		switch (operand_kind(&o[n])) {
		case KIND_R:
			if (i->form != FORM_OTHER && (word >> (4 * n) & 15))
				*register_field(i, n, i->form) = gpr_offset(o[n].reg.value);
			break;
		case KIND_M: set_memory(i, in, &o[n], mode); break;
		case KIND_I:
			i->imm = o[n].imm.is_signed || o[n].imm.is_relative ? (uint64_t)o[n].imm.value.s
									    : o[n].imm.value.u;
			break;
		}
	}
	i->opsize = (uint8_t)(in->operand_width / 8);
	if (count && !(i->flags & (INSN_SYSTEM | INSN_HOST)) && i->op != OP_PUSH && i->op != OP_POP &&
	    i->op != OP_CALL && i->op != OP_JMP && i->op != OP_RET && i->op != OP_ENTER &&
	    operand_kind(&o[0]) != KIND_I)
		i->opsize = (uint8_t)(o[0].size / 8);
	i->srcsize = count > 1 && operand_kind(&o[1]) != KIND_I ? (uint8_t)(o[1].size / 8) : i->opsize;
}

static uint8_t special_register(const ZydisDecodedOperand *o)
{
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return NO_REG;
	if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT)
		return segment_number(o->reg.value);
	if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_CONTROL)
		return (uint8_t)(o->reg.value - ZYDIS_REGISTER_CR0);
	if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_DEBUG)
		return (uint8_t)(o->reg.value - ZYDIS_REGISTER_DR0);
	return NO_REG;
}

/*
 * Where AMD's processors decode 64-bit code otherwise than Intel's (APM vol. 3 1.2.7, JMP far, LSS): near branches obey the
 * operand-size prefix, far pointers in memory have offsets of 32 bits at most.
 */
static void set_amd_sizes(struct insn *i, const ZydisDecodedInstruction *in)
{
	bool small = in->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE;

	if (i->op >= OP_CALL && i->op <= OP_LOOPNE)
		i->opsize = small && !in->raw.rex.W ? 2 : 8;
	else if (i->op == OP_JMP_FAR || i->op == OP_CALL_FAR || i->op == OP_LFS || i->op == OP_LGS || i->op == OP_LSS)
		i->srcsize = MIN(i->opsize, 4);
}

/* Instructions whose operands do not fit the general rules. */
static void set_special(struct insn *i, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o,
			enum code_mode mode)
{
	switch (i->op) {
	case OP_MOV_SREG:
	case OP_MOV_CR:
	case OP_MOV_DR: {
		unsigned special = special_register(&o[0]) != NO_REG ? 0 : 1;

		i->store = special == 1;
		i->sreg = special_register(&o[special]);
		i->form = o[!special].type == ZYDIS_OPERAND_TYPE_MEMORY ? FORM_M : FORM_R;
		if (i->form == FORM_R)
			i->reg = gpr_offset(o[!special].reg.value);
		break;
	}
	case OP_PUSH_SREG:
	case OP_POP_SREG:
		i->sreg = special_register(&o[0]);
		i->form = FORM_NONE;
		break;
	case OP_LDS:
	case OP_LES:
	case OP_LFS:
	case OP_LGS:
	case OP_LSS:
		i->sreg = i->op == OP_LDS   ? DS
			  : i->op == OP_LES ? ES
			  : i->op == OP_LFS ? FS
			  : i->op == OP_LGS ? GS
					    : SS;
		i->srcsize = i->opsize;
		break;
	case OP_JMP_FAR:
	case OP_CALL_FAR:
		i->srcsize = i->opsize;
		if (o[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
			i->form = FORM_OTHER;
			i->imm = (uint64_t)o[0].ptr.segment << 32 | o[0].ptr.offset;
		}
		break;
	case OP_ENTER:
		i->form = FORM_OTHER;
		i->imm = (o[0].imm.value.u & 0xffff) | (o[1].imm.value.u & 0xff) << 16;
		break;
	case OP_IN:
	case OP_OUT: {
		unsigned accumulator = i->op == OP_IN ? 0 : 1;
		const ZydisDecodedOperand *port = &o[!accumulator];

		i->opsize = (uint8_t)(o[accumulator].size / 8);
		i->reg = 8 * RAX;
		i->rm = 8 * RDX;
		i->form = port->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? FORM_RI : FORM_RR;
		if (i->form == FORM_RI)
			i->imm = port->imm.value.u & 0xff;
		break;
	}
	case OP_XLAT: /* AL <- seg:[rBX + AL]: only the segment is told */
		i->form = FORM_NONE;
		for (unsigned n = 0; n < in->operand_count; n++)
			if (o[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
				i->seg = segment_number(o[n].mem.segment);
		i->flags &= (uint16_t)~INSN_MEM;
		i->opsize = 1;
		break;
	case OP_MOV: /* moffs: an address of up to 64 bits */
		for (unsigned n = 0; n < 2; n++)
			if (o[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			    o[n].encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64 && mode == MODE_64) {
				i->form = FORM_OTHER;
				i->store = n == 0;
				i->reg = 8 * RAX;
				i->imm = (uint64_t)o[n].mem.disp.value;
				if (i->addrsize == 4)
					i->imm = (uint32_t)i->imm;
				i->opsize = (uint8_t)(o[n].size / 8);
				i->disp = 0;
				i->ea_flat = 0;
			}
		break;
	case OP_VZERO:
		i->imm = in->mnemonic == ZYDIS_MNEMONIC_VZEROALL;
		i->form = FORM_NONE;
		break;
	case OP_XCHG:
		if (i->form == FORM_RM) /* memory as the second operand: the same instruction */
			i->form = FORM_MR;
		if (i->flags & INSN_MEM)
			i->flags |= INSN_LOCK; /* always locked, prefix or not */
		break;
	case OP_TEST:
		if (i->form == FORM_RM)
			i->form = FORM_MR;
		break;
	case OP_RDFSBASE:
	case OP_RDGSBASE:
	case OP_WRFSBASE:
	case OP_WRGSBASE: /* the operand-size prefix means nothing to them */ i->opsize = in->raw.rex.W ? 8 : 4; break;
	case OP_PAUSE:
		if (in->raw.rex.B) { /* XCHG of r8 and rAX: only 90 without REX.B is special */
			i->op = OP_XCHG;
			i->form = FORM_RR;
			i->reg = 8 * RAX;
			i->rm = 8 * R8;
			i->opsize = in->raw.rex.W ? 8 : in->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE ? 2 : 4;
			i->srcsize = i->opsize;
		}
		break;
	default: break;
	}
	if (i->op >= OP_CALL && i->op <= OP_LOOPNE)
		i->flags |= INSN_ENDS;
}

/* ---- what native execution must know ---- */

static bool alignment_free(const struct cpu_model *model, const ZydisDecodedInstruction *in)
{
	/* AMD's processors do not ask it of SHA instructions. */
	if (in->meta.isa_set == ZYDIS_ISA_SET_SHA)
		return model && is_amd(model);
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM: return true;
	default: return false;
	}
}

static bool x87_control(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_FNINIT:
	case ZYDIS_MNEMONIC_FLDCW:
	case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTSW:
	case ZYDIS_MNEMONIC_FNCLEX:
	case ZYDIS_MNEMONIC_FENI8087_NOP:
	case ZYDIS_MNEMONIC_FDISI8087_NOP:
	case ZYDIS_MNEMONIC_FSETPM287_NOP: return true;
	default: return false;
	}
}

static bool x87_no_wait(ZydisMnemonic m) { return x87_control(m) && m != ZYDIS_MNEMONIC_FLDCW; }

static void host_operand(struct insn_host *h, const ZydisDecodedOperand *o, const ZydisDecodedInstruction *in,
			 const struct cpu_model *model)
{
	bool read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ, written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		h->mem_size = (uint8_t)(o->size / 8);
		h->mem_read = read;
		h->mem_written = written;
		if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
			if (in->meta.exception_class == ZYDIS_EXCEPTION_CLASS_AVX1)
				h->mem_align = h->mem_size;
		} else if (h->mem_size == 16 && !alignment_free(model, in)) {
			h->mem_align = 16;
		}
		return;
	}
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return;
	switch (ZydisRegisterGetClass(o->reg.value)) {
	case ZYDIS_REGCLASS_YMM:
		h->wide = true;
		/* fall through */
	case ZYDIS_REGCLASS_XMM: {
		unsigned n = (unsigned)ZydisRegisterGetId(o->reg.value) & 15;

		if (read)
			h->vec_read |= (uint16_t)(1u << n);
		if (written)
			h->vec_written |= (uint16_t)(1u << n);
		break;
	}
	case ZYDIS_REGCLASS_MMX: h->mmx = true; break;
	case ZYDIS_REGCLASS_X87: h->x87 = true; break;
	default: {
		uint8_t offset = gpr_offset(o->reg.value);

		if (offset == NO_REG)
			break;
		if (read)
			h->gpr_read |= (uint16_t)(1u << offset / 8);
		if (written)
			h->gpr_written |= (uint16_t)(1u << offset / 8);
		if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
			h->gpr_place = 1;
		else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
			h->gpr_place = 2;
		break;
	}
	}
}

bool cpu_is_legacy_prefix(uint8_t b)
{
	switch (b) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3: return true;
	default: return false;
	}
}

static void fill_host(struct insn_host *h, const struct insn *i, const ZydisDecodedInstruction *in,
		      const ZydisDecodedOperand *o, const struct cpu_model *model)
{
	*h = (struct insn_host){ .mem_align = 1, .mnemonic = (uint16_t)in->mnemonic };
	h->vex = in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	h->x87 = in->meta.isa_ext == ZYDIS_ISA_EXT_X87 || in->meta.isa_set == ZYDIS_ISA_SET_SSE3X87;
	for (unsigned n = 0; n < in->operand_count; n++)
		host_operand(h, &o[n], in, model);
	/* A legacy destination may be written in part; a VEX one that keeps something is said to be read. */
	if (!h->vex)
		h->vec_read |= h->vec_written;
	if (in->cpu_flags) {
		h->writes_flags = in->cpu_flags->modified | in->cpu_flags->set_0 | in->cpu_flags->set_1;
		h->reads_flags = in->cpu_flags->tested;
	}
	while (h->prefix_len < i->len && cpu_is_legacy_prefix(i->bytes[h->prefix_len]))
		h->prefix_len++;
	h->modrm_offset = in->raw.modrm.offset;
	h->disp_offset = in->raw.disp.offset;
	h->disp_len = in->raw.disp.size / 8;
	h->imm_offset = in->raw.imm[0].offset;
	h->imm_len = in->raw.imm[0].size / 8;
	h->control = x87_control(in->mnemonic);
	h->initial = in->mnemonic == ZYDIS_MNEMONIC_FNINIT;
	h->waiting = (h->x87 || h->mmx) && !x87_no_wait(in->mnemonic);
}

/* ---- the entry points ---- */

static void init_decoder(ZydisDecoder *d, const struct cpu_model *model, enum code_mode mode)
{
	static const struct {
		ZydisMachineMode machine;
		ZydisStackWidth stack;
	} modes[] = {
		[MODE_16] = { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
		[MODE_32] = { ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
		[MODE_64] = { ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
	};

	ZydisDecoderInit(d, modes[mode].machine, modes[mode].stack);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_AMD_BRANCHES, model && is_amd(model));
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_LZCNT, !model || model->features[FEATURE_ABM]);
	ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_TZCNT, !model || model->features[FEATURE_BMI1]);
}

/* len: of what was looked at; when one of these bytes changes it may be something else. */
static unsigned invalid(struct insn *i, enum op op, const uint8_t *bytes, unsigned len)
{
	i->op = (uint16_t)op;
	i->flags = op_flags[op];
	i->len = (uint8_t)len;
	i->form = FORM_NONE;
	memcpy(i->bytes, bytes, len);
	return len;
}

/* How many bytes tell that they are no instruction. */
static unsigned bytes_of_none(const ZydisDecoder *decoder, const uint8_t *bytes, size_t avail)
{
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	unsigned len = 1;

	while (len < avail && ZydisDecoderDecodeFull(decoder, bytes, len, &in, o) == ZYDIS_STATUS_NO_MORE_DATA)
		len++;
	return len;
}

/* Which operands fill() takes from the bytes behind ModRM and SIB, and where it puts them. */
static void describe_layout(struct decode_layout *l, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *o)
{
	l->regular = !in->raw.imm[1].size;
	l->disp_offset = in->raw.disp.offset;
	l->disp_len = in->raw.disp.size / 8;
	l->imm_offset = in->raw.imm[0].offset;
	l->imm_len = in->raw.imm[0].size / 8;
	for (unsigned n = 0; n < in->operand_count; n++) {
		if (o[n].encoding == ZYDIS_OPERAND_ENCODING_IS4 || o[n].type == ZYDIS_OPERAND_TYPE_POINTER ||
		    o[n].encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)
			l->regular = false;
		if (l->imm_len && n < MIN(in->operand_count_visible, 3) && operand_kind(&o[n]) == KIND_I) {
			l->imm_stored = true;
			l->imm_signed = o[n].imm.is_signed || o[n].imm.is_relative;
		}
	}
}

/* What was decoded, in our terms. */
static void fill(struct insn *i, struct insn_host *host, const ZydisDecodedInstruction *in,
		 const ZydisDecodedOperand *o, const struct cpu_model *model, enum code_mode mode)
{
	i->flags = op_flags[i->op];
	i->addrsize = in->address_width / 8;
	if (in->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		i->flags |= INSN_LOCK;
	if (in->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
		i->flags |= INSN_REP;
	if (in->attributes & ZYDIS_ATTRIB_HAS_REPNE)
		i->flags |= INSN_REPNE;
	if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		i->flags |= INSN_VEX;
	if (is_string_op(in)) {
		set_string(i, in, o);
		return;
	}
	set_operands(i, in, o, mode);
	set_special(i, in, o, mode);
	if (mode == MODE_64 && model && is_amd(model))
		set_amd_sizes(i, in);
	if (i->op == OP_HOST || i->op == OP_GATHER || i->op == OP_MASKMOV)
		i->form = FORM_HOST;
	if (host)
		fill_host(host, i, in, o, model);
}

unsigned decode_with_layout(const struct cpu_model *model, enum code_mode mode, const uint8_t *bytes, size_t avail,
			    unsigned block_offset, struct insn *i, struct insn_host *host, struct decode_layout *layout)
{
	ZydisDecoder decoder;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	ZyanStatus status;

	*i = (struct insn){ .offset = (uint16_t)block_offset, .base = 8 * REG_NONE, .index = 8 * REG_NONE, .seg = DS };
	*layout = (struct decode_layout){ 0 };
	init_decoder(&decoder, model, mode);
	avail = MIN(avail, 15);
	status = ZydisDecoderDecodeFull(&decoder, bytes, avail, &in, o);
	if (status == ZYDIS_STATUS_NO_MORE_DATA)
		return avail == 15 ? invalid(i, OP_TOO_LONG, bytes, 15) : 0;
	if (!ZYAN_SUCCESS(status))
		return invalid(i, status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? OP_TOO_LONG : OP_INVALID, bytes,
			       bytes_of_none(&decoder, bytes, avail));
	i->op = (uint16_t)(offered(model, &in) ? find_op(&in, o) : OP_INVALID);
	if (i->op == OP_INVALID)
		return invalid(i, OP_INVALID, bytes, in.length);
	i->len = in.length;
	memcpy(i->bytes, bytes, in.length);
	fill(i, host, &in, o, model, mode);
	describe_layout(layout, &in, o);
	layout->host_filled = host && !is_string_op(&in);
	return i->len;
}

unsigned cpu_decode(const struct cpu_model *model, enum code_mode mode, const uint8_t *bytes, size_t avail,
		    unsigned block_offset, struct insn *i, struct insn_host *host)
{
	struct decode_layout layout;

	return decode_with_layout(model, mode, bytes, avail, block_offset, i, host, &layout);
}

unsigned cpu_disassemble(enum code_mode mode, const uint8_t *bytes, size_t avail, uint64_t rip, char *text, size_t size)
{
	ZydisDecoder decoder;
	ZydisDecodedInstruction in;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	ZydisFormatter formatter;

	init_decoder(&decoder, NULL, mode);
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_FORCE_SIZE, ZYAN_TRUE);
	if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, avail, &in, o)) &&
	    ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &in, o, in.operand_count_visible, text, size, rip,
							 NULL)))
		return in.length;
	snprintf(text, size, "(bad)");
	return 1;
}
