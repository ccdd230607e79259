/*
 * The firmware configuration device, see fw_cfg.h; and the order in which a firmware is to look for an operating system (`bootorder`, and CMOS 0x38 and 0x3d).
 * Whatever is read behind an item's end is zeros.
 */
#include "devices/devices.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define KEYS	   0x20u /* without a name */
#define FILES_MOST 128u
#define ITEMS	   (KEYS + FILES_MOST)
#define ARCH	   0x8000u /* keys of the architecture: */
#define ARCH_KEYS  5u
#define ARCH_IRQ0  2u	   /* is the timer at input 2 of the IOAPIC? */
#define WRITES	   0x4000u /* once said that an item is written; means nothing */
#define NOTHING	   0xffffu

#define ID_TRADITIONAL BIT(0)
#define ID_DMA	       BIT(1)

#define DIRECTORY_ENTRY 64u

/* A DMA request: control, length, address, all big-endian. */
#define DMA_SIZE   16u
#define DMA_ERROR  BIT(0)
#define DMA_READ   BIT(1)
#define DMA_SKIP   BIT(2)
#define DMA_SELECT BIT(3)
#define DMA_WRITE  BIT(4)
/* Behind an item's end a read may fill in so many zeros. More is nothing that a firmware wants, and would take a while. */
#define DMA_ZEROS_MOST (1u << 20)

#define FILE_MOST	(256u << 20)
#define BOOT_ORDER_SIZE 0x1000u

#define FW_CFG_STATE(_, T)                                                                                             \
	_(T, uint16_t, selected, 1, 1, FW_CFG_SIGNATURE, UINT16_MAX)                                                   \
	_(T, uint32_t, offset, 1, 2, 0, UINT32_MAX)                                                                    \
	_(T, uint64_t, dma_address, 1, 3, 0, UINT64_MAX) /* of the next request */                                     \
	_(T, bool, later, 1, 4, 0, 1)			 /* this is not the first start: `once` is over */             \
	_(T, bool, acpi_made, 1, 5, 0, 1)		 /* from these choices: */                                     \
	_(T, uint16_t, pm_base, 1, 6, 0, UINT16_MAX)                                                                   \
	_(T, uint64_t, window_first, 1, 7, 0, UINT64_MAX)                                                              \
	_(T, uint64_t, window_last, 1, 8, 0, UINT64_MAX)

/* clang-format off */
#define FW_CFG_OPTIONS(_, T)                                                                                           \
	_(T, TEXT, order, 0, 0, "cad", "what is tried, in turn: a floppies, c disks, d CDs, n the network")            \
	_(T, TEXT, once, 0, 0, NULL, "the same, for the first start alone")                                            \
	_(T, SWITCH, menu, 0, 0, "off", "the firmware offers its menu")                                                \
	_(T, NUMBER, splash_time, 0, 65535, NULL, "milliseconds for which the menu, or the picture, is there")         \
	_(T, TEXT, splash, 0, 0, NULL, "the picture: a JPEG or BMP file")                                              \
	_(T, NUMBER, retry, 1, 65535, NULL, "milliseconds until the firmware starts again where it found nothing")
/* clang-format on */

struct fw_cfg_options {
	DEVICE_OPTION_FIELDS(FW_CFG_OPTIONS)
};

struct item {
	char name[FW_CFG_NAME_SIZE]; /* ""; a key without a name, or a free place */
	uint8_t *data;
	size_t size;
	bool shared; /* somebody else's */
	bool acpi;
	void (*written)(void *opaque); /* NULL: it is read-only */
	void *opaque;
};

struct fw_cfg {
	struct device device;
	STATE_FIELDS(FW_CFG_STATE)
	const struct fw_cfg_options *options;
	struct item items[ITEMS], arch[ARCH_KEYS];
	uint8_t directory[4 + FILES_MOST * DIRECTORY_ENTRY];
	char boot_order[BOOT_ORDER_SIZE];
	uint16_t serial_console; /* port, little-endian; 0: none */
	bool started;
	struct fw_cfg_acpi acpi;
	void (*make_acpi)(void *opaque, const struct fw_cfg_choices *, struct fw_cfg_acpi *);
	void *make_acpi_opaque;
	struct bus_range ranges[2];
};

