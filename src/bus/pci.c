/*
 * PCI: configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3), one bus, base address registers and
 * INTx. All under pci_lock.
 */
#include "bus/private.h"

#include <errno.h>
#include <stdlib.h>

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc
#define CONFIG_ENABLE  BIT(31)

#define PCI_FUNCTIONS 256
#define ISA_LINES     16

#define PCI_BUS_STATE(_, T)                                                                                            \
	_(T, uint32_t, address, 1, 1, 0, 0x80fffffc)                                                                   \
	_(T, uint8_t, intx_level, 256, 2, 0, 1) /* by devfn: a function has one pin */

struct pci_bus {
	struct device device;
	STATE_FIELDS(PCI_BUS_STATE)
	struct pci_device *functions[PCI_FUNCTIONS];
	int pirq_route[PIRQS];		      /* ISA line or -1; the PIIX3 saves its registers */
	struct irq_line isa_lines[ISA_LINES]; /* one source in each */
	struct bus_range ranges[2];
	const struct bus_range *byte_ports;
};

/* ---- interrupts ---- */

/* In the capability for one message: PCI Local Bus Specification 3.0, 6.8.1 */
#define CAPABILITY_MSI 0x05
enum { MSI_CONTROL = 2, MSI_ADDRESS = 4, MSI_DATA = 12, MSI_SIZE = 14 };
#define MSI_ENABLE BIT(0)
#define MSI_WIDE   BIT(7) /* 64-bit addresses */

static bool msi_replaces_intx(const struct pci_device *pci)
{
	return pci->msi && pci->config[pci->msi + MSI_CONTROL] & MSI_ENABLE;
}

static unsigned pirq_of(const struct pci_device *pci)
{
	return ((pci->devfn >> 3) + pci->config[PCI_INTERRUPT_PIN] - 2u) & (PIRQS - 1);
}

static bool function_asserts(const struct pci_bus *pci_bus, unsigned devfn)
{
	const struct pci_device *pci = pci_bus->functions[devfn];

	return pci && pci_bus->intx_level[devfn] && !(load_le16(&pci->config[PCI_COMMAND]) & COMMAND_NO_INTX) &&
	       !(pci->msix && msix_replaces_intx(pci->msix)) && !msi_replaces_intx(pci);
}

static void update_lines(struct pci_bus *pci_bus)
{
	bool levels[ISA_LINES] = { false };

	for (unsigned devfn = 0; devfn < PCI_FUNCTIONS; devfn++) {
		if (function_asserts(pci_bus, devfn)) {
			int route = pci_bus->pirq_route[pirq_of(pci_bus->functions[devfn])];

			if (route >= 0)
				levels[route] = true;
		}
	}
	for (unsigned i = 0; i < ISA_LINES; i++)
		irq_set(&pci_bus->isa_lines[i], levels[i]);
}

/* A pin's level is its device's to say, as that of any source. */
static void intx_set(void *opaque, unsigned devfn, bool level)
{
	struct pci_bus *pci_bus = opaque;
	struct lock *lock = pci_bus->device.lock;
	uint8_t *status = &pci_bus->functions[devfn]->config[PCI_STATUS];

	if (pci_bus->intx_level[devfn] == level)
		return;
	lock_take(lock);
	pci_bus->intx_level[devfn] = level;
	*status = level ? *status | STATUS_INTERRUPT : *status & ~STATUS_INTERRUPT;
	update_lines(pci_bus);
	lock_drop(lock);
}

/* All at once: on the way from one routing to another no line moves that does not in the end. */
void pci_set_pirqs(struct bus *bus, const int isa_lines[PIRQS])
{
	for (unsigned i = 0; i < PIRQS; i++) {
		BUG_ON(isa_lines[i] >= ISA_LINES);
		bus->pci->pirq_route[i] = isa_lines[i];
	}
	update_lines(bus->pci);
}

/* ---- base address registers ---- */

static unsigned bar_register(unsigned n) { return n == PCI_ROM ? PCI_ROM_BAR : PCI_BARS + 4 * n; }

