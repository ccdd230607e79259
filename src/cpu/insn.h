/*
 * Decoded instructions: which there are, how they look, and how bytes become them.
 */
#ifndef DOPPEL_CPU_INSN_H
#define DOPPEL_CPU_INSN_H

#include "base/base.h"

/*
 * Instructions whose semantics live in this folder, called by any engine through cpu_system_ops[]. The first column is
 * the mnemonic (as Zydis spells it), the second the function op_<name>, the third INSN_* flags.
 */
/* clang-format off */
#define CPU_SYSTEM_OPS(_)                                                                                              \
	/* far.c: far transfers, software interrupts, fast system calls */                                             \
	_(INT, int_n, INSN_ENDS) _(INT1, int1, INSN_ENDS) _(INT3, int3, INSN_ENDS) _(INTO, into, INSN_ENDS)            \
	_(IRET, iret, INSN_ENDS) _(IRETD, iret, INSN_ENDS) _(IRETQ, iret, INSN_ENDS)                                   \
	_(SYSCALL, syscall, INSN_ENDS) _(SYSRET, sysret, INSN_ENDS)                                                    \
	_(SYSENTER, sysenter, INSN_ENDS) _(SYSEXIT, sysexit, INSN_ENDS)                                                \
	/* segment.c */                                                                                                \
	_(LDS, load_far_pointer, INSN_ENDS) _(LES, load_far_pointer, INSN_ENDS) _(LFS, load_far_pointer, INSN_ENDS)    \
	_(LGS, load_far_pointer, INSN_ENDS) _(LSS, load_far_pointer, INSN_ENDS)                                        \
	_(LGDT, lgdt, INSN_ENDS) _(LIDT, lidt, INSN_ENDS) _(SGDT, sgdt, 0) _(SIDT, sidt, 0)                            \
	_(LLDT, lldt, INSN_ENDS) _(LTR, ltr, INSN_ENDS) _(SLDT, sldt, 0) _(STR, str, 0)                                \
	_(LAR, lar, 0) _(LSL, lsl, 0) _(VERR, verr, 0) _(VERW, verw, 0) _(ARPL, arpl, 0)                               \
	_(SWAPGS, swapgs, 0) _(RDFSBASE, rdfsbase, 0) _(RDGSBASE, rdgsbase, 0)                                         \
	_(WRFSBASE, wrfsbase, 0) _(WRGSBASE, wrgsbase, 0)                                                              \
	/* control.c: control and debug registers, flags that matter to the machine */                                 \
	_(LMSW, lmsw, INSN_ENDS) _(SMSW, smsw, 0) _(CLTS, clts, INSN_ENDS)                                             \
	_(INVLPG, invlpg, INSN_ENDS) _(INVPCID, invpcid, INSN_ENDS) _(INVD, invd, 0) _(WBINVD, wbinvd, 0)              \
	_(CLI, cli, INSN_ENDS) _(STI, sti, INSN_ENDS) _(CLAC, clac, INSN_ENDS) _(STAC, stac, INSN_ENDS)                \
	_(PUSHF, pushf, 0) _(PUSHFD, pushf, 0) _(PUSHFQ, pushf, 0)                                                     \
	_(POPF, popf, INSN_ENDS) _(POPFD, popf, INSN_ENDS) _(POPFQ, popf, INSN_ENDS)                                   \
	_(HLT, hlt, INSN_ENDS) _(MONITOR, monitor, 0) _(MWAIT, mwait, INSN_ENDS)                                       \
	_(XGETBV, xgetbv, 0) _(XSETBV, xsetbv, INSN_ENDS) _(RSM, ud, INSN_ENDS)                                        \
	/* msr.c, cpuid.c */                                                                                           \
	_(RDMSR, rdmsr, INSN_TIME) _(WRMSR, wrmsr, INSN_ENDS) _(RDTSC, rdtsc, INSN_TIME) _(RDTSCP, rdtscp, INSN_TIME)  \
	_(RDPMC, rdpmc, INSN_TIME) _(RDPID, rdpid, 0) _(CPUID, cpuid, INSN_ENDS)                                       \
	_(RDRAND, rdrand, INSN_TIME) _(RDSEED, rdseed, INSN_TIME)                                                                      \
	/* kvm_pv.c: hypercalls */                                                                                     \
	_(VMCALL, hypercall, 0) _(VMMCALL, hypercall, 0)                                                               \
	/* io.c */                                                                                                     \
	_(IN, in, INSN_IO) _(OUT, out, INSN_IO) _(INSB, ins, INSN_IO) _(INSW, ins, INSN_IO) _(INSD, ins, INSN_IO)      \
	_(OUTSB, outs, INSN_IO) _(OUTSW, outs, INSN_IO) _(OUTSD, outs, INSN_IO)                                        \
	/* string.c: size from insn.opsize, address size from insn.addrsize */                                         \
	_(MOVSB, movs, 0) _(MOVSW, movs, 0) _(MOVSQ, movs, 0)                                                          \
	_(STOSB, stos, 0) _(STOSW, stos, 0) _(STOSD, stos, 0) _(STOSQ, stos, 0)                                        \
	_(LODSB, lods, 0) _(LODSW, lods, 0) _(LODSD, lods, 0) _(LODSQ, lods, 0)                                        \
	_(CMPSB, cmps, 0) _(CMPSW, cmps, 0) _(CMPSQ, cmps, 0)                                                          \
	_(SCASB, scas, 0) _(SCASW, scas, 0) _(SCASD, scas, 0) _(SCASQ, scas, 0)                                        \
	/* fpu.c: state of the floating-point unit */                                                                  \
	_(FXSAVE, fxsave, 0) _(FXSAVE64, fxsave, 0) _(FXRSTOR, fxrstor, 0) _(FXRSTOR64, fxrstor, 0)                    \
	_(XSAVE, xsave, 0) _(XSAVE64, xsave, 0) _(XSAVEC, xsavec, 0) _(XSAVEC64, xsavec, 0)                            \
	_(XSAVEOPT, xsaveopt, 0) _(XSAVEOPT64, xsaveopt, 0) _(XRSTOR, xrstor, 0) _(XRSTOR64, xrstor, 0)                \
	_(LDMXCSR, ldmxcsr, 0) _(VLDMXCSR, ldmxcsr, 0) _(STMXCSR, stmxcsr, 0) _(VSTMXCSR, stmxcsr, 0)                  \
	_(FNSAVE, fnsave, 0) _(FRSTOR, frstor, 0) _(FNSTENV, fnstenv, 0) _(FLDENV, fldenv, 0)                          \
	_(FWAIT, fwait, 0) _(EMMS, emms, 0)
