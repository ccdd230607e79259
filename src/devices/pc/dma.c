/*
 * ISA DMA: the 8237A pair of a PC, channels 0 to 3 of bytes and 5 to 7 of words, with their page registers (Intel 8237A data sheet, 231466; IBM PC/AT Technical Reference). A device
 * asks for a transfer when it has data; the channel's programming says where they go.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#define CHANNELS 8
#define CASCADE	 4u /* the channel of the words' controller that the other one is on */

/* Of each controller, by offset in its ports */
enum {
	COMMAND = 8, /* STATUS */
	REQUEST,
	ONE_MASK,
	MODE,
	CLEAR_FLIPFLOP,
	MASTER_CLEAR,
	CLEAR_MASK,
	ALL_MASKS,
};

#define COMMAND_DISABLED 0x04u
#define MODE_TYPE(mode)	 ((mode) >> 2 & 3)
#define MODE_AUTOINIT	 0x10u
#define MODE_DOWN	 0x20u
#define MODE_CASCADE	 0xc0u
enum { TYPE_VERIFY, TYPE_TO_MEMORY, TYPE_FROM_MEMORY };

#define DMA_STATE(_, T)                                                                                                \
	_(T, uint16_t, base_address, 8, 1, 0, 0xffff)                                                                  \
	_(T, uint16_t, base_count, 8, 2, 0, 0xffff)                                                                    \
	_(T, uint16_t, address, 8, 3, 0, 0xffff)                                                                       \
	_(T, uint16_t, count, 8, 4, 0, 0xffff)                                                                         \
	_(T, uint8_t, mode, 8, 5, 0, 0xff)                                                                             \
	_(T, uint8_t, page, 16, 6, 0, 0xff)                                                                            \
	_(T, uint8_t, command, 2, 7, 0, 0xff)                                                                          \
	_(T, uint8_t, mask, 2, 8, 0x0f, 0x0f)                                                                          \
	_(T, uint8_t, request, 2, 9, 0, 0x0f)                                                                          \
	_(T, uint8_t, reached, 2, 10, 0, 0x0f) /* channels at their terminal count */                                  \
	_(T, uint8_t, high, 2, 11, 0, 1)       /* the flip-flop: the upper byte is next */

struct dma {
	struct device device;
	STATE_FIELDS(DMA_STATE)
	struct bus_range bytes, words, pages;
};

/* ---- registers ---- */

static void master_clear(struct dma *dma, unsigned n)
{
	dma->command[n] = dma->request[n] = dma->reached[n] = dma->high[n] = 0;
	dma->mask[n] = 0x0f;
}

static void set_half(uint16_t *value, bool high, uint8_t byte)
{
	*value = high ? (uint16_t)((*value & 0x00ff) | byte << 8) : (uint16_t)((*value & 0xff00) | byte);
}

static void set_bit(uint8_t *bits, unsigned n, bool set) { *bits = (uint8_t)((*bits & ~BIT(n)) | (set ? BIT(n) : 0)); }

static void write_channel(struct dma *dma, unsigned n, unsigned offset, uint8_t value)
{
	unsigned channel = 4 * n + offset / 2;
	bool high = dma->high[n];

	set_half(offset & 1 ? &dma->base_count[channel] : &dma->base_address[channel], high, value);
	set_half(offset & 1 ? &dma->count[channel] : &dma->address[channel], high, value);
	dma->high[n] = !high;
}

static void write_controller(struct dma *dma, unsigned n, unsigned offset, uint8_t value)
{
	switch (offset) {
	case COMMAND: dma->command[n] = value; break;
	case REQUEST: set_bit(&dma->request[n], value & 3, value & 4); break;
	case ONE_MASK: set_bit(&dma->mask[n], value & 3, value & 4); break;
	case MODE: dma->mode[4 * n + (value & 3)] = value; break;
	case CLEAR_FLIPFLOP: dma->high[n] = 0; break;
	case MASTER_CLEAR: master_clear(dma, n); break;
	case CLEAR_MASK: dma->mask[n] = 0; break;
	case ALL_MASKS: dma->mask[n] = value & 0x0f; break;
	default: write_channel(dma, n, offset, value);
	}
}

static uint8_t read_controller(struct dma *dma, unsigned n, unsigned offset)
{
	uint16_t value;

	switch (offset) {
	case COMMAND:
		value = (uint16_t)(dma->reached[n] | dma->request[n] << 4);
		dma->reached[n] = 0;
		return (uint8_t)value;
	case ALL_MASKS: return dma->mask[n] | 0xf0;
	case 0 ... 7:
		value = offset & 1 ? dma->count[4 * n + offset / 2] : dma->address[4 * n + offset / 2];
		dma->high[n] = !dma->high[n];
		return (uint8_t)(dma->high[n] ? value : value >> 8);
	default: return 0; /* the temporary register, and what can only be written */
	}
}

static uint64_t bytes_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return read_controller((struct dma *)device, 0, (unsigned)offset);
}

static void bytes_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	write_controller((struct dma *)device, 0, (unsigned)offset, (uint8_t)value);
}

/* At every other port. */
static uint64_t words_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return read_controller((struct dma *)device, 1, (unsigned)offset / 2);
}

static void words_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	write_controller((struct dma *)device, 1, (unsigned)offset / 2, (uint8_t)value);
}

