/*
 * The VGA's registers (IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem"): CRT controller, sequencer, graphics controller, attribute
 * controller, DAC, and the signals of the beam, which follow guest time: programs wait for them.
 */
#include "devices/pc/vga.h"

#define CRTC_PROTECT	 BIT(7) /* in CRTC_V_RETRACE_END: of registers 0 to 7 */
#define OVERFLOW_COMPARE BIT(4) /* the bit of CRTC_OVERFLOW that is never protected */
#define CRTC_LAST	 CRTC_LINE_COMPARE
#define ATTRIBUTE_LAST	 ATTR_SELECT

#define STATUS_BLANK   BIT(0)
#define STATUS_RETRACE BIT(3)
#define STATUS_SWITCH  BIT(4) /* of status 0: there is a monitor, of colours */

/* Bits that are there. */
static const uint8_t sequencer_mask[SEQUENCER_COUNT] = { 0x03, 0x3d, 0x0f, 0x3f, 0x0e };
static const uint8_t graphics_mask[GRAPHICS_COUNT] = { 0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff };
static const uint8_t attribute_mask[ATTRIBUTE_COUNT] = {
	0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
	0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f,
};

uint32_t vga_crtc_long(const struct vga *v, enum vga_crtc low, unsigned overflow_8, unsigned overflow_9)
{
	uint8_t overflow = v->crtc[CRTC_OVERFLOW];

	return v->crtc[low] | (overflow >> overflow_8 & 1) << 8 | (overflow >> overflow_9 & 1) << 9;
}

/* ---- the beam ---- */

/* Where it is now, in dots and lines from the upper left corner. */
struct beam {
	uint32_t dots, dot; /* in a line, and now */
	uint32_t lines, line;
};

static struct beam beam_of(const struct vga *v)
{
	static const uint32_t clocks[] = { 25175000, 28322000, 25175000, 25175000 }; /* Hz */
	uint32_t hz = clocks[(v->misc & MISC_CLOCK) >> 2];
	unsigned width = v->sequencer[SEQ_CLOCKING] & CLOCKING_8_DOTS ? 8 : 9;
	struct beam beam = { .dots = (v->crtc[CRTC_H_TOTAL] + 5u) * width,
			     .lines = vga_crtc_long(v, CRTC_V_TOTAL, 0, 5) + 2 };
	uint64_t now = clock_now(v->pci.device.bus->clock), dot;

	if (v->sequencer[SEQ_CLOCKING] & CLOCKING_HALF)
		hz /= 2;
	/* Seconds apart, so that nothing overflows: frames need not begin with one. */
	dot = (uint64_t)((unsigned __int128)now * hz / NS_PER_S) % ((uint64_t)beam.dots * beam.lines);
	beam.line = (uint32_t)(dot / beam.dots);
	beam.dot = (uint32_t)(dot % beam.dots);
	return beam;
}

static uint8_t beam_status(const struct vga *v)
{
	struct beam beam = beam_of(v);
	unsigned width = v->sequencer[SEQ_CLOCKING] & CLOCKING_8_DOTS ? 8 : 9;
	uint32_t begins = vga_crtc_long(v, CRTC_V_RETRACE_START, 2, 7);
	uint32_t lasts = (v->crtc[CRTC_V_RETRACE_END] - begins) & 15; /* the end is compared by four bits */
	uint8_t status = 0;

	if (beam.line >= vga_crtc_long(v, CRTC_V_DISPLAY_END, 1, 6) + 1 ||
	    beam.dot >= (v->crtc[CRTC_H_DISPLAY_END] + 1u) * width)
		status |= STATUS_BLANK;
	if (beam.line - begins < (lasts ? lasts : 16))
		status |= STATUS_RETRACE | STATUS_BLANK;
	return status;
}

/* ---- CRT controller, at one of two places ---- */

static uint8_t read_crtc(const struct vga *v)
{
	if (v->crtc_index <= CRTC_LAST)
		return v->crtc[v->crtc_index];
	/* What is not in the manual, and some programs look for: the latches, and what is next at 3C0h. */
	if (v->crtc_index == 0x22)
		return (uint8_t)(v->latches >> (8 * (v->graphics[GC_READ_MAP] & 3)));
	if (v->crtc_index == 0x24)
		return v->attribute_data ? 0x80 : 0;
	return 0;
}

static void write_crtc(struct vga *v, uint8_t value)
{
	uint8_t index = v->crtc_index;

	if (index > CRTC_LAST)
		return;
	if (index <= CRTC_OVERFLOW && v->crtc[CRTC_V_RETRACE_END] & CRTC_PROTECT) {
		if (index != CRTC_OVERFLOW)
			return;
		value = (v->crtc[index] & ~OVERFLOW_COMPARE) | (value & OVERFLOW_COMPARE);
	}
	v->crtc[index] = value;
}

/* ---- attribute controller: index and data at one port ---- */