/* clang-format on */

#define INSN_LOCK   BIT(0)  /* LOCK prefix, on a memory destination */
#define INSN_REP    BIT(1)  /* F3 */
#define INSN_REPNE  BIT(2)  /* F2 */
#define INSN_MEM    BIT(3)  /* has a memory operand (base, index, scale, disp, seg, addrsize) */
#define INSN_ENDS   BIT(4)  /* ends a block: sets rip or changes what later instructions mean */
#define INSN_IO	    BIT(5)  /* may reach a device */
#define INSN_TIME   BIT(6)  /* reads guest time or the instruction count: counters must be exact */
#define INSN_SYSTEM BIT(7)  /* run by cpu_system_ops[op] */
#define INSN_HOST   BIT(8)  /* MMX, SSE, AVX or x87 computation, done by the host's own instruction */
#define INSN_RIPREL BIT(9)  /* the memory operand is RIP-relative: base is REG_IP */
#define INSN_FAR    BIT(10) /* JMP, CALL or RET to another code segment */
#define INSN_VEX    BIT(12) /* VEX-encoded: undefined in real and virtual-8086 mode, whatever the code segment's size */
#define INSN_FAR_IP BIT(11) /* RIP-relative, near 2 GiB: the displacement is 4 GiB more than disp, see insn_disp() */

