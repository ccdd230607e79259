/*
 * The VGA, as its files share it: registers (vga_registers.c), the processor's way to the planes (vga_memory.c), larger modes (vga_dispi.c), what is to be
 * seen (vga_draw.c) and the device (vga.c). IBM's VGA of the PS/2 with Bochs' extension, by PCI 1234:1111.
 *
 * The four planes are interleaved: the bytes that they have at one address are one word of memory, so that words follow the picture in all modes. Where
 * the processor's addresses leave out bits (chained modes) the word is counted without them.
 */
#ifndef DOPPEL_DEVICES_VGA_H
#define DOPPEL_DEVICES_VGA_H

#include "devices/devices.h"
#include "display/display.h"

#define VGA_MEMORY	(16 * MIB)
#define VGA_PLANE_WORDS 0x10000u /* of the VGA proper; the extension has all memory */

/* The window of the processor, and the part of it that shows characters as memory. */
#define VGA_WINDOW	0xa0000u
#define VGA_WINDOW_SIZE 0x20000u
#define VGA_BANK	0x10000u
#define VGA_BANKS	((unsigned)(VGA_MEMORY / VGA_BANK))
#define VGA_CELLS	0x8000u

#define SEQUENCER_COUNT 8
#define GRAPHICS_COUNT	16
#define CRTC_COUNT	32
#define ATTRIBUTE_COUNT 32

/* clang-format off */
/* Registers, by their names in IBM's manual; enum elements are their indices. */
enum vga_sequencer { SEQ_RESET, SEQ_CLOCKING, SEQ_MAP_MASK, SEQ_FONTS, SEQ_MEMORY_MODE };
enum vga_graphics { GC_SET_RESET, GC_ENABLE_SET_RESET, GC_COMPARE, GC_ROTATE, GC_READ_MAP, GC_MODE, GC_MISC, GC_DONT_CARE, GC_BIT_MASK };
enum vga_crtc {
	CRTC_H_TOTAL, CRTC_H_DISPLAY_END, CRTC_H_BLANK_START, CRTC_H_BLANK_END, CRTC_H_RETRACE_START, CRTC_H_RETRACE_END, CRTC_V_TOTAL, CRTC_OVERFLOW,
	CRTC_PRESET_ROW, CRTC_MAX_SCAN, CRTC_CURSOR_START, CRTC_CURSOR_END, CRTC_START_HIGH, CRTC_START_LOW, CRTC_CURSOR_HIGH, CRTC_CURSOR_LOW,
	CRTC_V_RETRACE_START, CRTC_V_RETRACE_END, CRTC_V_DISPLAY_END, CRTC_OFFSET, CRTC_UNDERLINE, CRTC_V_BLANK_START, CRTC_V_BLANK_END, CRTC_MODE,
	CRTC_LINE_COMPARE,
};
enum vga_attribute { ATTR_MODE = 16, ATTR_OVERSCAN, ATTR_PLANES, ATTR_PANNING, ATTR_SELECT };
/* clang-format on */

#define MISC_COLOUR	     BIT(0) /* CRTC at 3D4h, not at 3B4h */
#define MISC_MEMORY	     BIT(1)
#define MISC_CLOCK	     (BIT(2) | BIT(3))
#define CLOCKING_8_DOTS	     BIT(0)
#define CLOCKING_HALF	     BIT(3)
#define CLOCKING_OFF	     BIT(5)
#define MEMORY_MODE_EXTENDED BIT(1)
#define MEMORY_MODE_LINEAR   BIT(2) /* not odd/even */
#define MEMORY_MODE_CHAIN_4  BIT(3)
#define MODE_READ_COMPARE    BIT(3)
#define MODE_ODD_EVEN	     BIT(4)
#define MODE_INTERLEAVE	     BIT(5)
#define MODE_256	     BIT(6)
#define GC_MISC_GRAPHICS     BIT(0)
#define GC_MISC_ODD_EVEN     BIT(1)
#define ATTR_MODE_BLINK	     BIT(3)
#define ATTR_MODE_LINES	     BIT(2)
#define ATTR_MODE_SPLIT	     BIT(5) /* no panning below the line that is compared */
#define ATTR_MODE_SELECT     BIT(7)
#define ATTR_INDEX_ON	     BIT(5)

/* Bochs' registers */
enum vga_dispi {
	DISPI_ID,
	DISPI_WIDTH,
	DISPI_HEIGHT,
	DISPI_DEPTH,
	DISPI_ENABLE,
	DISPI_BANK,
	DISPI_VIRTUAL_WIDTH,
	DISPI_VIRTUAL_HEIGHT,
	DISPI_X,
	DISPI_Y,
	DISPI_MEMORY, /* in units of 64 KiB */
	DISPI_COUNT
};
#define DISPI_ENABLED	   BIT(0)
#define DISPI_CAPABILITIES BIT(1) /* what is read are the largest values */
#define DISPI_8_BIT_DAC	   BIT(5)
#define DISPI_LINEAR	   BIT(6)
#define DISPI_KEEP	   BIT(7) /* the memory's contents */

