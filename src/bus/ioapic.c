/*
 * The IOAPIC (Intel 82093AA data sheet, 290566) with 24 inputs at 0xfec00000, and the EOI register that later ones have
 * (version 0x20). All under irq_lock.
 */
#include "bus/private.h"

#include <errno.h>
#include <stdlib.h>

#define IOAPIC_VERSION 0x20

#define IOAPIC_STATE(_, T)                                                                                             \
	_(T, uint64_t, entries, 24, 1, RTE_MASK, UINT64_MAX)                                                           \
	_(T, uint32_t, lines, 1, 2, 0, 0xffffff) /* levels of the inputs */                                            \
	_(T, uint32_t, id, 1, 3, 0, 0x0f000000)                                                                        \
	_(T, uint8_t, index, 1, 4, 0, 0xff)

struct ioapic {
	struct device device;
	STATE_FIELDS(IOAPIC_STATE)
	struct irq_chip *chip;
	struct bus_range range;
};

/* Redirection table entries */
#define RTE_VECTOR     0xffull
#define RTE_LOGICAL    BIT(11)
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL      BIT(15)
#define RTE_MASK       BIT(16)
#define RTE_READ_ONLY  (BIT(12) | RTE_REMOTE_IRR)
#define RTE_WRITABLE   ((0xffull << 56 | 0x1ffffull) & ~RTE_READ_ONLY)

/* Only the modes that end with an EOI can be level-triggered. */
static bool is_level(uint64_t entry)
{
	unsigned mode = bits(entry, 10, 8);

	return (entry & RTE_LEVEL) && (mode == DELIVER_FIXED || mode == DELIVER_LOWEST);
}

static struct irq_message message_of(uint64_t entry)
{
	return (struct irq_message){
		.destination = bits(entry, 63, 56),
		.vector = entry & RTE_VECTOR,
		.mode = bits(entry, 10, 8),
		.logical = entry & RTE_LOGICAL,
		.level = is_level(entry),
	};
}

uint8_t ioapic_edge_vector(struct ioapic *ioapic, unsigned pin)
{
	uint64_t entry = ioapic->entries[pin];

	return entry & RTE_MASK || is_level(entry) ? 0 : entry & RTE_VECTOR;
}

enum irq_receiver ioapic_receiver(struct ioapic *ioapic, unsigned pin)
{
	struct irq_message message = message_of(ioapic->entries[pin]);

	return ioapic_edge_vector(ioapic, pin) ? irq_receiver(ioapic->chip, &message) : IRQ_NOBODY;
}

static void send(struct ioapic *ioapic, unsigned pin)
{
	struct irq_message message = message_of(ioapic->entries[pin]);

	/* A message that nobody accepts will never be ended: do not wait for its EOI. */
	if (irq_deliver(ioapic->chip, &message) && message.level)
		ioapic->entries[pin] |= RTE_REMOTE_IRR;
}

/* Send a level-triggered input that is high and not in service yet. */
static void service_level(struct ioapic *ioapic, unsigned pin)
{
	uint64_t entry = ioapic->entries[pin];

	if (is_level(entry) && (ioapic->lines & BIT(pin)) && !(entry & (RTE_MASK | RTE_REMOTE_IRR)))
		send(ioapic, pin);
}

void ioapic_set_line(struct ioapic *ioapic, unsigned pin, bool level)
{
	bool rose = level && !(ioapic->lines & BIT(pin));

	if (!level) {
		ioapic->lines &= ~(uint32_t)BIT(pin);
		return;
	}
	ioapic->lines |= BIT(pin);
	if (is_level(ioapic->entries[pin]))
		service_level(ioapic, pin);
	else if (rose && !(ioapic->entries[pin] & RTE_MASK)) /* edges on a masked input are lost */
		send(ioapic, pin);
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
	for (unsigned pin = 0; pin < IRQ_PINS; pin++) {
		uint64_t entry = ioapic->entries[pin];

		if ((entry & RTE_REMOTE_IRR) && (entry & RTE_VECTOR) == vector) {
			ioapic->entries[pin] = entry & ~RTE_REMOTE_IRR;
			service_level(ioapic, pin);
		}
	}
}