/* ---- items ---- */

static struct fw_cfg *find(struct bus *bus) { return (struct fw_cfg *)bus_find_device(bus, "fw-cfg", 0); }

bool fw_cfg_is_here(struct bus *bus) { return find(bus) != NULL; }

static struct item *item_of(struct fw_cfg *f, unsigned key)
{
	if (key & ARCH)
		return (key & ~ARCH) < ARCH_KEYS ? &f->arch[key & ~ARCH] : NULL;
	return key < ITEMS ? &f->items[key] : NULL;
}

static void clear_item(struct item *item)
{
	if (!item->shared)
		free(item->data);
	*item = (struct item){ .data = NULL };
}

/* Its contents, copied; zeros if there are none. */
static int fill_item(struct item *item, const void *data, size_t size, struct error *err)
{
	uint8_t *copy = calloc(1, MAX(size, (size_t)1));

	if (!copy)
		return error_set_errno(err, ENOMEM, "%zu bytes for the firmware", size);
	if (data)
		memcpy(copy, data, size);
	if (!item->shared)
		free(item->data);
	item->data = copy;
	item->size = size;
	item->shared = false;
	return 0;
}

int fw_cfg_set(struct bus *bus, enum fw_cfg_key key, const void *data, size_t size, struct error *err)
{
	BUG_ON(key >= KEYS);
	return fill_item(&find(bus)->items[key], data, size, err);
}

int fw_cfg_set_number(struct bus *bus, enum fw_cfg_key key, uint32_t value, struct error *err)
{
	uint8_t bytes[4];

	store_le32(bytes, value);
	return fw_cfg_set(bus, key, bytes, sizeof(bytes), err);
}

/* What the directory says: size and key of each file, big-endian, and its name. */
static void make_directory(struct fw_cfg *f)
{
	uint8_t *entry = f->directory + 4;
	uint32_t count = 0;

	for (unsigned key = FW_CFG_FIRST_FILE; key < ITEMS; key++) {
		const struct item *item = &f->items[key];

		if (!*item->name)
			continue;
		store_be32(entry, (uint32_t)item->size);
		store_be16(entry + 4, (uint16_t)key);
		store_be16(entry + 6, 0);
		memcpy(entry + 8, item->name, FW_CFG_NAME_SIZE);
		entry += DIRECTORY_ENTRY;
		count++;
	}
	store_be32(f->directory, count);
	f->items[FW_CFG_DIRECTORY] =
		(struct item){ .data = f->directory, .size = (size_t)(entry - f->directory), .shared = true };
}

static struct item *find_file(struct fw_cfg *f, const char *name)
{
	for (unsigned key = FW_CFG_FIRST_FILE; f && key < ITEMS; key++)
		if (*f->items[key].name && !strcmp(f->items[key].name, name))
			return &f->items[key];
	return NULL;
}

/* A place for a file of that name; NULL with a sentence. */
static struct item *new_file(struct fw_cfg *f, const char *name, struct error *err)
{
	unsigned key = FW_CFG_FIRST_FILE;

	if (!*name || strlen(name) >= FW_CFG_NAME_SIZE) {
		error_set(err, EINVAL, "'%.80s' is no name of a file for the firmware; expected 1 to %u characters",
			  name, FW_CFG_NAME_SIZE - 1);
		return NULL;
	}
	if (find_file(f, name)) {
		error_set(err, EEXIST, "there is a file '%s' for the firmware already", name);
		return NULL;
	}
	while (key < ITEMS && *f->items[key].name)
		key++;
	if (key == ITEMS) {
		error_set(err, ENOSPC, "file '%s': a firmware gets at most %u", name, FILES_MOST);
		return NULL;
	}
	return &f->items[key];
}

static void name_file(struct fw_cfg *f, struct item *item, const char *name)
{
	snprintf(item->name, sizeof(item->name), "%s", name);
	make_directory(f);
}

/* data NULL: zeros. */
static struct item *add_file(struct fw_cfg *f, const char *name, const void *data, size_t size, struct error *err)
{
	struct item *item = new_file(f, name, err);