static uint64_t bar_address(const struct pci_device *pci, unsigned n)
{
	const uint8_t *reg = &pci->config[bar_register(n)];
	uint64_t low = load_le32(reg);

	if (pci->bars[n].io)
		return low & ~3ull;
	return (low & (n == PCI_ROM ? ~(uint64_t)ROM_FIXED : ~15ull)) |
	       (pci->bars[n].wide ? (uint64_t)load_le32(reg + 4) << 32 : 0);
}

/* An address that a range of this size can be at: 0 and all ones (sizing) are "nowhere". */
static bool bar_mappable(const struct pci_device *pci, unsigned n, uint64_t address)
{
	uint16_t command = load_le16(&pci->config[PCI_COMMAND]);
	uint64_t last = address + pci->bars[n].size - 1;

	if (n == PCI_ROM && !(pci->config[PCI_ROM_BAR] & ROM_ENABLE))
		return false;
	if (!(command & (pci->bars[n].io ? COMMAND_IO : COMMAND_MEMORY)) || !address || last < address)
		return false;
	if (pci->bars[n].io)
		return last <= 0xffff;
	return pci->bars[n].wide ? last < BIT(52) : last < UINT32_MAX;
}

static enum bus_space bar_space(const struct pci_device *pci, unsigned n)
{
	return pci->bars[n].io ? BUS_PIO : BUS_MMIO;
}

/* A BAR that shows memory: nobody else may have its addresses on the bus, where only what the map leaves out arrives. */
static void show_memory(struct pci_device *pci, unsigned n)
{
	struct guest_mem *mem = pci->device.bus->mem;
	struct mem_layer *layer = &pci->bars[n].layer;
	bool shown = pci->bars[n].range.mapped;
	struct error error;

	if (!pci->bars[n].memory)
		return;
	if (!layer->added) {
		*layer = (struct mem_layer){ .memory = pci->bars[n].memory,
					     .size = pci->bars[n].size,
					     .priority = MEM_PRIORITY_DEVICE };
		if (shown && mem_layer_add(mem, layer, &error))
			log_guest("BAR %u: %s", n, error.text);
	}
	if (layer->added)
		mem_layer_set(mem, layer, shown ? pci->bars[n].range.start : layer->start, shown,
			      shown && n != PCI_ROM);
	bus_remap(pci->device.bus);
}

static void map_bar(struct pci_device *pci, unsigned n)
{
	struct bus_range *range = &pci->bars[n].range;
	struct error error;

	range->start = bar_address(pci, n);
	range->size = pci->bars[n].size;
	range->device = &pci->device;
	range->moves = true;
	if (bus_map(pci->device.bus, bar_space(pci, n), range, &error))
		log_guest("BAR %u: %s", n, error.text);
	else
		pci->bars_mapped |= 1 << n;
	show_memory(pci, n);
}

static void unmap_bar(struct pci_device *pci, unsigned n)
{
	bus_unmap(pci->device.bus, bar_space(pci, n), &pci->bars[n].range);
	pci->bars_mapped &= ~(1 << n);
	show_memory(pci, n);
}

static bool bar_wanted(const struct pci_device *pci, unsigned n)
{
	return pci->bars[n].size && bar_mappable(pci, n, bar_address(pci, n));
}

static void update_bars(struct pci_device *pci)
{
	for (unsigned n = 0; n < ARRAY_SIZE(pci->bars); n++) {
		struct bus_range *range = &pci->bars[n].range;

		if (range->mapped && (!bar_wanted(pci, n) || range->start != bar_address(pci, n)))
			unmap_bar(pci, n);
		if (range->mapped)
			pci->bars_mapped |= 1 << n; /* a reset may have cleared it */
		else if (bar_wanted(pci, n))
			map_bar(pci, n);
	}
}

