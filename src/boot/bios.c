/*
 * What of a PC's BIOS is left for kernels that are booted directly: a ROM at the reset vector (bios_rom.S), the words of the BIOS's data
 * area that kernels read, and interrupt vectors, because some go back to real mode and ask it.
 */
#include "boot/bios.h"
#include "boot/pc.h"
#include "boot/private.h"

/* Labels of bios_rom.S */
extern const uint8_t bios_rom[], bios_dummy[], bios_timer[], bios_master[], bios_slave[], bios_teletype[],
	bios_equipment[], bios_base_memory[], bios_none[], bios_system[], bios_keyboard[], bios_bootstrap[],
	bios_time[];

#define ROM_BELOW_1M (FIRMWARE_END - BIOS_SIZE)
_Static_assert(BIOS_SEGMENT * 16 + BIOS_OFFSET == ROM_BELOW_1M, "the segment that it was assembled for");
_Static_assert(BIOS_SEGMENT * 16 + BIOS_MAP == LEGACY_TABLES_END, "behind the tables");
_Static_assert(SHUTDOWN_REGISTER == BOOT_SHUTDOWN_CODE, "one register");
_Static_assert(MEMORY_RANGES_MAX *BIOS_ENTRY_SIZE <= BIOS_MAP_COUNT - BIOS_MAP, "room for the memory map");

int bios_map(struct guest_mem *mem, struct error *err)
{
	int rc = mem_add_rom(mem, gpa(ROM_BELOW_1M), bios_rom, BIOS_SIZE, err);

	return rc ? rc : mem_add_rom(mem, gpa(MEM_HIGH_BASE - BIOS_SIZE), bios_rom, BIOS_SIZE, err);
}

void bios_shadow(struct guest_mem *mem) { boot_write(mem, ROM_BELOW_1M, bios_rom, BIOS_SIZE); }

bool bios_resumes(uint8_t shutdown_code)
{
	switch (shutdown_code) {
	case SHUTDOWN_EOI_JUMP:
	case SHUTDOWN_JUMP:
	case SHUTDOWN_IRET:
	case SHUTDOWN_RETF: return true;
	default: return false;
	}
}

static const uint8_t *handler(unsigned vector)
{
	switch (vector) {
	case 0x08: return bios_timer;
	case 0x09 ... 0x0f: return bios_master;
	case 0x10: return bios_teletype;
	case 0x11: return bios_equipment;
	case 0x12: return bios_base_memory;
	case 0x13 ... 0x14:
	case 0x17: return bios_none;
	case 0x15: return bios_system;
	case 0x16: return bios_keyboard;
	case 0x18 ... 0x19: return bios_bootstrap;
	case 0x1a: return bios_time;
	case 0x70 ... 0x77: return bios_slave;
	default: return bios_dummy;
	}
}

static void write_vectors(struct guest_mem *mem)
{
	for (unsigned vector = 0; vector < 256; vector++) {
		uint32_t pointer = (uint32_t)BIOS_SEGMENT << 16 | (uint32_t)(handler(vector) - bios_rom + BIOS_OFFSET);

		boot_write(mem, 4 * (uint64_t)vector, &pointer, sizeof(pointer));
	}
}

/* Offsets in the BIOS's data area (IBM PC AT Technical Reference). */
#define BDA_SIZE	    0x100
#define BDA_COM		    0x00 /* ports of COM1 to COM4, then of LPT1 to LPT3, 0: none */
#define BDA_EBDA	    0x0e
#define BDA_EQUIPMENT	    0x10
#define BDA_BASE_MEMORY	    0x13
#define BDA_KEYBOARD_HEAD   0x1a
#define BDA_KEYBOARD_TAIL   0x1c
#define BDA_KEYBOARD_BUFFER 0x1e /* 16 words */
#define BDA_TIMEOUTS	    0x78 /* of LPT and COM */
#define BDA_BUFFER_START    0x80
#define BDA_BUFFER_END	    0x82

#define EQUIPMENT_FPU	    BIT(1)
#define EQUIPMENT_SERIAL(n) ((n) << 9)

static void write_data_area(struct guest_mem *mem, const struct pc *pc)
{
	uint8_t bda[BDA_SIZE] = { 0 };
	unsigned serial = 0;

	for (unsigned n = 0; n < UART_COUNT; n++)
		if (pc->serial_ports & BIT(n))
			store_le16(bda + BDA_COM + 2 * serial++, pc_serial_port(n));
	store_le16(bda + BDA_EBDA, EBDA_START >> 4);
	store_le16(bda + BDA_EQUIPMENT, (uint16_t)(EQUIPMENT_FPU | EQUIPMENT_SERIAL(serial)));
	store_le16(bda + BDA_BASE_MEMORY, EBDA_START >> 10);
	store_le16(bda + BDA_KEYBOARD_HEAD, BDA_KEYBOARD_BUFFER);
	store_le16(bda + BDA_KEYBOARD_TAIL, BDA_KEYBOARD_BUFFER);
	store_le16(bda + BDA_BUFFER_START, BDA_KEYBOARD_BUFFER);
	store_le16(bda + BDA_BUFFER_END, BDA_KEYBOARD_BUFFER + 32);
	memset(bda + BDA_TIMEOUTS, 1, 8);
	boot_write(mem, LOW_BDA, bda, sizeof(bda));
}

/* What INT 15h answers. */
static void write_memory_sizes(struct guest_mem *mem)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	unsigned n = boot_memory_map(mem, map);
	uint64_t extended = boot_low_ram_end(mem) - FIRMWARE_END;
	uint64_t below_16m = MIN(extended, 15ull << 20);
	uint8_t sizes[BIOS_ABOVE_16M + 2 - BIOS_MAP] = { 0 };

	for (unsigned i = 0; i < n; i++) {
		store_le64(sizes + BIOS_ENTRY_SIZE * i, map[i].start);
		store_le64(sizes + BIOS_ENTRY_SIZE * i + 8, map[i].size);
		store_le32(sizes + BIOS_ENTRY_SIZE * i + 16, map[i].type);
	}
	store_le32(sizes + (BIOS_MAP_COUNT - BIOS_MAP), n);
	store_le16(sizes + (BIOS_EXTENDED - BIOS_MAP), (uint16_t)MIN(extended >> 10, 0xfc00));
	store_le16(sizes + (BIOS_BELOW_16M - BIOS_MAP), (uint16_t)(below_16m >> 10));
	store_le16(sizes + (BIOS_ABOVE_16M - BIOS_MAP), (uint16_t)((extended - below_16m) >> 16));
	boot_write(mem, BIOS_SEGMENT * 16 + BIOS_MAP, sizes, sizeof(sizes));
}

void bios_write(struct guest_mem *mem, const struct pc *pc)
{
	const uint8_t ebda_kib = (BASE_MEMORY_END - EBDA_START) >> 10;

	write_vectors(mem);
	write_data_area(mem, pc);
	write_memory_sizes(mem);
	boot_write(mem, EBDA_START, &ebda_kib, sizeof(ebda_kib));
}