/* Everything else that decoding can yield: what an engine implements itself. */
/* clang-format off */
#define CPU_INTEGER_OPS(_)                                                                                             \
	_(ADD) _(ADC) _(AND) _(OR) _(XOR) _(SUB) _(SBB) _(CMP) _(TEST) _(INC) _(DEC) _(NEG) _(NOT) _(MUL) _(IMUL)      \
	_(DIV) _(IDIV) _(MOV) _(MOVZX) _(MOVSX) _(MOVSXD) _(LEA) _(XCHG) _(XADD) _(CMPXCHG) _(CMPXCHG8B)               \
	_(CMPXCHG16B) _(PUSH) _(POP) _(PUSHA) _(PUSHAD) _(POPA) _(POPAD) _(ENTER) _(LEAVE) _(CALL) _(RET) _(JMP)       \
	_(JO) _(JNO) _(JB) _(JNB) _(JZ) _(JNZ) _(JBE) _(JNBE) _(JS) _(JNS) _(JP) _(JNP) _(JL) _(JNL) _(JLE) _(JNLE)    \
	_(JCXZ) _(JECXZ) _(JRCXZ) _(LOOP) _(LOOPE) _(LOOPNE)                                                           \
	_(SETO) _(SETNO) _(SETB) _(SETNB) _(SETZ) _(SETNZ) _(SETBE) _(SETNBE)                                          \
	_(SETS) _(SETNS) _(SETP) _(SETNP) _(SETL) _(SETNL) _(SETLE) _(SETNLE)                                          \
	_(CMOVO) _(CMOVNO) _(CMOVB) _(CMOVNB) _(CMOVZ) _(CMOVNZ) _(CMOVBE) _(CMOVNBE)                                  \
	_(CMOVS) _(CMOVNS) _(CMOVP) _(CMOVNP) _(CMOVL) _(CMOVNL) _(CMOVLE) _(CMOVNLE)                                  \
	_(ROL) _(ROR) _(RCL) _(RCR) _(SHL) _(SHR) _(SAR) _(SHLD) _(SHRD)                                               \
	_(BT) _(BTS) _(BTR) _(BTC) _(BSF) _(BSR) _(TZCNT) _(LZCNT) _(POPCNT) _(BSWAP) _(MOVBE) _(CRC32)                \
	_(ANDN) _(BEXTR) _(BLSI) _(BLSMSK) _(BLSR) _(BZHI) _(MULX) _(PDEP) _(PEXT) _(RORX) _(SARX) _(SHLX) _(SHRX)     \
	_(ADCX) _(ADOX) _(CBW) _(CWDE) _(CDQE) _(CWD) _(CDQ) _(CQO) _(CLC) _(STC) _(CMC) _(CLD) _(STD)                 \
	_(LAHF) _(SAHF) _(NOP) _(PAUSE) _(LFENCE) _(MFENCE) _(SFENCE) _(CLFLUSH) _(CLFLUSHOPT) _(CLWB)                 \
	_(PREFETCH) _(PREFETCHW) _(PREFETCHNTA) _(PREFETCHT0) _(PREFETCHT1) _(PREFETCHT2) _(MOVNTI)                    \
	_(XLAT) _(SALC) _(AAA) _(AAS) _(AAD) _(AAM) _(DAA) _(DAS) _(BOUND) _(UD0) _(UD1) _(UD2)                        \
	_(ENDBR32) _(ENDBR64)
/* clang-format on */