static void init_bars(struct pci_device *pci)
{
	for (unsigned n = 0; n < ARRAY_SIZE(pci->bars); n++) {
		uint8_t *config = &pci->config[bar_register(n)], *mask = &pci->config_mask[bar_register(n)];
		uint64_t size = pci->bars[n].size;

		if (!size)
			continue;
		BUG_ON(size & (size - 1) || size < (pci->bars[n].io ? 4 : 16));
		BUG_ON(pci->bars[n].memory && (pci->bars[n].io || size < PAGE_SIZE));
		if (n == PCI_ROM) {
			store_le32(mask, (uint32_t) ~(size - 1) | ROM_ENABLE);
			continue;
		}
		store_le32(config, pci->bars[n].io ? 1 : pci->bars[n].wide ? 4 : 0);
		store_le32(mask, (uint32_t) ~(size - 1) & (pci->bars[n].io ? ~3u : ~15u));
		if (pci->bars[n].wide) {
			BUG_ON(n >= 5 || pci->bars[n].io || pci->bars[n + 1].size);
			store_le32(mask + 4, (uint32_t)(~(size - 1) >> 32));
		}
	}
}

/* ---- configuration space ---- */

static uint64_t config_read(const struct pci_device *pci, unsigned offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)pci->config[offset + i] << (8 * i);
	return value;
}

/* What follows from the command register and from the capability. */
static void update_interrupts(struct pci_device *pci)
{
	if (pci->msix)
		msix_update(pci->msix);
	update_lines(pci->device.bus->pci);
}

static void config_write(struct pci_device *pci, unsigned offset, unsigned size, uint64_t value)
{
	for (unsigned i = 0; i < size; i++, value >>= 8) {
		uint8_t mask = pci->config_mask[offset + i], *byte = &pci->config[offset + i];

		*byte = (*byte & ~mask) | (value & mask);
		*byte &= ~(value & pci->config_w1c[offset + i]);
	}
	if (offset < PCI_ROM_BAR + 4)
		update_bars(pci);
	update_interrupts(pci);
	if (pci->config_written)
		pci->config_written(pci, offset, size);
}

/* The function that CONFIG_ADDRESS selects, or NULL. */
static struct pci_device *selected(const struct pci_bus *pci_bus)
{
	if (!(pci_bus->address & CONFIG_ENABLE) || bits(pci_bus->address, 23, 16) != 0)
		return NULL;
	return pci_bus->functions[bits(pci_bus->address, 15, 8)];
}

/* The range that the offset is a window of, with *w; NULL: it is none. */
static const struct bus_range *window_at(const struct pci_device *pci, unsigned offset, struct pci_window *w)
{
	if (!pci || !pci->window || !pci->window(pci, offset, w))
		return NULL;
	if (w->bar >= ARRAY_SIZE(pci->bars) || !range_ok(w->offset, w->size, pci->bars[w->bar].size) ||
	    !(pci->bars[w->bar].range.sizes & w->size))
		return NULL;
	BUG_ON(!pci->bars[w->bar].range.takes_locks);
	return &pci->bars[w->bar].range;
}

/* What is behind a window is read and written without pci_lock, as when the BAR is accessed itself. */
static uint64_t data_read(struct device *device, uint64_t offset, unsigned size)
{
	struct pci_bus *pci_bus = (struct pci_bus *)device;
	const struct bus_range *range;
	struct pci_device *pci;
	struct pci_window w;
	uint64_t value = ~0ull;

	lock_take(&device->bus->pci_lock);
	pci = selected(pci_bus);
	offset += pci_bus->address & 0xfc;
	range = window_at(pci, (unsigned)offset, &w);
	if (pci && !range)
		value = config_read(pci, (unsigned)offset, size);
	lock_drop(&device->bus->pci_lock);
	return range ? range->read(&pci->device, w.offset, w.size) : value;
}

