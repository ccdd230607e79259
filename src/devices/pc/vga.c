/*
 * The VGA as a device on PCI, 1234:1111: BAR 0 shows its memory, BAR 2 a monitor's EDID and its registers once more, and the ROM BAR a BIOS.
 */
#include "devices/pc/vga.h"
#include "devices/edid.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define VGA_SLOT	2 /* where many look for it first */
#define PCI_HEADER_SIZE 0x40

/* BAR 2 */
#define REGISTERS_SIZE	0x1000u
#define REGISTERS_EDID	0x000u
#define REGISTERS_VGA	0x400u /* ports 3C0h to 3DFh */
#define REGISTERS_DISPI 0x500u

#define BIOS_FILE "/usr/share/seabios/vgabios-stdvga.bin"

/* clang-format off */
#define VGA_OPTIONS(_, T)                                                                                              \
	_(T, NUMBER, width, 640, PICTURE_MAX_WIDTH, "1024", "what the monitor likes best")                             \
	_(T, NUMBER, height, 480, PICTURE_MAX_HEIGHT, "768", "what the monitor likes best")                            \
	_(T, TEXT, rom, 0, 0, NULL, "its BIOS (default " BIOS_FILE ", if there)")
/* clang-format on */

struct vga_options {
	DEVICE_OPTION_FIELDS(VGA_OPTIONS)
};

static struct vga *vga_of(struct device *device) { return (struct vga *)device; }

/* ---- accesses ---- */

#define MONO_PORTS   0x3b4
#define COLOUR_PORTS 0x3c0
#define DISPI_PORTS  0x1ce /* index, and data at the next one */

static uint64_t mono_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return vga_read_port(vga_of(device), (uint16_t)(MONO_PORTS + offset));
}

static void mono_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	vga_write_port(vga_of(device), (uint16_t)(MONO_PORTS + offset), (uint8_t)value);
}

static uint64_t colour_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return vga_read_port(vga_of(device), (uint16_t)(COLOUR_PORTS + offset));
}

static void colour_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	vga_write_port(vga_of(device), (uint16_t)(COLOUR_PORTS + offset), (uint8_t)value);
}

/* The data's port is an odd one, so its two bytes come one after the other; the second one completes what is written. */
static uint64_t dispi_read(struct device *device, uint64_t offset, unsigned size)
{
	struct vga *v = vga_of(device);

	(void)size;
	return offset ? vga_dispi_read(v, v->dispi_index) >> (8 * (offset - 1)) : v->dispi_index;
}

static void dispi_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct vga *v = vga_of(device);

	(void)size;
	if (!offset)
		v->dispi_index = (uint16_t)value;
	else if (offset == 1)
		v->dispi_low = (uint8_t)value;
	else
		vga_dispi_write(v, v->dispi_index, (uint16_t)(v->dispi_low | value << 8));
}

static uint64_t window_read(struct device *device, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned n = 0; n < size; n++)
		value |= (uint64_t)vga_read_window(vga_of(device), (uint32_t)offset + n) << (8 * n);
	return value;
}

static void window_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	for (unsigned n = 0; n < size; n++)
		vga_write_window(vga_of(device), (uint32_t)offset + n, (uint8_t)(value >> (8 * n)));
}

/* What of BAR 0 the window has. */
static uint64_t hole_read(struct device *device, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, vga_memory(vga_of(device)) + offset, size);
	return value;
}

static void hole_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	for (unsigned n = 0; n < size; n++)
		vga_write_memory(vga_of(device), (uint32_t)offset + n, (uint8_t)(value >> (8 * n)));
}

/* ---- BAR 2: registers of Bochs' in accesses of two bytes ---- */

static uint8_t registers_byte(struct vga *v, uint32_t offset)
{
	if (offset >= REGISTERS_DISPI)
		return (uint8_t)(vga_dispi_read(v, (offset - REGISTERS_DISPI) / 2) >> (8 * (offset & 1)));
	if (offset >= REGISTERS_VGA)
		return vga_read_port(v, (uint16_t)(COLOUR_PORTS + offset - REGISTERS_VGA));
	return offset < EDID_SIZE ? v->edid[offset] : 0;
}

static uint64_t registers_read(struct device *device, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned n = 0; n < size; n++)
		value |= (uint64_t)registers_byte(vga_of(device), (uint32_t)offset + n) << (8 * n);
	return value;
}

static void registers_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct vga *v = vga_of(device);

	if (offset >= REGISTERS_DISPI) {
		if (size == 2)
			vga_dispi_write(v, (unsigned)(offset - REGISTERS_DISPI) / 2, (uint16_t)value);
		return;
	}
	for (unsigned n = 0; n < size && offset >= REGISTERS_VGA; n++)
		vga_write_port(v, (uint16_t)(COLOUR_PORTS + offset + n - REGISTERS_VGA), (uint8_t)(value >> (8 * n)));
}

/* ---- life ---- */

static void remap(struct bus_work *work)
{
	struct vga *v = container_of(work, struct vga, remap);

	lock_take(v->pci.device.lock); /* the screen may be drawn */
	vga_show_window(v);
	lock_drop(v->pci.device.lock);
}

/* BAR 0 may have moved, and what the window hides of it with it. */
static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	(void)size;
	if (offset < PCI_HEADER_SIZE)
		bus_defer(pci->device.bus, &((struct vga *)pci)->remap);
}

static void vga_reset(struct device *device)
{
	struct vga *v = vga_of(device);

	pci_reset(&v->pci);
	vga_dispi_reset(v);
	bus_defer(device->bus, &v->remap);
}

static int vga_loaded(void *object, uint16_t version, struct error *err)
{
	struct vga *v = object;
	int rc = vga_dispi_loaded(v, err);

	(void)version;
	return rc ? rc : pci_loaded(&v->pci, err);
}