#define VGA_STATE(_, T)                                                                                                \
	_(T, uint8_t, misc, 1, 1, 0, 0xff)                                                                             \
	_(T, uint8_t, feature, 1, 2, 0, 0xff)                                                                          \
	_(T, uint8_t, enable, 1, 3, 1, 1)                                                                              \
	_(T, uint8_t, sequencer_index, 1, 4, 0, 0xff)                                                                  \
	_(T, uint8_t, sequencer, 8, 5, 0, 0xff)                                                                        \
	_(T, uint8_t, graphics_index, 1, 6, 0, 0xff)                                                                   \
	_(T, uint8_t, graphics, 16, 7, 0, 0xff)                                                                        \
	_(T, uint8_t, crtc_index, 1, 8, 0, 0xff)                                                                       \
	_(T, uint8_t, crtc, 32, 9, 0, 0xff)                                                                            \
	_(T, uint8_t, attribute_index, 1, 10, 0, 0x3f)                                                                 \
	_(T, uint8_t, attribute, 32, 11, 0, 0xff)                                                                      \
	_(T, bool, attribute_data, 1, 12, 0, 1) /* what is written next at 3C0h is data */                             \
	_(T, uint8_t, dac_mask, 1, 13, 0xff, 0xff)                                                                     \
	_(T, uint8_t, dac_read, 1, 14, 0, 0xff)                                                                        \
	_(T, uint8_t, dac_write, 1, 15, 0, 0xff)                                                                       \
	_(T, uint8_t, dac_part, 1, 16, 0, 2) /* red, green, blue */                                                    \
	_(T, uint8_t, dac_parts, 2, 17, 0, 0xff)                                                                       \
	_(T, bool, dac_reading, 1, 18, 0, 1)                                                                           \
	_(T, uint8_t, dac, 768, 19, 0, 0xff)                                                                           \
	_(T, uint32_t, latches, 1, 20, 0, UINT32_MAX)                                                                  \
	_(T, uint16_t, dispi_index, 1, 21, 0, 0xffff)                                                                  \
	_(T, uint16_t, dispi, 11, 22, 0, 0xffff)                                                                       \
	_(T, uint8_t, dispi_low, 1, 23, 0, 0xff) /* of data written by halves */

/* What the processor's window shows as plain memory: see vga_memory.c. */
enum vga_plain_kind { VGA_TRAPPED, VGA_PLAIN_BANK, VGA_PLAIN_CELLS };
struct vga_plain {
	enum vga_plain_kind kind;
	uint32_t at;
};

struct vga_drawn; /* vga_draw.c */

#define VGA_RANGES 4
struct vga_range {
	enum bus_space space;
	struct bus_range range;
};

struct vga {
	struct pci_device pci;
	STATE_FIELDS(VGA_STATE)
	struct memory *memory; /* VGA_MEMORY, and behind it the cells */
	struct vga_plain plain;
	struct mem_layer bank, cells; /* the window as plain memory: one of them */
	struct mem_layer hole;	      /* of BAR 0, where the bank shows the same */
	struct bus_work remap;
	uint8_t edid[128];
	struct vga_range ranges[VGA_RANGES];
	struct screen *screen;
	struct vga_drawn *drawn;
};

static inline uint8_t *vga_memory(const struct vga *v) { return v->memory->file.base; }
/* Plane n's byte is n's of the word. */
static inline uint32_t *vga_words(const struct vga *v) { return (uint32_t *)v->memory->file.base; }
/* Characters and attributes while they are plain memory: planes 0 and 1 of as many words. */
static inline uint16_t *vga_cells(const struct vga *v) { return (uint16_t *)(v->memory->file.base + VGA_MEMORY); }

static inline bool vga_is_large(const struct vga *v) { return v->dispi[DISPI_ENABLE] & DISPI_ENABLED; }
/* Are pixels bytes that follow each other? */
static inline bool vga_is_packed(const struct vga *v) { return vga_is_large(v) && v->dispi[DISPI_DEPTH] != 4; }
static inline uint32_t vga_bank(const struct vga *v) { return v->dispi[DISPI_BANK] * VGA_BANK; }

/* ---- the device's lock is held for all of these ---- */

/* vga_registers.c: by port */
uint8_t vga_read_port(struct vga *, uint16_t port);
void vga_write_port(struct vga *, uint16_t port, uint8_t value);
uint32_t vga_crtc_long(const struct vga *, enum vga_crtc low, unsigned overflow_8, unsigned overflow_9);

/* vga_memory.c: by offset in the window */
uint8_t vga_read_window(struct vga *, uint32_t offset);
void vga_write_window(struct vga *, uint32_t offset, uint8_t value);
/* By offset in the memory, below VGA_MEMORY. */
void vga_write_memory(struct vga *, uint32_t offset, uint8_t value);
/* A register was written that decides what the window shows: that follows, behind the access. */
void vga_window_changed(struct vga *);
/* So. With all vCPUs stopped, or before they run. */
void vga_show_window(struct vga *);
/* Of a loaded device: what is plain now was so when it was saved. */
void vga_attach_window(struct vga *);

/* vga_dispi.c */
uint16_t vga_dispi_read(const struct vga *, unsigned index);
void vga_dispi_write(struct vga *, unsigned index, uint16_t value);
/* Of so many pixels; of planes, the words. */
static inline uint32_t vga_dispi_bytes(unsigned depth, uint32_t pixels)
{
	return pixels * (depth == 15 ? 16 : depth) / 8;
}
/* Bytes from one row to the next. */
uint32_t vga_dispi_stride(const struct vga *);
void vga_dispi_reset(struct vga *);
int vga_dispi_loaded(const struct vga *, struct error *);

/* vga_draw.c: without the lock */
extern const struct screen_ops vga_screen_ops;
struct vga_drawn *vga_drawn_create(void);
void vga_drawn_destroy(struct vga_drawn *);

#endif