	if (!item || fill_item(item, data, size, err))
		return NULL;
	name_file(f, item, name);
	return item;
}

int fw_cfg_add_file(struct bus *bus, const char *name, const void *data, size_t size, struct error *err)
{
	return add_file(find(bus), name, data, size, err) ? 0 : -err->code;
}

static int add_shared(struct fw_cfg *f, const char *name, void *data, size_t size, void (*written)(void *opaque),
		      void *opaque, struct error *err)
{
	struct item *item = new_file(f, name, err);

	if (!item)
		return -err->code;
	*item = (struct item){ .data = data, .size = size, .shared = true, .written = written, .opaque = opaque };
	name_file(f, item, name);
	return 0;
}

int fw_cfg_add_shared(struct bus *bus, const char *name, void *data, size_t size, void (*written)(void *opaque),
		      void *opaque, struct error *err)
{
	struct fw_cfg *f = find(bus);

	return f ? add_shared(f, name, data, size, written, opaque, err) : 0;
}

void fw_cfg_remove_file(struct bus *bus, const char *name)
{
	struct fw_cfg *f = find(bus);
	struct item *item = find_file(f, name);

	if (!item)
		return;
	clear_item(item);
	make_directory(f);
}

/* ---- ACPI tables ---- */

int fw_cfg_add_acpi(struct bus *bus, void (*make)(void *opaque, const struct fw_cfg_choices *, struct fw_cfg_acpi *),
		    void *opaque, struct error *err)
{
	struct fw_cfg *f = find(bus);
	const struct {
		const char *name;
		size_t size;
		uint8_t **data;
	} files[] = {
		{ "etc/acpi/rsdp", FW_CFG_RSDP_SIZE, &f->acpi.rsdp },
		{ "etc/acpi/tables", FW_CFG_TABLES_SIZE, &f->acpi.tables },
		{ "etc/table-loader", FW_CFG_LOADER_SIZE, &f->acpi.loader },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(files); n++) {
		struct item *item = add_file(f, files[n].name, NULL, files[n].size, err);

		if (!item)
			return -err->code;
		item->acpi = true;
		*files[n].data = item->data;
	}
	f->make_acpi = make;
	f->make_acpi_opaque = opaque;
	return 0;
}

static void make_acpi(struct fw_cfg *f)
{
	memset(f->acpi.rsdp, 0, FW_CFG_RSDP_SIZE);
	memset(f->acpi.tables, 0, FW_CFG_TABLES_SIZE);
	memset(f->acpi.loader, 0, FW_CFG_LOADER_SIZE);
	f->make_acpi(f->make_acpi_opaque, &(struct fw_cfg_choices){ f->pm_base, f->window_first, f->window_last },
		     &f->acpi);
}

/* What a firmware has chosen by now stays so until the next reset: it reads the files one after the other. */
static void want_acpi(struct fw_cfg *f)
{
	struct bus *bus = f->device.bus;

	if (f->acpi_made)
		return;
	f->pm_base = piix_pm_base(bus);
	pci_high_window(bus, &f->window_first, &f->window_last);
	f->acpi_made = true;
	make_acpi(f);
}

/* ---- the order of starting ---- */

static const struct {
	char letter;
	uint8_t cmos; /* as in CMOS 0x3d and 0x38, four bits each */
} boot_kinds[] = {
	[DEVICE_BOOT_FLOPPY] = { 'a', 1 },
	[DEVICE_BOOT_DISK] = { 'c', 2 },
	[DEVICE_BOOT_CD] = { 'd', 3 },
	[DEVICE_BOOT_NET] = { 'n', 4 },
};

static int kind_of(char letter)
{
	for (unsigned n = 0; n < ARRAY_SIZE(boot_kinds); n++)
		if (boot_kinds[n].letter == letter)
			return (int)n;
	return -1;
}

static int check_order(const char *option, const char *order, struct error *err)
{
	for (const char *c = order; c && *c; c++)
		if (kind_of(*c) < 0 || strchr(c + 1, *c))
			return error_set(
				err, EINVAL,
				"fw-cfg: option '%s' is '%.16s'; expected each of a (floppy), c (disk), d (CD), "
				"n (network) once at most",
				option, order);
	return 0;
}

