/*
 * An IDE channel's registers (ATA/ATAPI-7, 5): two task files, commands and resets, the interrupt.
 */
#include "devices/ata/channel.h"

/* ---- the interrupt ---- */

static void update_line(struct channel *ch) { irq_set(&ch->line, ch->interrupt && !(ch->control & CONTROL_NIEN)); }

void channel_interrupt(struct channel *ch)
{
	ch->interrupt = true;
	if (!(ch->control & CONTROL_NIEN))
		ch->bm_status |= BM_INTERRUPT;
	update_line(ch);
}

static void withdraw_interrupt(struct channel *ch)
{
	ch->interrupt = false;
	update_line(ch);
}

/* ---- task files ---- */

struct ata_task channel_task(struct channel *ch, uint8_t command)
{
	const uint8_t *now = registers_of(ch, selected(ch)), *before = before_of(ch, selected(ch));

	return (struct ata_task){
		.command = command,
		.device = ch->device_register,
		.feature = (uint16_t)(now[FEATURE] | before[FEATURE] << 8),
		.count = (uint16_t)(now[COUNT] | before[COUNT] << 8),
		.lba = now[LBA_LOW] | (uint32_t)now[LBA_MID] << 8 | (uint32_t)now[LBA_HIGH] << 16 |
		       (uint64_t)before[LBA_LOW] << 24 | (uint64_t)before[LBA_MID] << 32 |
		       (uint64_t)before[LBA_HIGH] << 40,
	};
}

static void put_task(struct channel *ch, unsigned drive, const struct ata_task *task)
{
	uint8_t *now = registers_of(ch, drive), *before = before_of(ch, drive);

	now[COUNT] = (uint8_t)task->count;
	before[COUNT] = (uint8_t)(task->count >> 8);
	for (unsigned n = 0; n < 3; n++) {
		now[LBA_LOW + n] = (uint8_t)(task->lba >> 8 * n);
		before[LBA_LOW + n] = (uint8_t)(task->lba >> (24 + 8 * n));
	}
	if (drive == selected(ch))
		ch->device_register = (uint8_t)((ch->device_register & 0xf0) | (task->device & 0x0f));
	ch->status[drive] = task->status;
	ch->error[drive] = task->error;
}

void channel_set_reason(struct channel *ch, uint8_t reason) { registers_of(ch, selected(ch))[COUNT] = reason; }

void channel_end(struct channel *ch, const struct ata_task *task)
{
	ch->phase = IDLE;
	put_task(ch, selected(ch), task);
	if (ch->kind == ATA_COMMAND)
		channel_set_reason(ch, ATA_REASON_COMMAND | ATA_REASON_IN);
	channel_interrupt(ch);
}

/* ---- resets ---- */

void channel_set_signature(struct channel *ch, unsigned drive)
{
	struct ata_task task;

	if (!ch->drives[drive])
		return;
	ata_signature(ch->drives[drive], &task);
	put_task(ch, drive, &task);
}

/* Of both drives, when a reset or a diagnostic is over. */
static void set_signatures(struct channel *ch)
{
	ch->device_register = 0;
	channel_set_signature(ch, 0);
	channel_set_signature(ch, 1);
}

static void soft_reset(struct channel *ch)
{
	channel_drop(ch);
	withdraw_interrupt(ch);
	for (unsigned n = 0; n < 2; n++)
		if (ch->drives[n])
			ata_soft_reset(ch->drives[n]);
	set_signatures(ch);
}

static void diagnose(struct channel *ch)
{
	set_signatures(ch);
	channel_interrupt(ch);
}

/* ATA/ATAPI-7, 6.10: without an interrupt, at any time. */
static void device_reset(struct channel *ch)
{
	uint8_t device = ch->device_register & 0xf0;

	channel_drop(ch);
	ata_soft_reset(drive_of(ch));
	channel_set_signature(ch, selected(ch));
	ch->device_register = device;
}

