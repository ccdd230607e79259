/*
 * The i440FX host bridge at 00:00.0 (82441FX data sheet, 290549): who answers for the addresses between 640 KiB and 1 MiB. Under pci_lock.
 */
#include "bus/private.h"

#include <errno.h>
#include <stdlib.h>

#define PAM0  0x59 /* programmable attribute map, seven registers (3.2.18) */
#define SMRAM 0x72 /* system management RAM control (3.2.22) */

#define PAM_REGISTERS 7
#define PAM_READ      1u
#define PAM_WRITE     2u

#define SMRAM_OPEN   BIT(6)
#define SMRAM_CLOSED BIT(5)
#define SMRAM_LOCK   BIT(4)
#define SMRAM_ENABLE BIT(3)
#define SMRAM_BASE   0x02 /* A0000h, read-only */

#define VIDEO_START 0xa0000ull
#define VIDEO_SIZE  0x20000ull
#define PAM_START   0xc0000ull
#define PAM_SIZE    0x40000ull

/* Each field of the PAM registers: 16 KiB each below F0000h, then the last 64 KiB, which PAM0 has in its upper half. */
#define SEGMENTS     13
#define SEGMENT_SIZE 0x4000ull

struct host_bridge {
	struct pci_device pci;
	struct mem_layer hole;		     /* nothing of RAM, unless it is enabled: the PCI bus's */
	struct mem_layer segments[SEGMENTS]; /* RAM that is */
	struct mem_layer smram;
	uint8_t smram_was; /* before the write at hand */
};

static unsigned attributes(const struct host_bridge *bridge, unsigned segment)
{
	unsigned field = segment == SEGMENTS - 1 ? 1 : segment + 2;

	return bridge->pci.config[PAM0 + field / 2] >> (field % 2 * 4);
}

/* The map follows the registers. */
static void update_map(struct host_bridge *bridge)
{
	struct guest_mem *mem = bridge->pci.device.bus->mem;
	bool open = (bridge->pci.config[SMRAM] & (SMRAM_OPEN | SMRAM_ENABLE)) == (SMRAM_OPEN | SMRAM_ENABLE);

	for (unsigned n = 0; mem && n < SEGMENTS; n++) {
		unsigned how = attributes(bridge, n);

		mem_layer_set(mem, &bridge->segments[n], bridge->segments[n].start, how & PAM_READ, how & PAM_WRITE);
	}
	if (mem)
		mem_layer_set(mem, &bridge->smram, VIDEO_START, open, open);
	bridge->smram_was = bridge->pci.config[SMRAM];
	bus_remap(bridge->pci.device.bus);
}

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	struct host_bridge *bridge = (struct host_bridge *)pci;
	uint8_t *smram = &pci->config[SMRAM];

	(void)offset, (void)size;
	/* Locked until a reset: closed, and as it is. */
	if (bridge->smram_was & SMRAM_LOCK)
		*smram = (uint8_t)((bridge->smram_was & ~SMRAM_CLOSED) | (*smram & SMRAM_CLOSED));
	if (*smram & SMRAM_LOCK)
		*smram &= ~SMRAM_OPEN;
	update_map(bridge);
}

#define SMRAM_WRITABLE (SMRAM_OPEN | SMRAM_CLOSED | SMRAM_LOCK | SMRAM_ENABLE)

static void host_bridge_reset(struct device *device)
{
	struct host_bridge *bridge = (struct host_bridge *)device;

	pci_reset(&bridge->pci);
	update_map(bridge);
}

static void remove_layers(struct host_bridge *bridge)
{
	struct guest_mem *mem = bridge->pci.device.bus->mem;

	if (!mem)
		return;
	mem_layer_remove(mem, &bridge->hole);
	mem_layer_remove(mem, &bridge->smram);
	for (unsigned n = 0; n < SEGMENTS; n++)
		mem_layer_remove(mem, &bridge->segments[n]);
	mem_commit(mem);
}