static const char *order_now(const struct fw_cfg *f)
{
	return f->options->once && !f->later ? f->options->once : f->options->order;
}

static void add_boot_line(struct fw_cfg *f, size_t *used, const char *path)
{
	int n = snprintf(f->boot_order + *used, BOOT_ORDER_SIZE - *used, "%s\n", path);

	if ((size_t)n < BOOT_ORDER_SIZE - *used)
		*used += (size_t)n;
	else
		f->boot_order[*used] = 0; /* a line is there or not */
}

/* Devices that were given this number or, behind all of those, that are of this kind and have none. */
static void add_boot_devices(struct fw_cfg *f, size_t *used, uint64_t order, int kind)
{
	const struct device *device;

	list_for_each (device, &f->device.bus->devices, node) {
		struct device_boot boot;

		if (device->ops->boots && device->ops->boots(device, &boot) && boot.order == order &&
		    (order || (int)boot.kind == kind))
			add_boot_line(f, used, boot.path);
	}
}

/* Of kinds, in CMOS, for BIOSes that know no files. */
static void set_boot_kinds(struct fw_cfg *f)
{
	const char *order = order_now(f);
	uint8_t kinds[4] = { 0 };

	for (unsigned n = 0; order[n]; n++)
		kinds[n] = boot_kinds[kind_of(order[n])].cmos;
	rtc_set_cmos(f->device.bus, 0x3d, (uint8_t)(kinds[0] | kinds[1] << 4));
	rtc_set_cmos(f->device.bus, 0x38, (uint8_t)(kinds[2] << 4));
}

static void set_boot_order(struct fw_cfg *f)
{
	size_t used = 0;

	memset(f->boot_order, 0, sizeof(f->boot_order));
	for (uint64_t n = 1; n <= DEVICE_BOOT_ORDER_MOST; n++)
		add_boot_devices(f, &used, n, -1);
	for (const char *c = order_now(f); *c; c++)
		add_boot_devices(f, &used, 0, kind_of(*c));
	find_file(f, "bootorder")->size = used + 1;
	make_directory(f);
}

/* Without a screen a BIOS's text goes to the first serial line. */
static void set_serial_console(struct fw_cfg *f)
{
	bool wanted = !pci_has_display(f->device.bus) && uart_ports(f->device.bus) & 1;

	store_le16(&f->serial_console, wanted ? COM1_PORT : 0);
}

/* ---- registers ---- */

static void select_item(struct fw_cfg *f, uint16_t key)
{
	const struct item *item;

	f->offset = 0;
	item = item_of(f, key & ~WRITES);
	f->selected = item ? key & ~WRITES : NOTHING;
	if (item && item->acpi)
		want_acpi(f);
}

/* How many bytes there are from where it is read. */
static size_t left(struct fw_cfg *f, const struct item **item)
{
	*item = item_of(f, f->selected);
	return *item && (*item)->size > f->offset ? (*item)->size - f->offset : 0;
}

static uint64_t port_read(struct device *device, uint64_t offset, unsigned size)
{
	struct fw_cfg *f = (struct fw_cfg *)device;
	const struct item *item;

	(void)offset;
	return size == 1 && left(f, &item) ? item->data[f->offset++] : 0;
}

static void port_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	if (!offset && size == 2)
		select_item((struct fw_cfg *)device, (uint16_t)value);
}

/* False: the guest's memory is not there, or the item is not to be written. */
static bool move(struct fw_cfg *f, uint32_t control, uint32_t length, gpa_t where)
{
	struct guest_mem *mem = f->device.bus->mem;
	const struct item *item;
	size_t part = MIN(left(f, &item), (size_t)length);
	uint32_t rest = length - (uint32_t)part;
	bool good = true;

	if (!range_ok(where.v, length, UINT64_MAX))
		return false;
	if (control & DMA_READ)
		good = (!part || !mem_write(mem, where, item->data + f->offset, part)) &&
		       (!rest || (rest <= DMA_ZEROS_MOST && !mem_fill(mem, gpa(where.v + part), 0, rest)));
	else if (control & DMA_WRITE)
		good = !rest && (!part || (item->written && !mem_read(mem, where, item->data + f->offset, part)));
	if (!good)
		return false;
	f->offset += (uint32_t)part;
	if (part && !(control & DMA_READ) && control & DMA_WRITE)
		item->written(item->opaque);
	return true;
}