static void begin_command(struct channel *ch, uint8_t command)
{
	struct ata_drive *d = drive_of(ch);
	struct ata_transfer t;
	struct ata_task task;

	if (ch->control & CONTROL_SRST)
		return;
	if (d && ata_is_cd(d) && command == ATA_DEVICE_RESET) {
		device_reset(ch);
		return;
	}
	if (ch->phase != IDLE || ch->under_way)
		return;
	withdraw_interrupt(ch);
	if (command == ATA_DIAGNOSTIC && !is_empty(ch)) {
		diagnose(ch);
	} else if (d) {
		task = channel_task(ch, command);
		ata_begin(d, &task, &t);
		if (t.kind == ATA_NOTHING) {
			ch->kind = ATA_NOTHING;
			channel_end(ch, &task);
		} else {
			channel_begin(ch, &t);
		}
	}
}

/* ---- ports ---- */

static uint64_t read_data(struct channel *ch, unsigned size)
{
	uint32_t part = MIN(size, ch->end - ch->at);
	uint64_t value = 0;

	if (ch->phase != IN)
		return ~0ull;
	memcpy(&value, ch->buffer + ch->at, part);
	ch->at += part;
	if (ch->at == ch->end)
		channel_end_block(ch);
	return value;
}

static void write_data(struct channel *ch, unsigned size, uint64_t value)
{
	uint32_t part = MIN(size, ch->end - ch->at);

	if (ch->phase != OUT && ch->phase != PACKET)
		return;
	memcpy((ch->phase == OUT ? ch->buffer : ch->cdb) + ch->at, &value, part);
	ch->at += part;
	if (ch->at == ch->end)
		channel_end_block(ch);
}

/* A drive 1 that is not there drive 0 answers for: with zeros. */
static uint8_t status_of(const struct channel *ch)
{
	if (is_empty(ch))
		return 0xff;
	if (!drive_of(ch))
		return 0;
	return ch->control & CONTROL_SRST || ch->under_way ? ATA_BSY : ch->status[selected(ch)];
}

static uint8_t read_register(struct channel *ch, unsigned n)
{
	unsigned drive = drive_of(ch) ? selected(ch) : !selected(ch);
	uint8_t status;

	switch (n) {
	case STATUS:
		status = status_of(ch);
		withdraw_interrupt(ch);
		return status;
	case DEVICE: return is_empty(ch) ? 0xff : ch->device_register | 0xa0;
	case ERROR: return is_empty(ch) ? 0xff : ch->error[drive];
	default:
		if (is_empty(ch))
			return 0xff;
		return (ch->control & CONTROL_HOB ? before_of(ch, drive) : registers_of(ch, drive))[n];
	}
}

/* Both drives see what is written. */
static void write_register(struct channel *ch, unsigned n, uint8_t value)
{
	ch->control &= (uint8_t)~CONTROL_HOB;
	if (n == COMMAND) {
		begin_command(ch, value);
		return;
	}
	if (ch->phase != IDLE || ch->under_way || ch->control & CONTROL_SRST)
		return;
	if (n == DEVICE) {
		ch->device_register = value;
		return;
	}
	for (unsigned drive = 0; drive < 2; drive++) {
		before_of(ch, drive)[n] = registers_of(ch, drive)[n];
		registers_of(ch, drive)[n] = value;
	}
}

static struct channel *channel_of(struct device *device) { return container_of(device, struct channel, device); }

static uint64_t port_read(struct device *device, uint64_t offset, unsigned size)
{
	struct channel *ch = channel_of(device);
	uint64_t value = 0;

	if (offset == DATA)
		return read_data(ch, size);
	for (unsigned n = 0; n < size; n++)
		value |= (uint64_t)(offset + n < REGISTERS ? read_register(ch, (unsigned)offset + n) : 0xff) << 8 * n;
	return value;
}

