/*
 * Legacy mode for guests that test it: real mode, virtual-8086 mode, protected mode with segments of 16 and 32 bits and whatever
 * paging, each in any ring. legacy_run() leaves long mode, loads every register from a struct legacy_state, and comes back to
 * 64-bit mode with the state at the first exception or interrupt: run() of guest.h for the processor's older modes.
 *
 * Legacy mode has its own GDT, IDT and TSS. The GDT begins like the library's, so that KERNEL_CS32, USER_DS etc. are what they are
 * there. All vectors up to LEGACY_VECTORS have interrupt gates of ring 0; that of END_VECTOR has DPL 3.
 */
#ifndef LEGACY_H
#define LEGACY_H

#include "guest.h"

/* Selectors in the legacy GDT. */
#define LEGACY_TSS	   0x58 /* 32 bits; its stack of ring 0 is legacy_ring0_stack() */
#define LEGACY_CS16	   0x60 /* base LOW_CODE, limit 0xffff; likewise the next three */
#define LEGACY_DS16	   0x68 /* base LOW_DATA */
#define LEGACY_SS16	   0x70 /* base LOW_STACK */
#define LEGACY_USER_CS16   0x7b
#define LEGACY_USER_DS16   0x83
#define LEGACY_USER_SS16   0x8b
#define LEGACY_REAL_CS	   0x90 /* lib's own: base REAL_PAGE */
#define LEGACY_REAL_DS	   0x98 /* lib's own: base 0, limit 0xffff */
#define LEGACY_FREE	   0xa0 /* to 0x3f8: the tests' own */
#define LEGACY_GDT_ENTRIES 128
#define LEGACY_VECTORS	   96

/* Memory below 1 MiB: each is a real-mode segment of 64 KiB. */
#define REAL_PAGE 0x9000 /* lib's own */
#define LOW_CODE  0x10000
#define LOW_DATA  0x20000
#define LOW_STACK 0x30000

#define FLAG_VM	 (1 << 17)
#define FLAG_VIF (1 << 19)
#define FLAG_VIP (1 << 20)
#define CR4_VME	 (1 << 0)
#define CR4_PVI	 (1 << 1)
#define CR4_PSE	 (1 << 4)

#ifndef __ASSEMBLER__

/* legacy.S knows the order. */
struct legacy_state {
	u32 gs, fs, es, ds, edi, esi, ebp, unused_esp, ebx, edx, ecx, eax, eip, cs, eflags, esp, ss;
	u32 vm_es, vm_ds, vm_fs, vm_gs; /* filled in by legacy_run() */
	u32 cr0, cr3, cr4, efer, tr, ldtr;
	u32 real; /* real mode: segments are as in virtual-8086 mode. FS keeps a limit of 4 GiB */
};

/* In virtual-8086 mode the segments are those of the interrupted code, and handler_ds is what the handler found in DS. */
struct legacy_trap {
	u32 gs, fs, es, ds, edi, esi, ebp, handler_ds, ebx, edx, ecx, eax, eip, cs, eflags, esp, ss;
	u32 vector, error, tr, ldtr, cr0, cr2, cr3, dr6;
	u32 handler_esp; /* of the handler, with nothing pushed */
};

struct legacy_trap legacy_run(const struct legacy_state *);

/* For further arguments of these: overriding. */
#define RING0_32(at, ...) legacy_run(&(struct legacy_state){ LEGACY_RING0, .eip = (u32)(u64)(at), ##__VA_ARGS__ })
#define RING3_32(at, ...) legacy_run(&(struct legacy_state){ LEGACY_RING3, .eip = (u32)(u64)(at), ##__VA_ARGS__ })
#define LEGACY_COMMON	  .eflags = 2, .cr0 = (u32)(CR0_PE | CR0_NE), .tr = LEGACY_TSS
#define LEGACY_RING0                                                                                                   \
	LEGACY_COMMON, .cs = KERNEL_CS32, .ss = KERNEL_DS, .ds = KERNEL_DS, .es = KERNEL_DS, .fs = KERNEL_DS,          \
		       .gs = KERNEL_DS, .esp = legacy_stack()
