/*
 * INVLPG and INVPCID: SDM vol. 3A 4.10.4.1.
 */
#include "cpu/segment.h"

/* INVLPG takes an address, not an operand: no limit, no type, and a non-canonical one does nothing. */
void op_invlpg(struct vcpu *v, const struct insn *i)
{
	uint64_t lin = cpu_ea(v, i);

	check_privileged(v);
	if (v->code_mode != MODE_64)
		lin = (uint32_t)(lin + v->s.seg_base[i->seg]);
	else if (i->seg >= FS)
		lin += v->s.seg_base[i->seg];
	if (is_canonical(lin))
		cpu_tlb_flush_page(v, gva(lin));
	v->s.rip = cpu_next_rip(v, i);
}

enum invpcid_type { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_ALL_BUT_GLOBAL };

void op_invpcid(struct vcpu *v, const struct insn *i)
{
	uint64_t type = cpu_reg(v, i->reg, v->code_mode == MODE_64 ? 8 : 4), lin, pcid, address;

	check_privileged(v);
	lin = cpu_operand(v, i, 16, ACCESS_READ);
	pcid = cpu_load(v, lin, 8, i->seg == SS);
	address = cpu_load(v, lin + 8, 8, i->seg == SS);
	if (type > INVPCID_ALL_BUT_GLOBAL || pcid >> 12)
		cpu_raise_error(v, EXC_GP, 0);
	if (type <= INVPCID_CONTEXT && pcid && !(v->s.cr4 & CR4_PCIDE))
		cpu_raise_error(v, EXC_GP, 0);
	if (type == INVPCID_ADDRESS && !is_canonical(address))
		cpu_raise_error(v, EXC_GP, 0);

	if (type >= INVPCID_ALL)
		cpu_tlb_flush(v);
	else if (type == INVPCID_ADDRESS && (!(v->s.cr4 & CR4_PCIDE) || pcid == (v->s.cr3 & 0xfff)))
		cpu_tlb_flush_page(v, gva(address));
	else
		cpu_tlb_flush_pcid(v, (uint16_t)pcid);
	v->s.rip = cpu_next_rip(v, i);
}