static void host_bridge_destroy(struct device *device)
{
	struct host_bridge *bridge = (struct host_bridge *)device;

	remove_layers(bridge);
	pci_remove(&bridge->pci);
	free(bridge);
}

static int host_bridge_loaded(void *object, uint16_t version, struct error *err)
{
	struct host_bridge *bridge = object;

	(void)version;
	if ((bridge->pci.config[SMRAM] & (SMRAM_LOCK | SMRAM_OPEN)) == (SMRAM_LOCK | SMRAM_OPEN))
		return error_set(err, EINVAL, "i440fx: SMRAM is 0x%02x: locked and open", bridge->pci.config[SMRAM]);
	return pci_loaded(&bridge->pci, err);
}

/* mem_commit() is the loader's. */
static void host_bridge_attach(struct device *device)
{
	struct host_bridge *bridge = (struct host_bridge *)device;

	pci_attach(&bridge->pci);
	update_map(bridge);
}

STATE_DESC(host_bridge_state_desc, "i440fx", 1, struct host_bridge, PCI_CONFIG_STATE, .loaded = host_bridge_loaded);

static const struct device_ops host_bridge_ops = {
	.state = &host_bridge_state_desc,
	.reset = host_bridge_reset,
	.attach = host_bridge_attach,
	.destroy = host_bridge_destroy,
};

static struct mem_layer shadow(struct guest_mem *mem, uint64_t start, uint64_t size)
{
	return (struct mem_layer){
		.memory = &mem->ram, .start = start, .size = size, .offset = start, .priority = MEM_PRIORITY_SHADOW
	};
}

static int add_layers(struct host_bridge *bridge, struct guest_mem *mem, struct error *err)
{
	int rc;

	bridge->hole = (struct mem_layer){
		.start = PAM_START, .size = PAM_SIZE, .priority = MEM_PRIORITY_BUS, .reads = true, .writes = true
	};
	bridge->smram = shadow(mem, VIDEO_START, VIDEO_SIZE);
	rc = mem_layer_add(mem, &bridge->hole, err);
	if (!rc)
		rc = mem_layer_add(mem, &bridge->smram, err);
	for (unsigned n = 0; !rc && n < SEGMENTS; n++) {
		uint64_t start = PAM_START + n * SEGMENT_SIZE;

		bridge->segments[n] =
			shadow(mem, start, n == SEGMENTS - 1 ? PAM_START + PAM_SIZE - start : SEGMENT_SIZE);
		rc = mem_layer_add(mem, &bridge->segments[n], err);
	}
	return rc;
}

void i440fx_set_ram(struct bus *bus, enum i440fx_ram ram)
{
	struct host_bridge *bridge = (struct host_bridge *)pci_function(bus, 0);

	memset(&bridge->pci.config[PAM0 + 1], (PAM_READ | PAM_WRITE) * 0x11, PAM_REGISTERS - 1);
	bridge->pci.config[PAM0] = (ram == I440FX_RAM ? PAM_READ | PAM_WRITE : PAM_READ) << 4;
	update_map(bridge);
}

int i440fx_create(struct bus *bus, struct error *err)
{
	struct host_bridge *bridge = calloc(1, sizeof(*bridge));
	struct pci_device *pci = &bridge->pci;

	if (!bridge)
		return error_set(err, ENOMEM, "out of memory for the PCI host bridge");
	device_init_sharing(&pci->device, bus, "i440fx", &host_bridge_ops, &bus->pci_lock);
	pci_init_config(pci, 0x8086, 0x1237, 0x06000002, 0, 0, 0);
	memset(&pci->config_mask[PAM0], 0xff, PAM_REGISTERS);
	pci->config[SMRAM] = SMRAM_BASE;
	pci->config_mask[SMRAM] = SMRAM_WRITABLE;
	pci->config_written = config_written;
	if (bus->mem && add_layers(bridge, bus->mem, err))
		return -err->code;
	return pci_add(bus, pci, 0, 0, err);
}