static void data_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct pci_bus *pci_bus = (struct pci_bus *)device;
	const struct bus_range *range;
	struct pci_device *pci;
	struct pci_window w;

	lock_take(&device->bus->pci_lock);
	pci = selected(pci_bus);
	offset += pci_bus->address & 0xfc;
	range = window_at(pci, (unsigned)offset, &w);
	if (pci && !range)
		config_write(pci, (unsigned)offset, size, value);
	lock_drop(&device->bus->pci_lock);
	if (range)
		range->write(&pci->device, w.offset, w.size, value & (~0ull >> (64 - 8 * w.size)));
}

static const struct bus_range *byte_port(const struct pci_bus *pci_bus, uint64_t offset)
{
	const struct bus_range *range = pci_bus->byte_ports;

	return range && CONFIG_ADDRESS + offset - range->start < range->size ? range : NULL;
}

static uint64_t address_read(struct device *device, uint64_t offset, unsigned size)
{
	struct pci_bus *pci_bus = (struct pci_bus *)device;
	const struct bus_range *range;

	if (size == 4)
		return pci_bus->address;
	range = byte_port(pci_bus, offset);
	return range ? range->read(range->device, CONFIG_ADDRESS + offset - range->start, 1) : ~0ull;
}

static void address_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct pci_bus *pci_bus = (struct pci_bus *)device;
	const struct bus_range *range;

	if (size == 4) {
		pci_bus->address = (uint32_t)value & 0x80fffffc;
		return;
	}
	range = byte_port(pci_bus, offset);
	if (range)
		range->write(range->device, CONFIG_ADDRESS + offset - range->start, 1, value);
}

void pci_set_byte_ports(struct bus *bus, const struct bus_range *range) { bus->pci->byte_ports = range; }

/* ---- functions ---- */

void pci_init_config(struct pci_device *pci, uint16_t vendor, uint16_t device, uint32_t class_revision,
		     uint16_t subsystem_vendor, uint16_t subsystem, uint8_t interrupt_pin)
{
	store_le16(&pci->config[PCI_VENDOR], vendor);
	store_le16(&pci->config[PCI_DEVICE], device);
	store_le32(&pci->config[PCI_REVISION], class_revision);
	store_le16(&pci->config[PCI_SUBSYSTEM], subsystem_vendor);
	store_le16(&pci->config[PCI_SUBSYSTEM + 2], subsystem);
	pci->config[PCI_INTERRUPT_PIN] = interrupt_pin;
	store_le16(&pci->config_mask[PCI_COMMAND], COMMAND_WRITABLE);
	store_le16(&pci->config_w1c[PCI_STATUS], STATUS_W1C);
	pci->config_mask[PCI_CACHE_LINE] = 0xff;
	pci->config_mask[PCI_LATENCY] = 0xff;
	pci->config_mask[PCI_INTERRUPT_LINE] = 0xff;
}

uint8_t pci_add_capability(struct pci_device *pci, uint8_t id, unsigned size)
{
	unsigned at = MAX(pci->capabilities_end, PCI_HEADER_SIZE + 0u);
	uint8_t *link = &pci->config[PCI_CAPABILITIES];

	BUG_ON(size < 2 || at + size > sizeof(pci->config));
	while (*link)
		link = &pci->config[*link + 1];
	*link = (uint8_t)at;
	pci->config[at] = id;
	pci->config[PCI_STATUS] |= STATUS_LIST;
	pci->capabilities_end = (unsigned)align_up(at + size, 4);
	return (uint8_t)at;
}

void pci_add_msi(struct pci_device *pci)
{
	uint8_t *mask;

	pci->msi = pci_add_capability(pci, CAPABILITY_MSI, MSI_SIZE);
	mask = &pci->config_mask[pci->msi];
	pci->config[pci->msi + MSI_CONTROL] = MSI_WIDE;
	mask[MSI_CONTROL] = MSI_ENABLE;
	store_le64(mask + MSI_ADDRESS, ~3ull);
	store_le16(mask + MSI_DATA, 0xffff);
}