enum op {
	OP_INVALID,  /* #UD */
	OP_TOO_LONG, /* over 15 bytes: #GP(0) */
	/* mnemonics that mean two instructions */
	OP_MOVSD_STRING,
	OP_CMPSD_STRING, /* MOVSD, CMPSD of the string kind; run by op_movs, op_cmps */
	OP_MOV_SREG,	 /* MOV to or from a segment register: op_mov_sreg */
	OP_PUSH_SREG,
	OP_POP_SREG, /* op_push_sreg, op_pop_sreg */
	OP_MOV_CR,
	OP_MOV_DR, /* op_mov_cr, op_mov_dr */
	OP_JMP_FAR,
	OP_CALL_FAR,
	OP_RET_FAR, /* op_jmp_far, op_call_far, op_ret_far */
	OP_HOST,    /* INSN_HOST: see struct insn_host */
	OP_GATHER,  /* VPGATHER*, VGATHER* */
	OP_MASKMOV, /* VMASKMOV*, VPMASKMOV*, MASKMOVDQU, MASKMOVQ */
	OP_VZERO,   /* VZEROUPPER, VZEROALL: imm 0 or 1 */
#define _(mnemonic, ...) OP_##mnemonic,
	CPU_SYSTEM_OPS(_) CPU_INTEGER_OPS(_)
#undef _
		OP_COUNT
};

/* How an instruction's explicit operands are laid out in struct insn. */
enum form {
	FORM_NONE,  /* no explicit operands (implicit ones as the manual says) */
	FORM_R,	    /* reg */
	FORM_M,	    /* memory */
	FORM_I,	    /* imm */
	FORM_RR,    /* reg, rm: both registers, reg is the first operand whatever the encoding */
	FORM_RI,    /* reg, imm */
	FORM_RM,    /* reg, memory */
	FORM_MR,    /* memory, reg */
	FORM_MI,    /* memory, imm */
	FORM_RRI,   /* reg, rm, imm */
	FORM_RMI,   /* reg, memory, imm */
	FORM_MRI,   /* memory, reg, imm */
	FORM_RRR,   /* reg, rm, reg2: three registers in the order written */
	FORM_RRM,   /* reg, reg2, memory  (e.g. ANDN, MULX, PDEP: second operand VEX.vvvv) */
	FORM_RMR,   /* reg, memory, reg2  (e.g. BEXTR, SHLX) */
	FORM_HOST,  /* see struct insn_host */
	FORM_OTHER, /* e.g. far pointers (imm = selector << 32 | offset), ENTER (imm = size | nesting << 16) */
};

/*
 * An instruction, decoded. Engine-neutral but for `handler` and `aux`. Registers are byte offsets from
 * cpu_state.gpr[0]: 8 * number, plus 1 for AH, CH, DH, BH. The implicit CL count of shifts is FORM_RR/FORM_MR with reg/rm 8.
 */
struct insn {
	const void *handler; /* the engine's */
	const void *aux;     /* the engine's */
	uint64_t imm;	     /* sign-extended to 64 bits; for direct branches the displacement; moffs: the address */
	int32_t disp;	     /* sign-extended; RIP-relative: relative to ip_base, i.e. disp + offset + len */
	uint16_t op;	     /* enum op */
	uint16_t offset;     /* of the first byte from the start of the block */
	uint16_t flags;	     /* INSN_* */
	uint8_t len;	     /* 1..15 */
	uint8_t form;	     /* enum form */
	uint8_t opsize;	     /* bytes of the (first) operand: 1, 2, 4, 8, 16, 32; memory operand size for LEA-like: 0 */
	uint8_t srcsize; /* bytes of the source of MOVZX, MOVSX, MOVSXD, CRC32, of a far pointer's offset; else opsize */
	uint8_t addrsize;      /* 2, 4, 8 */
	uint8_t seg;	       /* enum seg of the memory operand, defaults applied */
	uint8_t reg, rm, reg2; /* byte offsets */
	uint8_t base, index;   /* byte offsets; 8 * REG_NONE when absent */
	uint8_t scale;	       /* shift: 0..3 */
	uint8_t sreg;	       /* segment, control or debug register number of the MOV/PUSH/POP/L?S forms */
	uint8_t ea_flat;       /* 1: effective address is base + (index << scale) + disp, 64-bit, no segment base */
	uint8_t bytes[15];
	uint8_t store; /* MOV_SREG, MOV_CR, MOV_DR: 1 when the special register is the source */
};