static void vga_attach(struct device *device)
{
	struct vga *v = vga_of(device);

	pci_attach(&v->pci);
	vga_attach_window(v);
}

static void vga_destroy(struct device *device)
{
	struct vga *v = vga_of(device);
	struct guest_mem *mem = device->bus->mem;
	struct mem_layer *layers[] = { &v->bank, &v->cells, &v->hole };

	screen_destroy(v->screen);
	vga_drawn_destroy(v->drawn);
	for (unsigned n = 0; n < ARRAY_SIZE(v->ranges); n++)
		bus_unmap(device->bus, v->ranges[n].space, &v->ranges[n].range);
	for (unsigned n = 0; n < ARRAY_SIZE(layers); n++)
		mem_layer_remove(mem, layers[n]);
	pci_remove(&v->pci);
	if (v->memory) {
		mem_commit(mem);
		memory_destroy(mem, v->memory);
	}
	free(v);
}

#define VGA_ALL_STATE(_, T)                                                                                            \
	PCI_CONFIG_STATE(_, T)                                                                                         \
	VGA_STATE(_, T)
STATE_DESC(vga_state_desc, "vga", 1, struct vga, VGA_ALL_STATE, .loaded = vga_loaded);

static const struct device_ops vga_ops = {
	.state = &vga_state_desc, .reset = vga_reset, .attach = vga_attach, .destroy = vga_destroy
};

static int add_layer(struct vga *v, struct mem_layer *layer, struct memory *memory, uint32_t offset, uint32_t size,
		     struct error *err)
{
	*layer = (struct mem_layer){ .memory = memory,
				     .offset = offset,
				     .size = size,
				     .priority = memory ? MEM_PRIORITY_DEVICE : MEM_PRIORITY_BUS };
	return mem_layer_add(v->pci.device.bus->mem, layer, err);
}

static int create_memory(struct vga *v, struct error *err)
{
	int rc;

	v->memory = memory_create(v->pci.device.bus->mem, MEMORY_KIND_VIDEO, "vga",
				  VGA_MEMORY + align_up(VGA_CELLS, PAGE_SIZE), err);
	if (!v->memory)
		return -err->code;
	rc = add_layer(v, &v->bank, v->memory, 0, VGA_BANK, err);
	if (!rc)
		rc = add_layer(v, &v->cells, v->memory, VGA_MEMORY, VGA_CELLS, err);
	return rc ? rc : add_layer(v, &v->hole, NULL, 0, VGA_BANK, err);
}

static int map_ranges(struct vga *v, struct error *err)
{
	static const struct vga_range ranges[VGA_RANGES] = {
		{ BUS_PIO, { MONO_PORTS, 7, 1, .read = mono_read, .write = mono_write } },
		{ BUS_PIO, { COLOUR_PORTS, 0x1b, 1, .read = colour_read, .write = colour_write } },
		{ BUS_PIO, { DISPI_PORTS, 3, 1 | 2, .read = dispi_read, .write = dispi_write } },
		{ BUS_MMIO,
		  { VGA_WINDOW, VGA_WINDOW_SIZE, 1 | 2 | 4 | 8, .read = window_read, .write = window_write } },
	};
	int rc = 0;

	for (unsigned n = 0; n < VGA_RANGES && !rc; n++) {
		v->ranges[n] = ranges[n];
		v->ranges[n].range.device = &v->pci.device;
		rc = bus_map(v->pci.device.bus, ranges[n].space, &v->ranges[n].range, err);
	}
	return rc;
}

static int plug(struct vga *v, const struct vga_options *o, struct error *err)
{
	struct pci_device *pci = &v->pci;
	int rc = 0;

	pci_init_config(pci, 0x1234, 0x1111, 0x03000002, 0x1af4, 0x1100, 0);
	pci->bars[0].size = VGA_MEMORY;
	pci->bars[0].memory = v->memory;
	pci->bars[0].range = (struct bus_range){ .sizes = 1 | 2 | 4 | 8, .read = hole_read, .write = hole_write };
	pci->bars[2].size = REGISTERS_SIZE;
	pci->bars[2].range = (struct bus_range){ .sizes = 1 | 2, .read = registers_read, .write = registers_write };
	pci->config_written = config_written;
	if (o->rom || !access(BIOS_FILE, F_OK))
		rc = pci_add_rom(pci, o->rom ? o->rom : BIOS_FILE, err);
	return rc ? rc : pci_add(pci->device.bus, pci, VGA_SLOT, 0, err);
}

static int vga_create(struct bus *bus, const void *options, struct error *err)
{
	const struct vga_options *o = options;
	struct vga *v = calloc(1, sizeof(*v));
	int rc;

	if (!v)
		return error_set_errno(err, ENOMEM, "vga");
	device_init(&v->pci.device, bus, "vga", &vga_ops);
	v->remap.fn = remap;
	edid_make(v->edid, (uint32_t)o->width, (uint32_t)o->height);
	vga_dispi_reset(v);
	rc = create_memory(v, err);
	if (!rc)
		rc = plug(v, o, err);
	if (!rc)
		rc = map_ranges(v, err);
	if (!rc && bus->display && !(v->drawn = vga_drawn_create()))
		rc = error_set_errno(err, ENOMEM, "vga");
	if (!rc)
		v->screen = screen_create(bus->display, &vga_screen_ops, v);
	return rc;
}

const struct device_type vga_type = {
	.name = "vga",
	.help = "VGA with Bochs' larger modes, on PCI",
	.most = 1,
	DEVICE_OPTIONS(VGA_OPTIONS, struct vga_options),
	.create = vga_create,
};