void pci_send_msi(struct pci_device *pci)
{
	const uint8_t *capability = &pci->config[pci->msi];
	struct bus *bus = pci->device.bus;

	lock_take(&bus->pci_lock);
	if (msi_replaces_intx(pci) && load_le16(&pci->config[PCI_COMMAND]) & COMMAND_MASTER)
		irq_msi(bus, load_le64(capability + MSI_ADDRESS), load_le16(capability + MSI_DATA));
	lock_drop(&bus->pci_lock);
}

#define ROM_MOST (16u << 20) /* "a device may have ... up to 16 MB", 6.2.5.2 */

int pci_add_rom(struct pci_device *pci, const char *file, struct error *err)
{
	struct guest_mem *mem = pci->device.bus->mem;
	uint64_t rom_size = PAGE_SIZE;
	struct memory *memory;
	uint8_t *data = NULL;
	size_t size;
	int rc = host_file_read(file, ROM_MOST, &data, &size, err);

	if (rc)
		return error_prefix(err, "%s: ROM", pci->device.name);
	while (rom_size < size)
		rom_size *= 2;
	memory = mem ? memory_create(mem, MEMORY_KIND_DEVICE, "pci-rom", rom_size, err) : NULL;
	if (memory) {
		memcpy(memory->file.base, data, size);
		pci->bars[PCI_ROM].size = rom_size;
		pci->bars[PCI_ROM].memory = memory;
	}
	free(data);
	return memory || !mem ? 0 : -err->code;
}

/* Behind the bridges and where a display is looked for. */
#define FIRST_ANY_SLOT 3

static unsigned free_slot(const struct pci_bus *pci_bus)
{
	for (unsigned devfn = FIRST_ANY_SLOT << 3; devfn < PCI_FUNCTIONS; devfn += 8) {
		bool taken = false;

		for (unsigned function = 0; function < 8; function++)
			taken |= pci_bus->functions[devfn + function] != NULL;
		if (!taken)
			return devfn >> 3;
	}
	return PCI_ANY_SLOT;
}

int pci_add(struct bus *bus, struct pci_device *pci, unsigned slot, unsigned function, struct error *err)
{
	BUG_ON(slot > PCI_ANY_SLOT || function > 7);
	pci->any_slot = slot == PCI_ANY_SLOT;
	if (pci->any_slot && (slot = free_slot(bus->pci)) == PCI_ANY_SLOT)
		return error_set(err, EBUSY, "%s: no PCI slot is free", pci->device.name);
	pci->devfn = (uint8_t)(slot << 3 | function);
	if (bus->pci->functions[pci->devfn])
		return error_set(err, EBUSY, "%s: PCI function 00:%02x.%u is taken by %s", pci->device.name, slot,
				 function, bus->pci->functions[pci->devfn]->device.name);
	init_bars(pci);
	memcpy(pci->config_reset, pci->config, sizeof(pci->config));
	if (pci->config[PCI_INTERRUPT_PIN])
		pci->intx = (struct irq_line){
			.set = intx_set,
			.opaque = bus->pci,
			.n = pci->devfn,
		};
	bus->pci->functions[pci->devfn] = pci;
	return 0;
}

struct pci_device *pci_function(const struct bus *bus, unsigned devfn) { return bus->pci->functions[devfn]; }

/* Whatever its field says, which records and resets change. */
static unsigned place_of(const struct pci_device *pci)
{
	struct pci_device *const *functions = pci->device.bus->pci->functions;
	unsigned devfn = 0;

	while (functions[devfn] != pci)
		devfn++;
	return devfn;
}

void pci_reset(struct pci_device *pci)
{
	pci->devfn = (uint8_t)place_of(pci);
	memcpy(pci->config, pci->config_reset, sizeof(pci->config));
	update_bars(pci);
	irq_set(&pci->intx, false);
	if (pci->msix)
		msix_reset(pci->msix);
	update_interrupts(pci);
}

static int check_place(const struct pci_device *pci, struct error *err)
{
	unsigned here = place_of(pci);

	if (pci->devfn == here || (pci->any_slot && !((pci->devfn ^ here) & 7)))
		return 0;
	return error_set(err, EINVAL, "%s: it is PCI function 00:%02x.%u; here it is 00:%02x.%u", pci->device.name,
			 pci->devfn >> 3, pci->devfn & 7, here >> 3, here & 7);
}