static void port_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct channel *ch = channel_of(device);

	if (offset == DATA) {
		write_data(ch, size, value);
		return;
	}
	for (unsigned n = 0; n < size && offset + n < REGISTERS; n++)
		write_register(ch, (unsigned)offset + n, (uint8_t)(value >> 8 * n));
}

static uint64_t control_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)offset, (void)size;
	return status_of(channel_of(device));
}

static void control_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct channel *ch = channel_of(device);
	bool resets = value & ~(uint64_t)ch->control & CONTROL_SRST;

	(void)offset, (void)size;
	ch->control = (uint8_t)value & (CONTROL_NIEN | CONTROL_SRST | CONTROL_HOB);
	if (resets)
		soft_reset(ch);
	update_line(ch);
}

/* ---- channels as devices ---- */

static void channel_reset(struct device *device)
{
	struct channel *ch = channel_of(device);

	ch->goes_on = false;
	channel_end_hold(ch);
	update_line(ch);
	set_signatures(ch);
}

/* Where it waited for the host it does so again when it goes on. */
static void channel_attach(struct device *device) { channel_end_hold(channel_of(device)); }

static void channel_pause(struct device *device)
{
	struct channel *ch = channel_of(device);

	lock_take(device->lock);
	ch->paused = true;
	lock_drop(device->lock);
	for (unsigned n = 0; n < 2; n++)
		if (ch->drives[n] && ata_block(ch->drives[n]))
			block_drain(ata_block(ch->drives[n]));
}

static void channel_resume(struct device *device)
{
	struct channel *ch = channel_of(device);

	lock_take(device->lock);
	ch->paused = false;
	channel_go_on(ch);
	lock_drop(device->lock);
}

static void channel_destroy(struct device *device)
{
	struct channel *ch = channel_of(device);

	bus_unmap(device->bus, BUS_PIO, &ch->registers);
	bus_unmap(device->bus, BUS_PIO, &ch->control_port);
	disk_hold_fini(&ch->hold);
	irq_line_free(&ch->line);
}

static int channel_loaded(void *object, uint16_t version, struct error *err)
{
	(void)version;
	return channel_check_transfer(object, err);
}

STATE_DESC(channel_state_desc, "ide-channel", 1, struct channel, CHANNEL_STATE, .loaded = channel_loaded);

static const struct device_ops channel_ops = { .state = &channel_state_desc,
					       .reset = channel_reset,
					       .attach = channel_attach,
					       .pause = channel_pause,
					       .resume = channel_resume,
					       .destroy = channel_destroy };

int ide_channel_create(struct channel *ch, struct pci_device *pci, _Atomic bool *master, unsigned number,
		       struct error *err)
{
	static const struct {
		uint16_t registers, control;
		uint8_t line;
	} places[] = { { 0x1f0, 0x3f6, 14 }, { 0x170, 0x376, 15 } };
	struct bus *bus = pci->device.bus;
	int rc;

	ch->pci = pci;
	ch->master = master;
	ch->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	channel_init_transfer(ch);
	disk_hold_init(&ch->hold, bus, channel_retry);
	device_init_sharing(&ch->device, bus, "ide-channel", &channel_ops, pci->device.lock);
	state_reset(&channel_state_desc, ch);
	ch->line = irq_isa_line(&ch->device, places[number].line);
	ch->registers = (struct bus_range){ .start = places[number].registers,
					    .size = REGISTERS,
					    .sizes = 1 | 2 | 4,
					    .device = &ch->device,
					    .read = port_read,
					    .write = port_write };
	ch->control_port = (struct bus_range){ .start = places[number].control,
					       .size = 1,
					       .sizes = 1,
					       .device = &ch->device,
					       .read = control_read,
					       .write = control_write };
	rc = bus_map(bus, BUS_PIO, &ch->registers, err);
	return rc ? rc : bus_map(bus, BUS_PIO, &ch->control_port, err);
}
