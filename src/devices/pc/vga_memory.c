/*
 * The processor's way to the planes, 0A0000h to 0BFFFFh: which planes an address means, what is done with a byte on its way (write modes, latches), and
 * where none of that makes a difference, so that the window can be plain memory:
 *
 *	a bank		64 KiB at 0A0000h in chained modes and in larger ones, of the planes' words as they are
 *	cells		32 KiB at 0B0000h or 0B8000h, characters and attributes of planes 0 and 1, which are elsewhere as long as they are plain
 *
 * What plain memory does not do is to load the latches: a program that reads there and only then sets a mode that uses them finds those of the last
 * read before.
 */
#include "devices/pc/vga.h"

/* The bytes of a word that belong to a set of planes. */
static uint32_t bytes_of(unsigned planes)
{
	return (planes & 1 ? 0xffu : 0) | (planes & 2 ? 0xff00u : 0) | (planes & 4 ? 0xff0000u : 0) |
	       (planes & 8 ? 0xff000000u : 0);
}

static uint32_t in_all_planes(uint8_t byte) { return byte * 0x01010101u; }

/* ---- addresses ---- */

/* Where the window is, GC_MISC bits 3..2. */
static const struct {
	uint32_t offset, size;
} maps[] = { { 0, 0x20000 }, { 0, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 } };

static unsigned map_of(const struct vga *v) { return v->graphics[GC_MISC] >> 2 & 3; }

static bool answers(const struct vga *v, uint32_t offset)
{
	return v->misc & MISC_MEMORY && v->enable && offset - maps[map_of(v)].offset < maps[map_of(v)].size;
}

struct place {
	uint32_t *word;
	unsigned write_planes; /* as far as the map mask goes along */
	unsigned read_plane;
};

static struct place place_of(const struct vga *v, uint32_t offset)
{
	uint32_t at = offset - maps[map_of(v)].offset;
	uint32_t words = vga_is_large(v) ? VGA_MEMORY / 4 : VGA_PLANE_WORDS;
	uint32_t bank = vga_bank(v);
	struct place place = { .write_planes = 15, .read_plane = v->graphics[GC_READ_MAP] & 3 };

	if (v->sequencer[SEQ_MEMORY_MODE] & MEMORY_MODE_CHAIN_4) {
		place.read_plane = at & 3;
		place.write_planes = 1u << (at & 3);
		at = (bank + at) >> 2;
	} else {
		if (!(v->sequencer[SEQ_MEMORY_MODE] & MEMORY_MODE_LINEAR))
			place.write_planes = at & 1 ? 0xa : 0x5;
		if (v->graphics[GC_MODE] & MODE_ODD_EVEN)
			place.read_plane = (place.read_plane & 2) | (at & 1);
		at = v->graphics[GC_MISC] & GC_MISC_ODD_EVEN ? (bank + at) >> 1 : bank + at;
	}
	place.word = vga_words(v) + at % words;
	return place;
}

/* ---- reading ---- */

/* Bit n: pixel n has the colour that is asked for, in the planes that count. */
static uint8_t compare(const struct vga *v, uint32_t word)
{
	uint32_t differs = (word ^ bytes_of(v->graphics[GC_COMPARE])) & bytes_of(v->graphics[GC_DONT_CARE]);

	differs |= differs >> 16;
	return (uint8_t) ~(differs | differs >> 8);
}

uint8_t vga_read_window(struct vga *v, uint32_t offset)
{
	struct place place;

	if (vga_is_packed(v))
		return offset < VGA_BANK ? vga_memory(v)[vga_bank(v) + offset] : 0xff;
	if (!answers(v, offset))
		return 0xff;
	place = place_of(v, offset);
	v->latches = *place.word;
	if (v->graphics[GC_MODE] & MODE_READ_COMPARE)
		return compare(v, v->latches);
	return (uint8_t)(v->latches >> (8 * place.read_plane));
}

/* ---- writing ---- */

static uint8_t rotate(const struct vga *v, uint8_t byte)
{
	unsigned by = v->graphics[GC_ROTATE] & 7;

	return (uint8_t)(byte >> by | byte << (8 - by));
}

static uint32_t combine(const struct vga *v, uint32_t word)
{
	switch (v->graphics[GC_ROTATE] >> 3) {
	case 1: return word & v->latches;
	case 2: return word | v->latches;
	case 3: return word ^ v->latches;
	default: return word;
	}
}

/* Bits of the mask from the word, the others from the latches. */
static uint32_t masked(const struct vga *v, uint32_t word, uint8_t mask)
{
	uint32_t bits = in_all_planes(mask);

	return (combine(v, word) & bits) | (v->latches & ~bits);
}

static uint32_t written(const struct vga *v, uint8_t byte)
{
	uint8_t mask = v->graphics[GC_BIT_MASK];
	uint32_t set = bytes_of(v->graphics[GC_ENABLE_SET_RESET]);

	switch (v->graphics[GC_MODE] & 3) {
	case 0:
		return masked(v, (in_all_planes(rotate(v, byte)) & ~set) | (bytes_of(v->graphics[GC_SET_RESET]) & set),
			      mask);
	case 1: return v->latches;
	case 2: return masked(v, bytes_of(byte), mask);
	default: return masked(v, bytes_of(v->graphics[GC_SET_RESET]), mask & rotate(v, byte));
	}
}

static void write_planes(struct vga *v, uint32_t offset, uint8_t value)
{
	struct place place = place_of(v, offset);
	uint32_t bytes = bytes_of(place.write_planes & v->sequencer[SEQ_MAP_MASK]);

	*place.word = (*place.word & ~bytes) | (written(v, value) & bytes);
	mem_dma_written(v->pci.device.bus->mem, place.word, sizeof(*place.word));
}

