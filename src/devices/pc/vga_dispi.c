/*
 * Bochs' extension of the VGA ("VBE_DISPI"): a picture of any size and 4 to 32 bits a pixel, in memory that BAR 0 shows as a whole and the processor's
 * window by banks of 64 KiB. What does not fit the memory, or each other, is cut to what does.
 */
#include "devices/pc/vga.h"

#include <errno.h>

#define ID_FIRST 0xb0c0
#define ID_LAST	 0xb0c5

static bool is_depth(unsigned depth)
{
	return depth == 4 || depth == 8 || depth == 15 || depth == 16 || depth == 24 || depth == 32;
}

uint32_t vga_dispi_stride(const struct vga *v)
{
	return vga_dispi_bytes(v->dispi[DISPI_DEPTH], v->dispi[DISPI_VIRTUAL_WIDTH]);
}

static uint16_t limit(uint32_t value, uint32_t least, uint32_t most) { return (uint16_t)MAX(MIN(value, most), least); }

/* While it is enabled all of the picture, and of the rows that may be moved into it, are in the memory: the largest picture is. */
static void fit(uint16_t d[DISPI_COUNT])
{
	uint32_t longest, rows;

	if (!is_depth(d[DISPI_DEPTH]))
		d[DISPI_DEPTH] = 8;
	d[DISPI_WIDTH] = limit(d[DISPI_WIDTH] & ~7u, 8, PICTURE_MAX_WIDTH);
	d[DISPI_HEIGHT] = limit(d[DISPI_HEIGHT], 1, PICTURE_MAX_HEIGHT);
	longest = (uint32_t)(VGA_MEMORY / vga_dispi_bytes(d[DISPI_DEPTH], 8) * 8 / d[DISPI_HEIGHT]);
	d[DISPI_VIRTUAL_WIDTH] = limit(d[DISPI_VIRTUAL_WIDTH], d[DISPI_WIDTH], longest) & ~7u;
	rows = (uint32_t)MIN(VGA_MEMORY / vga_dispi_bytes(d[DISPI_DEPTH], d[DISPI_VIRTUAL_WIDTH]), UINT16_MAX);
	d[DISPI_VIRTUAL_HEIGHT] = (uint16_t)rows;
	d[DISPI_X] = limit(d[DISPI_X], 0, (uint32_t)d[DISPI_VIRTUAL_WIDTH] - d[DISPI_WIDTH]);
	d[DISPI_Y] = limit(d[DISPI_Y], 0, rows - d[DISPI_HEIGHT]);
}

static void clear(struct vga *v)
{
	size_t size = (size_t)vga_dispi_stride(v) * v->dispi[DISPI_HEIGHT];

	memset(vga_memory(v), 0, size);
	mem_dma_written(v->pci.device.bus->mem, vga_memory(v), size);
}

/* A virtual size and a place in it are the new mode's own. */
static void enable(struct vga *v, uint16_t value)
{
	uint16_t was = v->dispi[DISPI_ENABLE];

	v->dispi[DISPI_ENABLE] =
		value & (DISPI_ENABLED | DISPI_CAPABILITIES | DISPI_8_BIT_DAC | DISPI_LINEAR | DISPI_KEEP);
	if (!(value & DISPI_ENABLED)) {
		v->dispi[DISPI_BANK] = 0;
	} else if (!(was & DISPI_ENABLED)) {
		v->dispi[DISPI_VIRTUAL_WIDTH] = v->dispi[DISPI_WIDTH];
		v->dispi[DISPI_X] = v->dispi[DISPI_Y] = v->dispi[DISPI_BANK] = 0;
		fit(v->dispi);
		if (!(value & DISPI_KEEP))
			clear(v);
	}
}

uint16_t vga_dispi_read(const struct vga *v, unsigned index)
{
	if (v->dispi[DISPI_ENABLE] & DISPI_CAPABILITIES) {
		switch (index) {
		case DISPI_WIDTH: return PICTURE_MAX_WIDTH;
		case DISPI_HEIGHT: return PICTURE_MAX_HEIGHT;
		case DISPI_DEPTH: return 32;
		default: break;
		}
	}
	return index == DISPI_MEMORY ? VGA_MEMORY / 0x10000 : index < DISPI_COUNT ? v->dispi[index] : 0;
}

void vga_dispi_write(struct vga *v, unsigned index, uint16_t value)
{
	switch (index) {
	case DISPI_ID:
		if (value >= ID_FIRST && value <= ID_LAST)
			v->dispi[DISPI_ID] = value;
		break;
	case DISPI_ENABLE: enable(v, value); break;
	case DISPI_BANK: v->dispi[DISPI_BANK] = vga_is_large(v) ? value & (VGA_BANKS - 1) : 0; break;
	case DISPI_WIDTH:
	case DISPI_HEIGHT:
	case DISPI_DEPTH:
	case DISPI_VIRTUAL_WIDTH:
	case DISPI_X:
	case DISPI_Y:
		v->dispi[index] = value;
		if (vga_is_large(v))
			fit(v->dispi);
		break;
	default: return; /* the rest follows */
	}
	vga_window_changed(v);
}

void vga_dispi_reset(struct vga *v)
{
	v->dispi[DISPI_ID] = ID_LAST;
	v->dispi[DISPI_DEPTH] = 8;
}

int vga_dispi_loaded(const struct vga *v, struct error *err)
{
	uint16_t fits[DISPI_COUNT];

	if (v->dispi[DISPI_BANK] >= VGA_BANKS || (!vga_is_large(v) && v->dispi[DISPI_BANK]))
		return error_set(err, EINVAL, "vga: bank is %u; expected less than %u, and 0 in a mode without banks",
				 v->dispi[DISPI_BANK], VGA_BANKS);
	memcpy(fits, v->dispi, sizeof(fits));
	fit(fits);
	if (vga_is_large(v) && memcmp(fits, v->dispi, sizeof(fits)))
		return error_set(
			err, EINVAL,
			"vga: a mode of %ux%u pixels of %u bits, of rows of %u, from %u, %u, does not fit its memory",
			v->dispi[DISPI_WIDTH], v->dispi[DISPI_HEIGHT], v->dispi[DISPI_DEPTH],
			v->dispi[DISPI_VIRTUAL_WIDTH], v->dispi[DISPI_X], v->dispi[DISPI_Y]);
	return 0;
}
