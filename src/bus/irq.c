/*
 * The interrupt controllers together: which line goes to which input, which local APICs a message is for.
 */
#include "bus/private.h"

#include <errno.h>
#include <stdlib.h>

/* ---- messages ---- */

static bool addressed(struct lapic *lapic, const struct irq_message *message)
{
	switch (message->shorthand) {
	case SHORTHAND_SELF: return lapic == message->sender;
	case SHORTHAND_ALL: return true;
	case SHORTHAND_OTHERS: return lapic != message->sender;
	default: return lapic_matches(lapic, message);
	}
}

/*
 * Lowest-priority arbitration, SDM vol. 3A 11.6.2.4: the addressed local APIC with the lowest processor priority; among equals
 * the first, so that the same run chooses the same one.
 */
static bool deliver_lowest(struct irq_chip *chip, const struct irq_message *message)
{
	struct lapic *best = NULL;

	for (unsigned i = 0; i < chip->cpu_count; i++) {
		struct lapic *lapic = chip->lapics[i];

		if (lapic_enabled(lapic) && addressed(lapic, message) && (!best || lapic_ppr(lapic) < lapic_ppr(best)))
			best = lapic;
	}
	return best && lapic_accept(best, message);
}

bool irq_deliver(struct irq_chip *chip, const struct irq_message *message)
{
	bool accepted = false;

	if (message->mode == DELIVER_LOWEST)
		return deliver_lowest(chip, message);
	for (unsigned i = 0; i < chip->cpu_count; i++)
		if (addressed(chip->lapics[i], message))
			accepted |= lapic_accept(chip->lapics[i], message);
	return accepted;
}

enum irq_receiver irq_receiver(struct irq_chip *chip, const struct irq_message *message)
{
	enum irq_receiver receiver = IRQ_NOBODY;

	if (message->mode != DELIVER_FIXED && message->mode != DELIVER_LOWEST)
		return IRQ_NOBODY;
	for (unsigned i = 0; i < chip->cpu_count; i++) {
		struct lapic *lapic = chip->lapics[i];

		if (!lapic_enabled(lapic) || !addressed(lapic, message))
			continue;
		if (lapic_requested(lapic, message->vector))
			return IRQ_WAITS;
		receiver = IRQ_READY;
	}
	return receiver;
}

void irq_msi(struct bus *bus, uint64_t address, uint32_t data)
{
	struct irq_message message = {
		.destination = bits(address, 19, 12),
		.vector = (uint8_t)data,
		.mode = bits(data, 10, 8),
		.logical = address & BIT(2),
	};

	if (address >> 20 != 0xfee) {
		log_guest("message-signalled interrupt to 0x%llx ignored: expected 0xfeexxxxx",
			  (unsigned long long)address);
		return;
	}
	/* With the redirection hint, one of several addressed CPUs takes it. */
	if ((address & BIT(3)) && message.logical && message.mode == DELIVER_FIXED)
		message.mode = DELIVER_LOWEST;
	irq_deliver(bus->irq, &message);
}

/* ---- lines ---- */

void irq_pic_output(struct irq_chip *chip, bool level)
{
	bool was_high = atomic_exchange(&chip->intr, level);

	if (!level || was_high)
		return;
	for (unsigned i = 0; i < chip->cpu_count; i++)
		lapic_intr(chip->lapics[i]);
}

/* ISA interrupt 0 is on input 2, as every PC's MADT says; input 2 is free because the 8259s cascade there. */
static unsigned ioapic_input(unsigned n) { return n ? n : 2; }

static bool intr_reaches_a_cpu(const struct irq_chip *chip)
{
	bool reaches = false;

	for (unsigned i = 0; i < chip->cpu_count; i++)
		reaches |= lapic_accepts_intr(chip->lapics[i]);
	return reaches;
}