static void write_attribute(struct vga *v, uint8_t value)
{
	uint8_t index = v->attribute_index & 0x1f;

	if (!v->attribute_data)
		v->attribute_index = value & 0x3f;
	else if (index <= ATTRIBUTE_LAST)
		v->attribute[index] = value & attribute_mask[index];
	v->attribute_data = !v->attribute_data;
}

/* ---- DAC: colours of three parts, written when the last one comes ---- */

static bool dac_is_wide(const struct vga *v) { return v->dispi[DISPI_ENABLE] & DISPI_8_BIT_DAC; }

static uint8_t read_dac(struct vga *v)
{
	uint8_t value = v->dac[3 * v->dac_read + v->dac_part];

	if (++v->dac_part == 3) {
		v->dac_part = 0;
		v->dac_read++;
	}
	return value;
}

static void write_dac(struct vga *v, uint8_t value)
{
	value = dac_is_wide(v) ? value : value & 0x3f;
	if (v->dac_part < 2) {
		v->dac_parts[v->dac_part++] = value;
		return;
	}
	v->dac[3 * v->dac_write] = v->dac_parts[0];
	v->dac[3 * v->dac_write + 1] = v->dac_parts[1];
	v->dac[3 * v->dac_write + 2] = value;
	v->dac_part = 0;
	v->dac_write++;
}

static void set_dac_index(struct vga *v, uint8_t value, bool reading)
{
	v->dac_reading = reading;
	v->dac_part = 0;
	if (reading)
		v->dac_read = value;
	else
		v->dac_write = value;
}

/* ---- ports ---- */

/* The CRT controller and status 1 are at 3Bxh or 3Dxh, whatever the other place is asked for. */
static bool is_elsewhere(const struct vga *v, uint16_t port)
{
	return (port & 0xff0) == (v->misc & MISC_COLOUR ? 0x3b0 : 0x3d0);
}

static uint8_t read_sequencer(const struct vga *v)
{
	return v->sequencer_index < SEQUENCER_COUNT ? v->sequencer[v->sequencer_index] : 0;
}

static uint8_t read_graphics(const struct vga *v)
{
	return v->graphics_index < GRAPHICS_COUNT ? v->graphics[v->graphics_index] : 0;
}

uint8_t vga_read_port(struct vga *v, uint16_t port)
{
	if (is_elsewhere(v, port))
		return 0xff;
	switch (port) {
	case 0x3b4:
	case 0x3d4: return v->crtc_index;
	case 0x3b5:
	case 0x3d5: return read_crtc(v);
	case 0x3ba:
	case 0x3da: v->attribute_data = false; return beam_status(v);
	case 0x3c0: return v->attribute_index;
	case 0x3c1: return v->attribute[v->attribute_index & 0x1f];
	case 0x3c2: return STATUS_SWITCH;
	case 0x3c3: return v->enable;
	case 0x3c4: return v->sequencer_index;
	case 0x3c5: return read_sequencer(v);
	case 0x3c6: return v->dac_mask;
	case 0x3c7: return v->dac_reading ? 3 : 0;
	case 0x3c8: return v->dac_write;
	case 0x3c9: return read_dac(v);
	case 0x3ca: return v->feature;
	case 0x3cc: return v->misc;
	case 0x3ce: return v->graphics_index;
	case 0x3cf: return read_graphics(v);
	default: return 0xff;
	}
}

void vga_write_port(struct vga *v, uint16_t port, uint8_t value)
{
	if (is_elsewhere(v, port))
		return;
	switch (port) {
	case 0x3b4:
	case 0x3d4: v->crtc_index = value; break;
	case 0x3b5:
	case 0x3d5: write_crtc(v, value); break;
	case 0x3ba:
	case 0x3da: v->feature = value & 0x0b; break;
	case 0x3c0: write_attribute(v, value); break;
	case 0x3c2:
		v->misc = value & 0xef;
		vga_window_changed(v);
		break;
	case 0x3c3:
		v->enable = value & 1;
		vga_window_changed(v);
		break;
	case 0x3c4: v->sequencer_index = value; break;
	case 0x3c5:
		if (v->sequencer_index < SEQUENCER_COUNT) {
			v->sequencer[v->sequencer_index] = value & sequencer_mask[v->sequencer_index];
			vga_window_changed(v);
		}
		break;
	case 0x3c6: v->dac_mask = value; break;
	case 0x3c7: set_dac_index(v, value, true); break;
	case 0x3c8: set_dac_index(v, value, false); break;
	case 0x3c9: write_dac(v, value); break;
	case 0x3ce: v->graphics_index = value; break;
	case 0x3cf:
		if (v->graphics_index < GRAPHICS_COUNT) {
			v->graphics[v->graphics_index] = value & graphics_mask[v->graphics_index];
			vga_window_changed(v);
		}
		break;
	default: break;
	}
}