/* ---- registers ---- */

static uint32_t read_register(struct ioapic *ioapic)
{
	unsigned n = ioapic->index;

	switch (n) {
	case 0: /* IOAPICID */
	case 2: /* IOAPICARB: loaded with the ID */ return ioapic->id;
	case 1: /* IOAPICVER */ return IOAPIC_VERSION | (IRQ_PINS - 1) << 16;
	}
	if (n >= 0x10 && n < 0x10 + 2 * IRQ_PINS)
		return (uint32_t)(ioapic->entries[(n - 0x10) / 2] >> (n & 1 ? 32 : 0));
	return 0;
}

static void write_entry(struct ioapic *ioapic, unsigned pin, bool high, uint32_t value)
{
	uint64_t entry = ioapic->entries[pin];
	uint64_t writable = RTE_WRITABLE & (high ? ~0ull << 32 : 0xffffffffull);

	entry = (entry & ~writable) | ((high ? (uint64_t)value << 32 : value) & writable);
	/* Changing to edge ends what waits for an EOI: system software clears a stuck remote IRR this way. */
	if (!(entry & RTE_LEVEL))
		entry &= ~RTE_REMOTE_IRR;
	ioapic->entries[pin] = entry;
	service_level(ioapic, pin);
}

static void write_register(struct ioapic *ioapic, uint32_t value)
{
	unsigned n = ioapic->index;

	if (n == 0)
		ioapic->id = value & 0x0f000000;
	else if (n >= 0x10 && n < 0x10 + 2 * IRQ_PINS)
		write_entry(ioapic, (n - 0x10) / 2, n & 1, value);
}

static uint64_t ioapic_read(struct device *device, uint64_t offset, unsigned size)
{
	struct ioapic *ioapic = (struct ioapic *)device;

	(void)size;
	switch (offset) {
	case 0x00: return ioapic->index;
	case 0x10: return read_register(ioapic);
	default: return 0;
	}
}

static void ioapic_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct ioapic *ioapic = (struct ioapic *)device;

	(void)size;
	switch (offset) {
	case 0x00: ioapic->index = (uint8_t)value; break;
	case 0x10: write_register(ioapic, (uint32_t)value); break;
	case 0x40: ioapic_eoi(ioapic, (uint8_t)value); break;
	default: break;
	}
}

/* ---- life ---- */

static void ioapic_destroy(struct device *device)
{
	struct ioapic *ioapic = (struct ioapic *)device;

	bus_unmap(device->bus, BUS_MMIO, &ioapic->range);
	free(ioapic);
}

static int ioapic_loaded(void *object, uint16_t version, struct error *err)
{
	struct ioapic *ioapic = object;

	(void)version;
	for (unsigned pin = 0; pin < IRQ_PINS; pin++)
		if (ioapic->entries[pin] & ~(RTE_WRITABLE | RTE_REMOTE_IRR))
			return error_set(err, EINVAL, "ioapic: entry %u is 0x%llx, which has reserved bits set", pin,
					 (unsigned long long)ioapic->entries[pin]);
	return 0;
}

STATE_DESC(ioapic_state_desc, "ioapic", 1, struct ioapic, IOAPIC_STATE, .loaded = ioapic_loaded);

static const struct device_ops ioapic_ops = { .state = &ioapic_state_desc, .destroy = ioapic_destroy };

struct ioapic *ioapic_create(struct irq_chip *chip, struct error *err)
{
	struct ioapic *ioapic = calloc(1, sizeof(*ioapic));

	if (!ioapic) {
		error_set(err, ENOMEM, "out of memory for the IOAPIC");
		return NULL;
	}
	ioapic->chip = chip;
	device_init_sharing(&ioapic->device, chip->device.bus, "ioapic", &ioapic_ops, chip->device.lock);
	ioapic->range = (struct bus_range){
		.start = IOAPIC_ADDRESS,
		.size = 0x1000,
		.sizes = 4,
		.device = &ioapic->device,
		.read = ioapic_read,
		.write = ioapic_write,
	};
	if (bus_map(chip->device.bus, BUS_MMIO, &ioapic->range, err))
		return NULL; /* destroyed with the bus */
	return ioapic;
}
