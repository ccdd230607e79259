/*
 * A target: which of its commands is served when (SAM-5, 5.14; SPC-4, 5), and its life as a device.
 */
#include "devices/scsi/target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static struct scsi_target *of(struct device *device) { return (struct scsi_target *)device; }

/* ---- attention and readiness ---- */

enum scsi_sense_code scsi_take_attention(struct scsi_target *t)
{
	static const enum scsi_sense_code codes[] = { SENSE_POWER_ON, SENSE_TARGET_RESET, SENSE_MEDIUM_CHANGED };

	for (unsigned n = 0; n < ARRAY_SIZE(codes); n++)
		if (t->attention & BIT(n)) {
			t->attention &= (uint8_t)~BIT(n);
			return codes[n];
		}
	return SENSE_NONE;
}

enum scsi_sense_code scsi_not_ready(const struct scsi_target *t)
{
	if (t->open)
		return SENSE_TRAY_OPEN;
	if (!t->block)
		return SENSE_NO_MEDIUM;
	return t->stopped ? SENSE_STOPPED : SENSE_NONE;
}

/* ---- commands ---- */

/* NULL: it has failed. */
static const struct scsi_opcode *find(struct scsi_command *c)
{
	const struct scsi_kind *kind = c->target->kind;
	bool known = false;

	for (const struct scsi_opcode *op = kind->opcodes; op < kind->opcodes + kind->opcode_count; op++) {
		if (op->code != c->cdb[0] || (op->when & SCSI_DISCARDS && !scsi_discards(c->target)))
			continue;
		if (op->action == NO_ACTION || op->action == (c->cdb[1] & 0x1f))
			return op;
		known = true;
	}
	if (known)
		scsi_fail_field(c, SENSE_INVALID_FIELD, 1, 4);
	else
		scsi_fail(c, SENSE_INVALID_OPCODE);
	return NULL;
}

/* The leftmost bit that means nothing. */
static bool has_stray_bit(struct scsi_command *c, const struct scsi_opcode *op)
{
	for (unsigned n = 1; n < op->size; n++) {
		unsigned stray = c->cdb[n] & ~op->usage[n];

		if (stray) {
			scsi_fail_field(c, SENSE_INVALID_FIELD, n, 31 - __builtin_clz(stray));
			return true;
		}
	}
	return false;
}

/* Unit attention and the like: true, and the command has failed. */
static bool is_held_up(struct scsi_command *c, enum scsi_sense_code why)
{
	if (why != SENSE_NONE)
		scsi_fail(c, why);
	return why != SENSE_NONE;
}

/* Of the first command with that code, or of one that there is not. */
static unsigned when_of(const struct scsi_target *t, uint8_t code)
{
	for (unsigned n = 0; n < t->kind->opcode_count; n++)
		if (t->kind->opcodes[n].code == code)
			return t->kind->opcodes[n].when;
	return 0;
}

static void begin(struct scsi_command *c)
{
	struct scsi_target *t = c->target;
	unsigned when = when_of(t, c->cdb[0]);
	const struct scsi_opcode *op;

	if (c->other_unit && !(when & SCSI_ANY_UNIT)) {
		scsi_fail(c, SENSE_INVALID_UNIT);
		return;
	}
	if (!(when & SCSI_ANY_TIME) && t->attention && is_held_up(c, scsi_take_attention(t)))
		return;
	op = find(c);
	if (!op || has_stray_bit(c, op))
		return;
	if (!(op->when & (SCSI_ANY_TIME | SCSI_UNREADY)) && is_held_up(c, scsi_not_ready(t)))
		return;
	op->run(c);
}

/* True: there is more to be done. */
static bool outcome(struct scsi_command *c)
{
	if (c->next)
		return true;
	free(c->buffer);
	c->buffer = NULL;
	if (c->overrun || c->status != SCSI_GOOD)
		c->moved = 0;
	return false;
}

bool scsi_begin(struct scsi_command *c)
{
	struct lock *lock = c->target->device.lock;

	lock_take(lock);
	begin(c);
	lock_drop(lock);
	return outcome(c);
}

bool scsi_go_on(struct scsi_command *c)
{
	struct lock *lock = c->target->device.lock;
	void (*next)(struct scsi_command *) = c->next;

	c->next = NULL;
	lock_take(lock);
	next(c);
	lock_drop(lock);
	return outcome(c);
}

bool scsi_waits(const struct scsi_command *c) { return disk_waits(c->target->on_error, c->target->block, &c->block); }

void scsi_give_up(struct scsi_command *c)
{
	free(c->buffer);
	c->buffer = NULL;
	c->next = NULL;
}