static void dma(struct fw_cfg *f, gpa_t request)
{
	struct guest_mem *mem = f->device.bus->mem;
	uint8_t fields[DMA_SIZE], result[4];
	uint32_t control;
	bool good = true;

	if (!mem || mem_read(mem, request, fields, sizeof(fields)))
		return; /* nor is there a place for the error */
	control = load_be32(fields);
	if (control & DMA_SELECT)
		select_item(f, (uint16_t)(control >> 16));
	if (control & (DMA_READ | DMA_WRITE | DMA_SKIP))
		good = move(f, control, load_be32(fields + 4), gpa(load_be64(fields + 8)));
	store_be32(result, good ? 0 : DMA_ERROR);
	mem_write(mem, request, result, sizeof(result));
}

static uint64_t dma_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)device;
	(void)size;
	return load_le32(&"QEMU CFG"[offset & 4]);
}

static void dma_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct fw_cfg *f = (struct fw_cfg *)device;
	uint32_t part = __builtin_bswap32((uint32_t)value);
	uint64_t address;

	(void)size;
	if (!offset) {
		f->dma_address = (uint64_t)part << 32;
		return;
	}
	address = f->dma_address | part;
	f->dma_address = 0;
	dma(f, gpa(address));
}

/* ---- life ---- */

static void fw_cfg_reset(struct device *device)
{
	struct fw_cfg *f = (struct fw_cfg *)device;

	f->later = f->started;
	f->started = true;
	set_boot_kinds(f);
	set_boot_order(f);
	set_serial_console(f);
}

static int fw_cfg_loaded(void *object, uint16_t version, struct error *err)
{
	struct fw_cfg *f = object;

	(void)version;
	if (f->selected != NOTHING && !item_of(f, f->selected))
		return error_set(err, EINVAL, "fw-cfg: selected is 0x%04x, which is no key", f->selected);
	return 0;
}

static void fw_cfg_attach(struct device *device)
{
	struct fw_cfg *f = (struct fw_cfg *)device;

	f->started = true;
	set_boot_order(f);
	set_serial_console(f);
	if (f->acpi_made && f->make_acpi)
		make_acpi(f);
}

static void fw_cfg_destroy(struct device *device)
{
	struct fw_cfg *f = (struct fw_cfg *)device;

	for (unsigned n = 0; n < ARRAY_SIZE(f->ranges); n++)
		bus_unmap(device->bus, BUS_PIO, &f->ranges[n]);
	for (unsigned key = 0; key < ITEMS; key++)
		clear_item(&f->items[key]);
	for (unsigned key = 0; key < ARCH_KEYS; key++)
		clear_item(&f->arch[key]);
	free(f);
}

STATE_DESC(fw_cfg_state_desc, "fw-cfg", 1, struct fw_cfg, FW_CFG_STATE, .loaded = fw_cfg_loaded);

static const struct device_ops fw_cfg_ops = {
	.state = &fw_cfg_state_desc, .reset = fw_cfg_reset, .attach = fw_cfg_attach, .destroy = fw_cfg_destroy
};