/* Without a lock: systems write to port 0x80, which has no channel, to pass time, on all processors at once. */
static uint64_t pages_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return __atomic_load_n(&((struct dma *)device)->page[offset], __ATOMIC_RELAXED);
}

static void pages_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	__atomic_store_n(&((struct dma *)device)->page[offset], (uint8_t)value, __ATOMIC_RELAXED);
}

/* ---- transfers ---- */

/* A channel's page register, by its port's last digit; that of the cascade is for refresh. */
static const uint8_t page_of[CHANNELS] = { 7, 3, 1, 2, 15, 11, 9, 10 };

static gpa_t place_of(const struct dma *dma, unsigned channel)
{
	uint32_t page = __atomic_load_n(&dma->page[page_of[channel]], __ATOMIC_RELAXED);

	return channel < CASCADE ? gpa(page << 16 | dma->address[channel])
				 : gpa((page & 0xfe) << 16 | (uint32_t)dma->address[channel] << 1);
}

static bool is_stopped(const struct dma *dma, unsigned channel)
{
	unsigned n = channel / 4;

	/* What the first one asks for goes through the second. */
	return dma->command[n] & COMMAND_DISABLED || dma->mask[n] & BIT(channel % 4) ||
	       (dma->mode[channel] & MODE_CASCADE) == MODE_CASCADE ||
	       (!n && (dma->command[1] & COMMAND_DISABLED || dma->mask[1] & BIT(0)));
}

static void move_one(struct dma *dma, unsigned channel, uint8_t *data, unsigned size, bool to_memory)
{
	struct guest_mem *mem = dma->device.bus->mem;

	if (MODE_TYPE(dma->mode[channel]) != TYPE_VERIFY && mem) {
		if (to_memory)
			mem_write(mem, place_of(dma, channel), data, size);
		else if (mem_read(mem, place_of(dma, channel), data, size))
			memset(data, 0xff, size);
	}
	dma->address[channel] += dma->mode[channel] & MODE_DOWN ? 0xffff : 1;
}

/* True: that was the last one. */
static bool count_one(struct dma *dma, unsigned channel)
{
	if (dma->count[channel]--)
		return false;
	dma->reached[channel / 4] |= BIT(channel % 4);
	if (dma->mode[channel] & MODE_AUTOINIT) {
		dma->address[channel] = dma->base_address[channel];
		dma->count[channel] = dma->base_count[channel];
	} else {
		dma->mask[channel / 4] |= BIT(channel % 4);
	}
	return true;
}

unsigned isa_dma_transfer(struct bus *bus, unsigned channel, uint8_t *data, unsigned size, bool to_memory, bool *last)
{
	struct dma *dma = (struct dma *)bus_find_device(bus, "dma", 0);
	unsigned unit = channel < CASCADE ? 1 : 2, done = 0;

	*last = false;
	if (!dma)
		return 0;
	lock_take(dma->device.lock);
	if (!is_stopped(dma, channel) &&
	    (MODE_TYPE(dma->mode[channel]) == TYPE_VERIFY ||
	     MODE_TYPE(dma->mode[channel]) == (to_memory ? TYPE_TO_MEMORY : TYPE_FROM_MEMORY)))
		while (!*last && done + unit <= size) {
			move_one(dma, channel, data + done, unit, to_memory);
			*last = count_one(dma, channel);
			done += unit;
		}
	lock_drop(dma->device.lock);
	return done;
}

/* ---- life ---- */

static void dma_destroy(struct device *device)
{
	struct dma *dma = (struct dma *)device;

	bus_unmap(device->bus, BUS_PIO, &dma->bytes);
	bus_unmap(device->bus, BUS_PIO, &dma->words);
	bus_unmap(device->bus, BUS_PIO, &dma->pages);
	free(dma);
}

STATE_DESC(dma_state_desc, "dma", 1, struct dma, DMA_STATE);

static const struct device_ops dma_ops = { .state = &dma_state_desc, .destroy = dma_destroy };

static int create(struct bus *bus, const void *options, struct error *err)
{
	struct dma *dma = calloc(1, sizeof(*dma));
	int rc;

	(void)options;
	if (!dma)
		return error_set_errno(err, ENOMEM, "dma");
	device_init(&dma->device, bus, "dma", &dma_ops);
	state_reset(&dma_state_desc, dma);
	dma->bytes = (struct bus_range){
		.start = 0x00, .size = 16, .sizes = 1, .device = &dma->device, .read = bytes_read, .write = bytes_write
	};
	dma->words = (struct bus_range){
		.start = 0xc0, .size = 32, .sizes = 1, .device = &dma->device, .read = words_read, .write = words_write
	};
	dma->pages = (struct bus_range){ .start = 0x80,
					 .size = 16,
					 .sizes = 1,
					 .takes_locks = true,
					 .device = &dma->device,
					 .read = pages_read,
					 .write = pages_write };
	rc = bus_map(bus, BUS_PIO, &dma->bytes, err);
	if (!rc)
		rc = bus_map(bus, BUS_PIO, &dma->words, err);
	return rc ? rc : bus_map(bus, BUS_PIO, &dma->pages, err);
}

const struct device_type dma_type = {
	.name = "dma",
	.help = "ISA DMA controllers",
	.most = 1,
	.in_every_pc = true,
	.create = create,
};