void vga_write_memory(struct vga *v, uint32_t offset, uint8_t value)
{
	vga_memory(v)[offset] = value;
	mem_dma_written(v->pci.device.bus->mem, vga_memory(v) + offset, 1);
}

void vga_write_window(struct vga *v, uint32_t offset, uint8_t value)
{
	if (!vga_is_packed(v)) {
		if (answers(v, offset))
			write_planes(v, offset, value);
	} else if (offset < VGA_BANK) {
		vga_write_memory(v, vga_bank(v) + offset, value);
	}
}

/* ---- the window as plain memory ---- */

/* Does a byte go to its plane as it is, and come from there? */
static bool moves_bytes(const struct vga *v)
{
	return v->misc & MISC_MEMORY && v->enable && !(v->graphics[GC_ENABLE_SET_RESET] & 15) &&
	       !v->graphics[GC_ROTATE] && !(v->graphics[GC_MODE] & (3 | MODE_READ_COMPARE)) &&
	       v->graphics[GC_BIT_MASK] == 0xff;
}

static bool is_odd_even(const struct vga *v)
{
	return !(v->sequencer[SEQ_MEMORY_MODE] & (MEMORY_MODE_CHAIN_4 | MEMORY_MODE_LINEAR)) &&
	       v->graphics[GC_MODE] & MODE_ODD_EVEN && v->graphics[GC_MISC] & GC_MISC_ODD_EVEN &&
	       !(v->graphics[GC_READ_MAP] & 2);
}

/* A bank: where it is in the memory; cells: where they are shown. */
static struct vga_plain plain_as(enum vga_plain_kind kind, uint32_t at) { return (struct vga_plain){ kind, at }; }

static struct vga_plain wanted(const struct vga *v)
{
	if (vga_is_packed(v)) /* with DISPI_LINEAR the guest uses BAR 0 */
		return plain_as(v->dispi[DISPI_ENABLE] & DISPI_LINEAR ? VGA_TRAPPED : VGA_PLAIN_BANK, vga_bank(v));
	if (!moves_bytes(v) || vga_is_large(v))
		return plain_as(VGA_TRAPPED, 0);
	if (map_of(v) == 1 && v->sequencer[SEQ_MEMORY_MODE] & MEMORY_MODE_CHAIN_4 && v->sequencer[SEQ_MAP_MASK] == 15)
		return plain_as(VGA_PLAIN_BANK, 0);
	if (map_of(v) >= 2 && is_odd_even(v) && v->sequencer[SEQ_MAP_MASK] == 3)
		return plain_as(VGA_PLAIN_CELLS, maps[map_of(v)].offset);
	return plain_as(VGA_TRAPPED, 0);
}

/* Planes 0 and 1 are the lower half of a word. */
static void cells_to_planes(struct vga *v)
{
	const uint16_t *cells = vga_cells(v);
	uint32_t *words = vga_words(v);

	for (unsigned n = 0; n < VGA_CELLS / 2; n++)
		words[n] = (words[n] & 0xffff0000) | cells[n];
	mem_dma_written(v->pci.device.bus->mem, words, VGA_CELLS / 2 * sizeof(*words));
}

static void planes_to_cells(struct vga *v)
{
	const uint32_t *words = vga_words(v);
	uint16_t *cells = vga_cells(v);

	for (unsigned n = 0; n < VGA_CELLS / 2; n++)
		cells[n] = (uint16_t)words[n];
	mem_dma_written(v->pci.device.bus->mem, cells, VGA_CELLS);
}

static void place_layer(struct vga *v, struct mem_layer *layer, uint64_t start, bool shown)
{
	mem_layer_set(v->pci.device.bus->mem, layer, shown ? start : layer->start, shown, shown);
}

/* Of another part of the memory: the offset is no part of what may be set. */
static void move_bank(struct vga *v, uint32_t offset)
{
	struct guest_mem *mem = v->pci.device.bus->mem;

	if (v->bank.offset == offset)
		return;
	mem_layer_remove(mem, &v->bank);
	v->bank.offset = offset;
	BUG_ON(mem_layer_add(mem, &v->bank, NULL)); /* it has had a place */
}

static void place_layers(struct vga *v)
{
	const struct bus_range *bar = &v->pci.bars[0].range;
	bool bank = v->plain.kind == VGA_PLAIN_BANK;

	if (bank)
		move_bank(v, v->plain.at);
	place_layer(v, &v->bank, VGA_WINDOW, bank);
	place_layer(v, &v->hole, bar->start + v->bank.offset, bank && bar->mapped);
	place_layer(v, &v->cells, VGA_WINDOW + v->plain.at, v->plain.kind == VGA_PLAIN_CELLS);
	bus_remap(v->pci.device.bus);
}

void vga_show_window(struct vga *v)
{
	bool were_cells = v->plain.kind == VGA_PLAIN_CELLS;

	v->plain = wanted(v);
	if (were_cells && v->plain.kind != VGA_PLAIN_CELLS)
		cells_to_planes(v);
	if (!were_cells && v->plain.kind == VGA_PLAIN_CELLS)
		planes_to_cells(v);
	place_layers(v);
}

void vga_attach_window(struct vga *v)
{
	v->plain = wanted(v);
	place_layers(v);
}

void vga_window_changed(struct vga *v)
{
	struct vga_plain next = wanted(v);

	if (v->plain.kind != next.kind || v->plain.at != next.at)
		bus_defer(v->pci.device.bus, &v->remap);
}