/* A guest that uses the IOAPIC may leave the 8259 as it was. */
enum irq_receiver irq_isa_receiver(struct bus *bus, unsigned n)
{
	struct irq_chip *chip = bus->irq;
	enum irq_receiver receiver;

	lock_take(&bus->irq_lock);
	receiver = ioapic_receiver(chip->ioapic, ioapic_input(n));
	if (receiver == IRQ_NOBODY) {
		receiver = pic_receiver(chip->pic, n);
		if (receiver == IRQ_WAITS && !intr_reaches_a_cpu(chip))
			receiver = IRQ_NOBODY;
	}
	lock_drop(&bus->irq_lock);
	return receiver;
}

void irq_watch_timer(struct bus *bus, void (*taken)(void *), void *opaque)
{
	struct irq_chip *chip = bus->irq;

	lock_take(&bus->irq_lock);
	chip->timer_taken = taken;
	chip->timer_opaque = opaque;
	atomic_store(&chip->timer_vector, taken ? ioapic_edge_vector(chip->ioapic, ioapic_input(0)) : 0);
	lock_drop(&bus->irq_lock);
}

void irq_timer_taken(struct irq_chip *chip)
{
	struct lock *lock = &chip->device.bus->irq_lock;
	void (*taken)(void *);
	void *opaque;

	lock_take(lock);
	taken = chip->timer_taken;
	opaque = chip->timer_opaque;
	lock_drop(lock);
	if (taken)
		taken(opaque);
}

static void change_source(struct irq_chip *chip, struct irq_source *source, bool level)
{
	unsigned line = source->line;
	bool was_high = chip->line_count[line];

	source->high = level;
	chip->line_count[line] += level ? 1 : -1;
	if (was_high == !!chip->line_count[line])
		return;
	TRACE(chip->device.bus->trace, IRQ, "line %u %s", line, level ? "high" : "low");
	if (line < 16)
		pic_set_line(chip->pic, line, level);
	if (line != 2)
		ioapic_set_line(chip->ioapic, ioapic_input(line), level);
}

/* Which level a source has is its device's to say, and known without a lock: most calls change nothing. */
static void source_set(void *opaque, unsigned n, bool level)
{
	struct irq_chip *chip = opaque;
	struct lock *lock = &chip->device.bus->irq_lock;

	if (chip->sources[n].high == level)
		return;
	lock_take(lock);
	change_source(chip, &chip->sources[n], level);
	lock_drop(lock);
}

struct irq_line irq_isa_line(struct device *device, unsigned n)
{
	struct irq_chip *chip = device->bus->irq;
	unsigned source = 0;

	while (source < IRQ_MAX_SOURCES && chip->sources[source].owner)
		source++;
	BUG_ON(n >= IRQ_PINS || source == IRQ_MAX_SOURCES);
	chip->sources[source] = (struct irq_source){ .owner = device, .line = (uint8_t)n };
	return (struct irq_line){ .set = source_set, .opaque = chip, .n = source };
}

void irq_line_free(struct irq_line *line)
{
	irq_set(line, false);
	if (line->set == source_set)
		((struct irq_chip *)line->opaque)->sources[line->n].owner = NULL;
	*line = (struct irq_line){ .set = NULL };
}

void irq_line_move(struct irq_line *line, unsigned n)
{
	struct irq_chip *chip = line->opaque;
	struct irq_source *source = &chip->sources[line->n];

	BUG_ON(line->set != source_set || n >= IRQ_PINS);
	chip->line_count[source->line] -= source->high;
	source->line = (uint8_t)n;
	chip->line_count[n] += source->high;
}

unsigned irq_cpu_count(const struct bus *bus) { return bus->irq->cpu_count; }

struct lapic *irq_lapic(struct bus *bus, unsigned index)
{
	BUG_ON(index >= bus->irq->cpu_count);
	return bus->irq->lapics[index];
}

/* ---- life ---- */

