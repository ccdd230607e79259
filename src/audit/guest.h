/*
 * What the audit's guest (guest.S) and the monitor's side of it agree on: where things lie in the guest's memory, the values that
 * its kernel gives to registers and tables, which user mode must see, and the records that pass between the two. For C and assembler.
 */
#ifndef DOPPEL_AUDIT_GUEST_H
#define DOPPEL_AUDIT_GUEST_H

/*
 * ---- memory: these 2 MiB, open to ring 3. Legacy mode is without paging; in long mode every canonical address leads to
 * them, address modulo 2 MiB, but the page at KERNEL_PAGE is for ring 0 alone ----
 */

#define GUEST_CURRENT	   0x7000  /* addresses of the case and the result at hand */
#define GUEST_CODE	   0x20000 /* the snippets, each in a slot; CS of virtual-8086 mode is this / 16 */
#define GUEST_DATA	   0x30000 /* what RDI points to; DS and SS of virtual-8086 mode are this / 16 */
#define GUEST_STACK	   0x3f000 /* top of the snippets' stack, in the same 64 KiB */
#define GUEST_MARK	   0x32000 /* where MARK_DS begins; holds MARK_WORD */
#define GUEST_CASES	   0x40000
#define GUEST_RESULTS	   0x50000
#define GUEST_IDT_32	   0x60000
#define GUEST_IDT_64	   0x61000
#define GUEST_TSS	   0x62000
#define GUEST_KERNEL_STACK 0x6f000  /* its top */
#define GUEST_TABLES	   0x70000  /* page tables: one of each of three levels */
#define GUEST_KERNEL	   0x100000 /* the image of guest.S */
#define GUEST_GDT	   (GUEST_KERNEL + 0x10)

#define KERNEL_PAGE  0x200000
#define SNIPPET_SLOT 64
#define MAX_CASES    256

/* ---- selectors ---- */

#define KERNEL_CS32 0x08
#define KERNEL_CS64 0x10
#define KERNEL_DS   0x18
#define USER_CS32   0x23
#define USER_DS	    0x2b
#define USER_CS64   0x33
#define OTHER_CS32  0x3b /* the same segments once more: targets of far transfers */
#define OTHER_CS64  0x43
#define MARK_DS	    0x4b /* ring 3, base GUEST_MARK, limit MARK_LIMIT, AVL set */
#define READ_DS	    0x53 /* ring 3, not writable */
#define EXECUTE_CS  0x5b /* ring 3, not readable */
#define GATE_32	    0x63 /* call gates for ring 3 */
#define GATE_64	    0x6b /* 16 bytes */
#define GUEST_LDT   0x78 /* 16 bytes */
#define TSS_32	    0x88
#define TSS_64	    0x90 /* 16 bytes */
#define GDT_SIZE    0xa0

#define MARK_LIMIT  0xabcd
#define MARK_RIGHTS 0x50f300 /* as LAR shows them */
#define MARK_WORD   0x600df00d

/* ---- vectors, and what stands for one where no vector is ---- */

#define VECTOR_END   0x40 /* INT: the snippet's end */
#define VECTOR_USER  0x50 /* INT: a gate for ring 3 */
#define VECTOR_KERN  0x51 /* INT: a gate for ring 0 alone */
#define IDT_VECTORS  0x52
#define CAME_BY_GATE 0x80 /* CALL far through the call gate */
#define CAME_BY_CALL 0x81 /* SYSCALL, SYSENTER: the kernel's entry */

/* ---- registers as the guest's kernel sets them ---- */

#define GUEST_MSW     0x3b /* CR0: PE, MP, TS, ET, NE */
#define GUEST_TSC     0x5a /* TSC >> 40: within 18 minutes */
#define GUEST_TSC_AUX 0x1234
#define GUEST_FS_BASE 0x30100
#define GUEST_GS_BASE 0x30200
#define FS_WORD	      0x0f50f5 /* at those bases */

/* ---- records: offsets for guest.S, checked against the structures in load.c ---- */

#define CASE_KIND   0 /* one of these */
#define KIND_NONE   0 /* end of the list */
#define KIND_LEGACY 1 /* protected mode of 32 bits, paging off, and virtual-8086 mode */
#define KIND_LONG   2 /* 64-bit and compatibility mode */
#define CASE_IP	    4
#define CASE_FLAGS  8
#define CASE_CS	    12
#define CASE_SS	    16
#define CASE_SP	    20
#define CASE_DATA   24 /* DS, ES, FS, GS; of virtual-8086 mode too, where KERNEL's are loaded meanwhile */
#define CASE_CR4    28
#define CASE_RAX    32
#define CASE_DI	    40
#define CASE_SIZE   64
#define RESULT_DONE 120
#define RESULT_SIZE 128

#endif