static int set_numbers(struct fw_cfg *f, struct error *err)
{
	const uint32_t cpus = irq_cpu_count(f->device.bus);
	const uint64_t ram = f->device.bus->mem ? f->device.bus->mem->ram_size : 0;
	const uint8_t features = ID_TRADITIONAL | ID_DMA, no_uuid[16] = { 0 };
	const struct {
		unsigned key;
		uint64_t value; /* little-endian: its first bytes */
		const void *data;
		size_t size;
	} items[] = {
		{ FW_CFG_SIGNATURE, 0, "QEMU", 4 },
		{ FW_CFG_ID, features, NULL, 4 },
		{ FW_CFG_UUID, 0, no_uuid, sizeof(no_uuid) },
		{ FW_CFG_RAM_SIZE, ram, NULL, 8 },
		{ FW_CFG_NOGRAPHIC, 0, NULL, 2 },
		{ FW_CFG_CPUS, cpus, NULL, 2 },
		{ FW_CFG_MAX_CPUS, cpus, NULL, 2 },
		{ FW_CFG_BOOT_MENU, f->options->menu, NULL, 2 },
		{ ARCH | ARCH_IRQ0, 1, NULL, 4 },
	};
	int rc = 0;

	for (unsigned n = 0; !rc && n < ARRAY_SIZE(items); n++)
		rc = fill_item(item_of(f, items[n].key), items[n].data ? items[n].data : &items[n].value, items[n].size,
			       err);
	/* How many nodes there are, of which each processor is, and how large each is: none. */
	return rc ? rc : fill_item(&f->items[FW_CFG_NUMA], NULL, 8 * (1 + (size_t)cpus), err);
}

/* RAM alone: what else is reserved a firmware knows. */
static int add_memory_map(struct fw_cfg *f, struct error *err)
{
	const struct guest_mem *mem = f->device.bus->mem;
	struct {
		uint64_t start, size;
		uint32_t type;
	} __attribute__((packed)) map[2] = { { 0, mem ? MIN(mem->ram_size, MEM_LOW_TOP) : 0, 1 } };
	unsigned count = 1;

	if (mem && mem->ram_size > MEM_LOW_TOP) {
		map[count].start = MEM_HIGH_BASE;
		map[count].size = mem->ram_size - MEM_LOW_TOP;
		map[count++].type = 1;
	}
	return add_file(f, "etc/e820", map, count * sizeof(map[0]), err) ? 0 : -err->code;
}

static int add_picture(struct fw_cfg *f, const char *path, struct error *err)
{
	uint8_t *data = NULL;
	size_t size = 0;
	int rc = host_file_read(path, FILE_MOST, &data, &size, err);

	if (rc)
		return error_prefix(err, "fw-cfg: option 'splash'");
	if (size > 2 && data[0] == 0xff && data[1] == 0xd8)
		rc = add_file(f, "bootsplash.jpg", data, size, err) ? 0 : -err->code;
	else if (size > 2 && data[0] == 'B' && data[1] == 'M')
		rc = add_file(f, "bootsplash.bmp", data, size, err) ? 0 : -err->code;
	else
		rc = error_set(err, EINVAL, "fw-cfg: option 'splash': '%s' is neither a JPEG nor a BMP file", path);
	free(data);
	return rc;
}

static int add_files(struct fw_cfg *f, struct error *err)
{
	const struct fw_cfg_options *o = f->options;
	uint8_t wait[2], retry[4];
	int rc;

	store_le16(wait, (uint16_t)o->splash_time);
	store_le32(retry, o->retry ? (uint32_t)o->retry : UINT32_MAX);
	rc = add_memory_map(f, err);
	if (!rc)
		rc = add_shared(f, "bootorder", f->boot_order, 0, NULL, NULL, err);
	if (!rc)
		rc = add_shared(f, "etc/sercon-port", &f->serial_console, sizeof(f->serial_console), NULL, NULL, err);
	if (!rc && !add_file(f, "etc/boot-fail-wait", retry, sizeof(retry), err))
		rc = -err->code;
	if (!rc && o->splash_time && !add_file(f, "etc/boot-menu-wait", wait, sizeof(wait), err))
		rc = -err->code;
	return rc || !o->splash ? rc : add_picture(f, o->splash, err);
}

static int map_ports(struct fw_cfg *f, struct error *err)
{
	int rc;

	f->ranges[0] = (struct bus_range){ .start = FW_CFG_PORT,
					   .size = 2,
					   .sizes = 1 | 2,
					   .device = &f->device,
					   .read = port_read,
					   .write = port_write };
	f->ranges[1] = (struct bus_range){ .start = FW_CFG_PORT + 4,
					   .size = 8,
					   .sizes = 4,
					   .device = &f->device,
					   .read = dma_read,
					   .write = dma_write };
	rc = bus_map(f->device.bus, BUS_PIO, &f->ranges[0], err);
	return rc ? rc : bus_map(f->device.bus, BUS_PIO, &f->ranges[1], err);
}