int pci_loaded(struct pci_device *pci, struct error *err)
{
	if (check_place(pci, err))
		return -EINVAL;
	for (unsigned i = 0; i < sizeof(pci->config); i++) {
		uint8_t variable = pci->config_mask[i] | pci->config_w1c[i] | (i == PCI_STATUS ? STATUS_INTERRUPT : 0);

		if ((pci->config[i] ^ pci->config_reset[i]) & ~variable)
			return error_set(err, EINVAL,
					 "%s: PCI configuration byte 0x%02x is 0x%02x; expected 0x%02x in the "
					 "bits that are read-only (mask 0x%02x)",
					 pci->device.name, i, pci->config[i], pci->config_reset[i], (uint8_t)~variable);
	}
	for (unsigned n = 0; n < ARRAY_SIZE(pci->bars); n++)
		if (pci->bars_mapped & 1 << n && !bar_wanted(pci, n))
			return error_set(err, EINVAL, "%s: bars_mapped is 0x%02x, but BAR %u is disabled or nowhere",
					 pci->device.name, pci->bars_mapped, n);
	return pci->msix ? msix_loaded(pci->msix, err) : 0;
}

void pci_attach(struct pci_device *pci)
{
	unsigned mapped = pci->bars_mapped;

	pci->bars_mapped = 0;
	for (unsigned n = 0; n < ARRAY_SIZE(pci->bars); n++)
		if (mapped & 1 << n)
			map_bar(pci, n);
		else
			show_memory(pci, n); /* which it may have done before */
	if (pci->msix)
		msix_update(pci->msix);
}

void pci_remove(struct pci_device *pci)
{
	struct bus *bus = pci->device.bus;

	if (bus->pci)
		irq_line_free(&pci->intx);
	for (unsigned n = 0; n < ARRAY_SIZE(pci->bars); n++) {
		bus_unmap(bus, bar_space(pci, n), &pci->bars[n].range);
		if (pci->bars[n].layer.added)
			mem_layer_remove(bus->mem, &pci->bars[n].layer);
	}
	if (pci->bars[PCI_ROM].memory) {
		mem_commit(bus->mem);
		memory_destroy(bus->mem, pci->bars[PCI_ROM].memory);
	}
	if (bus->pci && bus->pci->functions[pci->devfn] == pci)
		bus->pci->functions[pci->devfn] = NULL;
	if (pci->msix)
		msix_remove(pci->msix);
}

/* ---- for firmware ---- */

void pci_boot_path(const struct pci_device *pci, const char *name, const char *behind, struct device_boot *boot)
{
	char function[4] = "";

	if (pci->devfn & 7)
		snprintf(function, sizeof(function), ",%x", pci->devfn & 7u);
	snprintf(boot->path, sizeof(boot->path), "/pci@i0cf8/%s@%x%s%s", name, pci->devfn >> 3, function, behind);
}

#define CLASS_DISPLAY 0x03

bool pci_has_display(const struct bus *bus)
{
	for (unsigned n = 0; bus->pci && n < PCI_FUNCTIONS; n++)
		if (bus->pci->functions[n] && bus->pci->functions[n]->config[PCI_REVISION + 3] == CLASS_DISPLAY)
			return true;
	return false;
}

static void add_high_bars(const struct pci_device *pci, uint64_t *first, uint64_t *last)
{
	for (unsigned n = 0; n < ARRAY_SIZE(pci->bars); n++) {
		uint64_t start = bar_address(pci, n);

		if (!pci->bars[n].wide || start < MEM_HIGH_BASE || !bar_wanted(pci, n))
			continue;
		*first = *last ? MIN(*first, start) : start;
		*last = MAX(*last, start + pci->bars[n].size - 1);
	}
}