struct block *scsi_block(const struct scsi_target *t) { return t->block; }

const struct device *scsi_device(const struct scsi_target *t) { return &t->device; }

/* ---- the machine's ---- */

void scsi_target_reset(struct scsi_target *t)
{
	lock_take(t->device.lock);
	if (!(t->attention & ATTENTION_POWER_ON)) /* which says the same */
		t->attention |= ATTENTION_RESET;
	t->cached = 1;
	t->descriptors = t->prevented = t->stopped = 0;
	lock_drop(t->device.lock);
}

void scsi_target_saving(const void *object)
{
	struct scsi_target *t = (struct scsi_target *)object;

	t->saved_number = t->number;
	t->saved_blocks = t->blocks;
}

int scsi_target_loaded(void *object, uint16_t version, struct error *err)
{
	const struct scsi_target *t = object;

	(void)version;
	if (t->saved_number != t->number)
		return error_set(err, EINVAL, "%s: '%s' was target %u; it is %u", t->kind->name, t->info->file,
				 t->saved_number, t->number);
	if (t->saved_blocks != t->blocks)
		return error_set(err, EINVAL, "%s: the disk had %" PRIu64 " blocks; '%s' has %" PRIu64, t->kind->name,
				 t->saved_blocks, t->info->file, t->blocks);
	if (t->open && !t->kind->removable)
		return error_set(err, EINVAL, "%s: its tray is open; it has none", t->kind->name);
	return 0;
}

/* ---- life ---- */

void scsi_bus_end(struct scsi_bus *bus)
{
	for (unsigned n = 0; n < SCSI_TARGETS_MOST; n++)
		if (bus->targets[n])
			bus->targets[n]->bus = NULL;
}

void scsi_target_destroy(struct device *device)
{
	struct scsi_target *t = of(device);

	if (t->bus) {
		t->bus->targets[t->number] = NULL;
		t->bus->changed(t->bus, t->number, false);
	}
	block_close(t->block);
	free(t);
}

/* -1 with a sentence: there is none. */
static int free_number(const struct scsi_bus *bus, const char *name, unsigned number, struct error *err)
{
	if (number && bus->targets[number])
		return error_set(err, EBUSY, "%s: there is a target %u already", name, number);
	for (; number < SCSI_TARGETS_MOST; number++)
		if (!bus->targets[number])
			return (int)number;
	return error_set(err, EBUSY, "%s: the controller has %u targets already", name, SCSI_TARGETS_MOST);
}

static int find_place(struct scsi_bus *bus, const struct scsi_kind *kind, const struct block_info *info,
		      uint32_t block_size, unsigned number, struct error *err)
{
	if (info && info->size < block_size)
		return error_set(err, EINVAL, "%s: '%s' has %" PRIu64 " bytes; expected at least %u", kind->name,
				 info->file, info->size, block_size);
	return free_number(bus, kind->name, number, err);
}

bool scsi_target_boots(const struct device *device, struct device_boot *boot)
{
	const struct scsi_target *t = (const struct scsi_target *)device;

	*boot = (struct device_boot){ .kind = t->kind->removable ? DEVICE_BOOT_CD : DEVICE_BOOT_DISK,
				      .order = t->boot };
	return t->bus && t->bus->boot_path(t->bus, t->number, boot);
}

void scsi_target_set_medium(struct scsi_target *t, struct block *block)
{
	static const struct block_info none = { .readonly = true, .file = "no medium" };

	t->block = block;
	t->info = block ? block_info(block) : &none;
	t->blocks = t->info->size / t->block_size;
}

struct scsi_target *scsi_target_create(struct bus *machine, struct scsi_bus *bus, const struct scsi_kind *kind,
				       struct block *block, const char *serial, uint32_t block_size, unsigned number,
				       uint64_t boot, struct error *err)
{
	int place = find_place(bus, kind, block ? block_info(block) : NULL, block_size, number, err);
	struct scsi_target *t = place >= 0 ? calloc(1, sizeof(*t)) : NULL;

	if (!t) {
		block_close(block);
		if (place >= 0)
			error_set_errno(err, ENOMEM, "%s", kind->name);
		return NULL;
	}
	t->kind = kind;
	t->serial = serial ? serial : "";
	t->block_size = block_size;
	scsi_target_set_medium(t, block);
	t->number = (uint8_t)place;
	t->boot = boot;
	device_init(&t->device, machine, kind->name, kind->device);
	state_reset(kind->device->state, t);
	t->bus = bus;
	bus->targets[place] = t;
	bus->changed(bus, (unsigned)place, true);
	return t;
}
