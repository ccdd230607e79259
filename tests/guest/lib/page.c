/*
 * Page tables: the identity mapping that guests run in, and single entries for the tests to change.
 */
#include "guest.h"

#define FRAMES 256

static u8 frames[FRAMES][4096] __attribute__((aligned(4096)));
static unsigned frames_used;
static u64 top[512] __attribute__((aligned(4096)));

void *frame_alloc(void)
{
	if (frames_used == FRAMES)
		die("no frame left");
	memset(frames[frames_used], 0, 4096);
	return frames[frames_used++];
}

u64 *entry_of(u64 linear, unsigned level)
{
	u64 *table = (u64 *)(read_cr3() & PTE_ADDRESS);

	for (unsigned at = 4;; at--) {
		u64 *entry = &table[linear >> (3 + 9 * at) & 511];

		if (at == level)
			return entry;
		if (!(*entry & PTE_P))
			*entry = (u64)frame_alloc() | PTE_P | PTE_W | PTE_U;
		table = (u64 *)(*entry & PTE_ADDRESS);
	}
}

void map_page(u64 linear, u64 physical, u64 flags)
{
	*entry_of(linear, 1) = physical | flags;
	invlpg(linear);
}

void unmap_page(u64 linear) { map_page(linear, 0, 0); }

u64 address_space(void)
{
	u64 *copy = frame_alloc();

	memcpy(copy, (void *)(read_cr3() & PTE_ADDRESS), 4096);
	return (u64)copy;
}

void paging_init(void)
{
	static const struct {
		u64 linear, physical, flags;
	} map[] = {
		{ 0, 0, PTE_P | PTE_W },
		{ USER_WINDOW, 0, PTE_P | PTE_W | PTE_U },
		{ DEVICES, DEVICES, PTE_P | PTE_W },
	};
	u64 *pointers = frame_alloc();

	top[0] = (u64)pointers | PTE_P | PTE_W | PTE_U;
	for (unsigned n = 0; n < ARRAY_SIZE(map); n++) {
		u64 *directory = frame_alloc();

		for (u64 i = 0; i < 512; i++)
			directory[i] = (map[n].physical + (i << 21)) | map[n].flags | PTE_PS;
		pointers[map[n].linear >> 30] = (u64)directory | PTE_P | PTE_W | PTE_U;
	}
	write_cr3((u64)top);
}