void pci_high_window(struct bus *bus, uint64_t *first, uint64_t *last)
{
	*first = *last = 0;
	if (!bus->pci)
		return;
	lock_take(&bus->pci_lock);
	for (unsigned n = 0; n < PCI_FUNCTIONS; n++)
		if (bus->pci->functions[n])
			add_high_bars(bus->pci->functions[n], first, last);
	lock_drop(&bus->pci_lock);
}

/* ---- the bus's record ---- */

int pci_bus_loaded(const struct bus *bus, struct error *err)
{
	const struct pci_device *owner[PCI_FUNCTIONS] = { NULL };

	for (unsigned n = 0; n < PCI_FUNCTIONS; n++) {
		const struct pci_device *pci = bus->pci->functions[n];

		if (!pci)
			continue;
		if (owner[pci->devfn])
			return error_set(err, EINVAL, "record '%s.%u': PCI function 00:%02x.%u is taken by '%s.%u'",
					 pci->device.name, pci->device.instance, pci->devfn >> 3, pci->devfn & 7,
					 owner[pci->devfn]->device.name, owner[pci->devfn]->device.instance);
		owner[pci->devfn] = pci;
	}
	return 0;
}

/* Devices are where their records say: before any of them, or the PIIX, is attached. */
static void pci_bus_attach(struct device *device)
{
	struct pci_bus *pci_bus = (struct pci_bus *)device;
	struct pci_device *here[PCI_FUNCTIONS];

	memcpy(here, pci_bus->functions, sizeof(here));
	memset(pci_bus->functions, 0, sizeof(pci_bus->functions));
	for (unsigned n = 0; n < PCI_FUNCTIONS; n++) {
		if (!here[n])
			continue;
		pci_bus->functions[here[n]->devfn] = here[n];
		here[n]->intx.n = here[n]->devfn;
	}
}

/* ---- life ---- */

static void pci_bus_destroy(struct device *device)
{
	struct pci_bus *pci_bus = (struct pci_bus *)device;

	for (unsigned i = 0; i < ARRAY_SIZE(pci_bus->ranges); i++)
		bus_unmap(device->bus, BUS_PIO, &pci_bus->ranges[i]);
	device->bus->pci = NULL;
	free(pci_bus);
}

STATE_DESC(pci_bus_state_desc, "pci", 1, struct pci_bus, PCI_BUS_STATE);

static const struct device_ops pci_bus_ops = { .state = &pci_bus_state_desc,
					       .attach = pci_bus_attach,
					       .destroy = pci_bus_destroy };

int pci_bus_create(struct bus *bus, struct error *err)
{
	struct pci_bus *pci_bus = calloc(1, sizeof(*pci_bus));
	int result;

	if (!pci_bus)
		return error_set(err, ENOMEM, "out of memory for the PCI bus");
	device_init_sharing(&pci_bus->device, bus, "pci", &pci_bus_ops, &bus->pci_lock);
	bus->pci = pci_bus;
	for (unsigned i = 0; i < PIRQS; i++)
		pci_bus->pirq_route[i] = -1;
	for (unsigned i = 0; bus->irq && i < ISA_LINES; i++)
		pci_bus->isa_lines[i] = irq_isa_line(&pci_bus->device, i);
	pci_bus->ranges[0] = (struct bus_range){ .start = CONFIG_ADDRESS,
						 .size = 4,
						 .sizes = 1 | 4,
						 .device = &pci_bus->device,
						 .read = address_read,
						 .write = address_write };
	pci_bus->ranges[1] = (struct bus_range){ .start = CONFIG_DATA,
						 .size = 4,
						 .sizes = 1 | 2 | 4,
						 .device = &pci_bus->device,
						 .takes_locks = true,
						 .read = data_read,
						 .write = data_write };
	result = bus_map(bus, BUS_PIO, &pci_bus->ranges[0], err);
	if (!result)
		result = bus_map(bus, BUS_PIO, &pci_bus->ranges[1], err);
	return result ? result : i440fx_create(bus, err);
}