static int fw_cfg_create(struct bus *bus, const void *options, struct error *err)
{
	struct fw_cfg *f = calloc(1, sizeof(*f));
	struct error ignored;
	int rc;

	err = err ? err : &ignored;
	if (!f)
		return error_set_errno(err, ENOMEM, "fw-cfg");
	f->options = options;
	device_init(&f->device, bus, "fw-cfg", &fw_cfg_ops);
	rc = check_order("order", f->options->order, err);
	if (!rc)
		rc = check_order("once", f->options->once, err);
	if (!rc)
		rc = set_numbers(f, err);
	if (!rc)
		rc = add_files(f, err);
	return rc ? rc : map_ports(f, err);
}

const struct device_type fw_cfg_type = {
	.name = "fw-cfg",
	.help = "what a firmware is told; in every machine with one",
	.most = 1,
	DEVICE_OPTIONS(FW_CFG_OPTIONS, struct fw_cfg_options),
	.short_form = { .name = "--boot",
			.argument = "order=ORDER[,...]",
			.help = "what a firmware starts: a floppies, c disks, d CDs, n the network; also once=, "
				"menu=on" },
	.create = fw_cfg_create,
};

/* ---- files of the user's ---- */

/* clang-format off */
#define USER_FILE_OPTIONS(_, T)                                                                                        \
	_(T, TEXT, name, 0, 0, NULL, "its name, at most 55 characters; opt/... is left to users")                      \
	_(T, TEXT, file, 0, 0, NULL, "the file with its contents")                                                     \
	_(T, TEXT, string, 0, 0, NULL, "or the contents themselves")
/* clang-format on */

struct user_file_options {
	DEVICE_OPTION_FIELDS(USER_FILE_OPTIONS)
};

struct user_file {
	struct device device;
	const char *name; /* NULL: it was not added */
};

static void user_file_destroy(struct device *device)
{
	struct user_file *file = (struct user_file *)device;

	if (file->name)
		fw_cfg_remove_file(device->bus, file->name);
	free(file);
}

static const struct device_ops user_file_ops = { .destroy = user_file_destroy };

static int add_user_file(struct bus *bus, const struct user_file_options *o, struct error *err)
{
	uint8_t *data = NULL;
	size_t size = 0;
	int rc;

	if (o->string)
		return fw_cfg_add_file(bus, o->name, o->string, strlen(o->string), err);
	rc = host_file_read(o->file, FILE_MOST, &data, &size, err);
	if (!rc)
		rc = fw_cfg_add_file(bus, o->name, data, size, err);
	free(data);
	return rc;
}

static int user_file_create(struct bus *bus, const void *options, struct error *err)
{
	const struct user_file_options *o = options;
	struct user_file *file;
	struct error ignored;
	int rc;

	err = err ? err : &ignored;
	if (!o->name)
		return error_set(err, EINVAL, "fw-cfg-file: option 'name' is not given; expected a file's name");
	if (!o->file == !o->string)
		return error_set(err, EINVAL, "fw-cfg-file: '%s' has %s; expected one of file=FILE and string=TEXT",
				 o->name, o->file ? "two contents" : "no contents");
	file = calloc(1, sizeof(*file));
	if (!file)
		return error_set_errno(err, ENOMEM, "fw-cfg-file");
	device_init(&file->device, bus, "fw-cfg-file", &user_file_ops);
	rc = add_user_file(bus, o, err);
	if (rc)
		return error_prefix(err, "fw-cfg-file");
	file->name = o->name;
	return 0;
}

const struct device_type fw_cfg_file_type = {
	.name = "fw-cfg-file",
	.help = "a file for the firmware, or for a kernel that looks for it",
	.most = 64,
	DEVICE_OPTIONS(USER_FILE_OPTIONS, struct user_file_options),
	.short_form = { .name = "--fw-cfg",
			.argument = "name=NAME,...",
			.help = "a file for the firmware, with file=FILE or string=TEXT; again for more" },
	.create = user_file_create,
};
