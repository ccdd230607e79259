/*
 * What the ROM (bios_rom.S) and the C side of it (bios.c) agree on. For C and assembler.
 */
#ifndef DOPPEL_BOOT_BIOS_H
#define DOPPEL_BOOT_BIOS_H

/* The ROM is one page, the last below 1 MiB and once more the last below 4 GiB. */
#define BIOS_SIZE    0x1000
#define BIOS_SEGMENT 0xf000
#define BIOS_OFFSET  0xf000 /* its first byte in BIOS_SEGMENT */

/* For INT 15h, in the page before, as offsets in BIOS_SEGMENT: the memory map's entries as INT 15h AX=E820h returns them ... */
#define BIOS_MAP	0xe000
#define BIOS_MAP_COUNT	0xe100 /* ... how many there are, a dword; */
#define BIOS_EXTENDED	0xe104 /* KiB from 1 MiB on, for AH=88h: at most 63 MiB; */
#define BIOS_BELOW_16M	0xe106 /* for AX=E801h: KiB from 1 to 16 MiB; */
#define BIOS_ABOVE_16M	0xe108 /* and units of 64 KiB from 16 MiB on */
#define BIOS_ENTRY_SIZE 20

/* Shutdown codes in CMOS register 0Fh that let a processor's reset go on where 40:67 says (IBM PC AT Technical Reference, BIOS listing). */
#define SHUTDOWN_REGISTER 0x0f /* boot.h: BOOT_SHUTDOWN_CODE */
#define SHUTDOWN_EOI_JUMP 0x05 /* end of interrupt, then a jump */
#define SHUTDOWN_JUMP	  0x0a
#define SHUTDOWN_IRET	  0x0b /* 40:67 is a stack */
#define SHUTDOWN_RETF	  0x0c

#endif