static void irq_chip_reset(struct device *device)
{
	struct irq_chip *chip = (struct irq_chip *)device;

	for (unsigned i = 0; i < IRQ_MAX_SOURCES; i++)
		chip->sources[i].high = false;
	memset(chip->line_count, 0, sizeof(chip->line_count));
}

static void irq_chip_destroy(struct device *device)
{
	struct irq_chip *chip = (struct irq_chip *)device;

	device->bus->irq = NULL;
	free(chip->lapics);
	free(chip);
}

/* As in a record; those of one device as it asked for them. Returns how many there are. */
static unsigned sort_sources(struct irq_chip *chip, struct irq_source *sorted[IRQ_MAX_SOURCES])
{
	unsigned count = 0;

	for (unsigned i = 0; i < IRQ_MAX_SOURCES; i++) {
		struct irq_source *source = &chip->sources[i];
		unsigned at = count;

		if (!source->owner)
			continue;
		for (; at && device_comes_before(source->owner, sorted[at - 1]->owner); at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = source;
		count++;
	}
	return count;
}

static void irq_chip_saving(const void *object)
{
	struct irq_chip *chip = (struct irq_chip *)object; /* nothing that anybody else sees */
	struct irq_source *sorted[IRQ_MAX_SOURCES];
	unsigned count = sort_sources(chip, sorted);

	memset(chip->source_level, 0, sizeof(chip->source_level));
	for (unsigned i = 0; i < count; i++)
		chip->source_level[i] = sorted[i]->high;
}

static int irq_chip_loaded(void *object, uint16_t version, struct error *err)
{
	struct irq_source *sorted[IRQ_MAX_SOURCES];
	struct irq_chip *chip = object;

	(void)version;
	for (unsigned i = sort_sources(chip, sorted); i < IRQ_MAX_SOURCES; i++)
		if (chip->source_level[i])
			return error_set(err, EINVAL, "irq: source_level[%u] is 1; there is no such source", i);
	return 0;
}

static void irq_chip_attach(struct device *device)
{
	struct irq_chip *chip = (struct irq_chip *)device;
	struct irq_source *sorted[IRQ_MAX_SOURCES];
	unsigned count = sort_sources(chip, sorted);

	memset(chip->line_count, 0, sizeof(chip->line_count));
	for (unsigned i = 0; i < count; i++) {
		sorted[i]->high = chip->source_level[i];
		chip->line_count[sorted[i]->line] += sorted[i]->high;
	}
}

STATE_DESC(irq_chip_state_desc, "irq", 1, struct irq_chip, IRQ_CHIP_STATE, .loaded = irq_chip_loaded,
	   .saving = irq_chip_saving);

static const struct device_ops irq_chip_ops = {
	.state = &irq_chip_state_desc,
	.reset = irq_chip_reset,
	.attach = irq_chip_attach,
	.destroy = irq_chip_destroy,
};

int irq_chip_create(struct bus *bus, unsigned cpu_count, const struct lapic_ops *ops, void *const cpus[],
		    struct error *err)
{
	struct irq_chip *chip = calloc(1, sizeof(*chip));
	struct lapic **lapics = calloc(cpu_count, sizeof(struct lapic *));

	if (!chip || !lapics) {
		free(chip);
		free(lapics);
		return error_set(err, ENOMEM, "out of memory for the interrupt controllers");
	}
	chip->lapics = lapics;
	device_init_sharing(&chip->device, bus, "irq", &irq_chip_ops, &bus->irq_lock);
	bus->irq = chip;
	for (unsigned i = 0; i < cpu_count; i++) {
		chip->lapics[i] = lapic_create(chip, i, ops, cpus[i], err);
		if (!chip->lapics[i])
			return -ENOMEM;
		chip->cpu_count++;
	}
	chip->pic = pic_create(chip, err);
	if (!chip->pic)
		return err ? -err->code : -ENOMEM;
	chip->ioapic = ioapic_create(chip, err);
	if (!chip->ioapic)
		return err ? -err->code : -ENOMEM;
	return 0;
}