#define LEGACY_RING3                                                                                                   \
	LEGACY_COMMON, .cs = USER_CS32, .ss = USER_DS, .ds = USER_DS, .es = USER_DS, .fs = USER_DS, .gs = USER_DS,     \
		       .esp = legacy_stack()
/* 16-bit code at offset `ip` of LOW_CODE; data and stack are in segments at LOW_DATA and LOW_STACK, SP is 0x1000. */
#define LEGACY_RING0_16                                                                                                \
	LEGACY_COMMON, .cs = LEGACY_CS16, .ss = LEGACY_SS16, .ds = LEGACY_DS16, .es = LEGACY_DS16, .fs = LEGACY_DS16,  \
		       .gs = LEGACY_DS16, .esp = 0x1000
#define LEGACY_RING3_16                                                                                                \
	LEGACY_COMMON, .cs = LEGACY_USER_CS16, .ss = LEGACY_USER_SS16, .ds = LEGACY_USER_DS16, .es = LEGACY_USER_DS16, \
		       .fs = LEGACY_USER_DS16, .gs = LEGACY_USER_DS16, .esp = 0x1000
#define LEGACY_PARAGRAPHS                                                                                              \
	.cs = LOW_CODE >> 4, .ss = LOW_STACK >> 4, .ds = LOW_DATA >> 4, .es = LOW_DATA >> 4, .fs = LOW_DATA >> 4,      \
	.gs = LOW_DATA >> 4, .esp = 0x1000
#define LEGACY_V86  LEGACY_COMMON, LEGACY_PARAGRAPHS, .eflags = 2 | FLAG_VM
#define LEGACY_REAL LEGACY_COMMON, LEGACY_PARAGRAPHS, .real = 1

#define LOW32(p) ((u32)(u64)(p))

u32 legacy_stack(void) __attribute__((pure)); /* top of a scratch stack */
u32 legacy_ring0_stack(void);		      /* what the TSS has */

u64 *legacy_descriptor(u16 selector); /* its place in the GDT */
u64 *legacy_gate(u8 vector);	      /* in the IDT */
/* A gate's eight bytes, for the IDT, GDT or an LDT; access: type, DPL and P, bits 40 to 47. */
u64 legacy_gate_to(u16 selector, u32 offset, u8 access, u8 parameters);
void legacy_reset_gate(u8 vector);
/* The IDT's limit of the next runs. */
void legacy_idt_limit(u16 limit);

/* The TSS of 32 bits, SDM vol. 3A figure 7-2. */
struct tss_32 {
	u32 link;
	struct {
		u32 esp, ss;
	} stack[3];
	u32 cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt;
	u16 trap, io_map;
};
/* With its maps behind it; the TSS's limit ends it before them, until a test says otherwise. */
extern struct legacy_system {
	struct tss_32 tss;
	u8 redirection[32]; /* of INT n in virtual-8086 mode: bit 1: none */
	u8 ports[8192 + 1];
} legacy_system;
#define legacy_tss legacy_system.tss
void legacy_reset_tss(void); /* and its descriptor; the maps are all ones */

/*
 * CODE16 with its size known, to be copied: place_code(NAME) puts it at LOW_CODE:0, and is its offset there. It ends by
 * INT END_VECTOR.
 */
#define CODE_LOW(name, text)                                                                                           \
	asm(".pushsection .text\n.balign 16\n.globl " #name ", " #name "_end\n" #name ": .code16\n" text               \
	    "\nint $0x40\n" #name "_end: .code64\n.popsection\n");                                                     \
	extern const u8 name[], name##_end[];
#define place_code(name) place_low(name, name##_end)
u32 place_low(const u8 *from, const u8 *end);
static inline void *low_data(u32 offset) { return (void *)(u64)(LOW_DATA + offset); }
static inline void *low_stack(u32 offset) { return (void *)(u64)(LOW_STACK + offset); }

/* What legacy_run() must have come back with. */
bool check_end_32(const struct legacy_trap *, const char *name, ...) __attribute__((format(printf, 2, 3)));
bool check_fault_32(const struct legacy_trap *, u32 vector, u32 error, const char *name, ...)
	__attribute__((format(printf, 4, 5)));

#endif
#endif