/*
 * How an instruction is encoded and which registers it uses: for engines that run it with the host's own instruction. Filled on
 * request by decoding, for all but string instructions.
 */
struct insn_host {
	uint16_t vec_read, vec_written; /* bit n: XMM/YMM n */
	bool x87, mmx;			/* touches that unit; MMX registers alias ST mantissas */
	bool vex;			/* VEX-encoded: a written register is zeroed above the result */
	bool wide;			/* some operand has 256 bits */
	bool writes_flags;		/* COMISS, PTEST, FCOMI, PCMPISTRI...: the status flags; the rest are kept */
	bool reads_flags;		/* FCMOVcc */
	uint16_t gpr_read, gpr_written; /* bit n: general registers, explicit and implicit, without address registers */
	uint8_t gpr_place;		/* explicit one's field: 0 none, 1 ModRM.reg, 2 ModRM.rm */
	uint8_t mem_size;		/* bytes; 0 without a memory operand */
	bool mem_read, mem_written;
	uint8_t mem_align;	       /* bytes of alignment required on pain of #GP(0), else 1 */
	uint8_t prefix_len;	       /* legacy prefixes before REX/VEX/opcode */
	uint8_t modrm_offset;	       /* 0: no ModRM */
	uint8_t disp_offset, disp_len; /* displacement bytes, to be cut out */
	uint8_t imm_offset, imm_len;
	bool control;	   /* x87: FNINIT, FLDCW, FNSTCW, FNCLEX, FNSTSW...: does not set FIP/FDP/FOP */
	bool initial;	   /* FNINIT: clears them */
	bool waiting;	   /* x87/MMX: a pending unmasked exception is reported first (#MF) */
	uint16_t mnemonic; /* of the decoding library: for messages and tables only */
};

/* Code segment's mode, and what else decoding depends on. */
enum code_mode { MODE_16, MODE_32, MODE_64 };

struct cpu_model;

/*
 * Decode one instruction from `avail` bytes. Returns its length, or 0 when avail bytes are too few to tell (never when
 * avail >= 15). Undefined encodings and instructions that the model does not offer yield OP_INVALID; their length is how many bytes tell that.
 * block_offset: offset of this instruction from the block's start, for RIP-relative operands. flat_segments: DS, ES, SS
 * and CS have base 0 and 4 GiB limits (32-bit code); ea_flat is set for 64-bit code when no FS/GS override applies.
 * host may be NULL.
 */
unsigned cpu_decode(const struct cpu_model *, enum code_mode, const uint8_t *bytes, size_t avail, unsigned block_offset,
		    struct insn *, struct insn_host *host);

/*
 * The same result, mostly from memory: decode_cache.c. A cache belongs to one vCPU; the model must outlive it.
 */
struct decode_cache;
struct decode_cache *decode_cache_create(const struct cpu_model *); /* NULL: no memory */
void decode_cache_destroy(struct decode_cache *);
unsigned cpu_decode_cached(struct decode_cache *, enum code_mode, const uint8_t *bytes, size_t avail,
			   unsigned block_offset, struct insn *, struct insn_host *host);
/* How many instructions it had to decode. */
uint64_t decode_cache_missed(const struct decode_cache *);

/* Disassembly in Intel syntax, for traces and messages, and how long it is: 1 for what is none. */
unsigned cpu_disassemble(enum code_mode, const uint8_t *bytes, size_t avail, uint64_t rip, char *text, size_t size);

#endif
