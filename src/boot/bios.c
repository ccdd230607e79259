/*
 * What of a PC's BIOS is left for kernels that are booted directly: the words of its data area that they read, and interrupt vectors,
 * because some go back to real mode and ask it (Xen for disks and video modes). Every service answers that there is none.
 */
#include "boot/private.h"

/* Just below the reset vector, where IBM's BIOS has its dummy interrupt handler, an IRET. */
#define CODE_SEGMENT 0xf000u
#define CODE_OFFSET  0xff53u

static const uint8_t code[] = {
	/* exceptions, and what is nobody's: */
	0xcf, /* iret */
	/* hardware interrupts: */
	0x50, 0xb0, 0x20, /* push ax; mov al, 0x20 */
	0xe6, 0x20,	  /* out 0x20, al: end of interrupt */
	0xe6, 0xa0,	  /* out 0xa0, al */
	0x58, 0xcf,	  /* pop ax; iret */
	/* services: function not supported, carry set in the flags that are returned */
	0xb4, 0x86,		/* mov ah, 0x86 */
	0x55, 0x89, 0xe5,	/* push bp; mov bp, sp */
	0x80, 0x4e, 0x06, 0x01, /* or byte [bp + 6], 1 */
	0x5d, 0xcf,		/* pop bp; iret */
};
enum { DUMMY = 0, HARDWARE = 1, SERVICE = 10 };

static unsigned handler(unsigned vector)
{
	switch (vector) {
	case 0x08 ... 0x0f:
	case 0x70 ... 0x77: return HARDWARE;
	case 0x10 ... 0x1a: return SERVICE;
	default: return DUMMY;
	}
}

void bios_write(struct guest_mem *mem)
{
	uint16_t ebda_segment = EBDA_START >> 4, base_memory_kib = EBDA_START >> 10;

	for (unsigned vector = 0; vector < 256; vector++) {
		uint32_t pointer = CODE_SEGMENT << 16 | (CODE_OFFSET + handler(vector));

		boot_write(mem, 4 * (uint64_t)vector, &pointer, sizeof(pointer));
	}
	boot_write(mem, CODE_SEGMENT * 16 + CODE_OFFSET, code, sizeof(code));
	boot_write(mem, LOW_BDA + 0x0e, &ebda_segment, 2);
	boot_write(mem, LOW_BDA + 0x13, &base_memory_kib, 2);
}
