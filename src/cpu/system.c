/*
 * The table by which engines reach the instructions of this folder.
 */
#include "cpu/cpu.h"

cpu_op_fn *const cpu_system_ops[OP_COUNT] = {
#define _(mnemonic, name, flags) [OP_##mnemonic] = op_##name,
	CPU_SYSTEM_OPS(_)
#undef _
		[OP_MOVSD_STRING] = op_movs,
	[OP_CMPSD_STRING] = op_cmps,
	[OP_MOV_SREG] = op_mov_sreg,
	[OP_PUSH_SREG] = op_push_sreg,
	[OP_POP_SREG] = op_pop_sreg,
	[OP_MOV_CR] = op_mov_cr,
	[OP_MOV_DR] = op_mov_dr,
	[OP_JMP_FAR] = op_jmp_far,
	[OP_CALL_FAR] = op_call_far,
	[OP_RET_FAR] = op_ret_far,
};
