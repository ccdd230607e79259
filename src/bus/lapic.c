/*
 * The local APIC: accepting interrupts from messages, its priorities, handing them to the CPU, EOI, sending inter-processor
 * interrupts, reset. SDM vol. 3A chapter 11.
 *
 * Without a lock: see lapic.h for which thread may touch what.
 */
#include "bus/lapic.h"

#include <errno.h>
#include <stdlib.h>

/* ---- 256-bit registers ---- */

/* Highest vector in a register, -1 if empty. */
static int highest(const uint32_t reg[8])
{
	for (int i = 7; i >= 0; i--) {
		uint32_t word = lapic_get(reg[i]);

		if (word)
			return i * 32 + 31 - __builtin_clz(word);
	}
	return -1;
}

static uint32_t set_bit(uint32_t reg[8], unsigned vector)
{
	return __atomic_fetch_or(&reg[vector / 32], 1u << vector % 32, __ATOMIC_SEQ_CST) >> vector % 32 & 1;
}

static uint32_t clear_bit(uint32_t reg[8], unsigned vector)
{
	return __atomic_fetch_and(&reg[vector / 32], ~(1u << vector % 32), __ATOMIC_SEQ_CST) >> vector % 32 & 1;
}

/* ---- accepting ---- */

/* Record errors; the error interrupt comes when a bit is new (11.5.3). */
void lapic_error(struct lapic *lapic, uint32_t bit)
{
	uint32_t old = __atomic_fetch_or(&lapic->errors, bit, __ATOMIC_SEQ_CST);

	if (!(old & bit))
		lapic_local_interrupt(lapic, LVT_ERROR);
}

static bool accept_vector(struct lapic *lapic, uint8_t vector, bool level)
{
	if (!lapic_enabled(lapic))
		return false;
	if (vector < 16) {
		/* An error vector that is itself illegal must not report itself for ever. */
		if (!(lapic_get(lapic->errors) & ESR_RECEIVE_ILLEGAL))
			lapic_error(lapic, ESR_RECEIVE_ILLEGAL);
		return false;
	}
	if (level)
		set_bit(lapic->tmr, vector);
	else if (lapic_get(lapic->tmr[vector / 32]) & 1u << vector % 32)
		clear_bit(lapic->tmr, vector);
	if (!set_bit(lapic->irr, vector))
		lapic->ops->interrupt(lapic->cpu);
	return true;
}

/* An event of the local vector table. */
void lapic_local_interrupt(struct lapic *lapic, enum lvt n)
{
	uint32_t lvt = lapic_get(lapic->lvt[n]);

	if ((lvt & LVT_MASKED) || !lapic_hardware_enabled(lapic))
		return;
	switch (LVT_MODE(lvt)) {
	case DELIVER_FIXED: accept_vector(lapic, (uint8_t)lvt, false); break;
	case DELIVER_NMI: lapic->ops->nmi(lapic->cpu); break;
	case DELIVER_INIT: lapic->ops->init(lapic->cpu); break;
	default: break; /* SMI: there is no system management mode; the others are reserved */
	}
}

bool lapic_accept(struct lapic *lapic, const struct irq_message *message)
{
	if (!lapic_hardware_enabled(lapic))
		return false;
	switch (message->mode) {
	case DELIVER_FIXED:
	case DELIVER_LOWEST: return accept_vector(lapic, message->vector, message->level);
	case DELIVER_NMI: lapic->ops->nmi(lapic->cpu); return true;
	case DELIVER_INIT:
		TRACE(lapic->device.bus->trace, APIC, "cpu %u: INIT", lapic->id);
		lapic->ops->init(lapic->cpu);
		return true;
	case DELIVER_SIPI:
		TRACE(lapic->device.bus->trace, APIC, "cpu %u: SIPI, vector 0x%02x", lapic->id, message->vector);
		lapic->ops->sipi(lapic->cpu, message->vector);
		return true;
	case DELIVER_EXTINT:
		lapic_put(lapic->extint, true);
		lapic->ops->interrupt(lapic->cpu);
		return true;
	default: return false;
	}
}

/* 11.6.2. A destination of all ones is everybody. */
bool lapic_matches(struct lapic *lapic, const struct irq_message *message)
{
	uint32_t destination = message->destination, ldr;

	if (destination == (message->wide ? UINT32_MAX : 0xff))
		return true;
	if (!message->logical)
		return destination == lapic->id;
	ldr = lapic_logical_id(lapic);
	if (lapic_x2(lapic))
		return destination >> 16 == ldr >> 16 && (destination & ldr & 0xffff);
	ldr >>= 24;
	if (lapic_get(lapic->dfr) >> 28 == 0xf) /* flat */
		return destination & ldr;
	return destination >> 4 == ldr >> 4 && (destination & ldr & 0xf);
}

bool lapic_enabled(struct lapic *lapic)
{
	return lapic_hardware_enabled(lapic) && (lapic_get(lapic->svr) & SVR_ENABLE);
}

/* ---- to the CPU ---- */

uint8_t lapic_ppr(struct lapic *lapic)
{
	uint8_t tpr = (uint8_t)lapic_get(lapic->tpr);
	int served = highest(lapic->isr);

	return served < 0 || tpr >> 4 >= served >> 4 ? tpr : served & 0xf0;
}

bool lapic_requested(struct lapic *lapic, uint8_t vector)
{
	return lapic_get(lapic->irr[vector / 32]) >> vector % 32 & 1;
}

/* With the APIC globally disabled LINT0 is the processor's INTR pin (11.4.3). */
bool lapic_accepts_intr(struct lapic *lapic)
{
	uint32_t lint0 = lapic_get(lapic->lvt[LVT_LINT0]);

	return !lapic_hardware_enabled(lapic) || (LVT_MODE(lint0) == DELIVER_EXTINT && !(lint0 & LVT_MASKED));
}

static bool external_pending(struct lapic *lapic)
{
	return atomic_load_explicit(&lapic->chip->intr, memory_order_relaxed) &&
	       (lapic_accepts_intr(lapic) || lapic_get(lapic->extint));
}

/* The vector that would be delivered, or -1. */
static int deliverable(struct lapic *lapic)
{
	int vector = highest(lapic->irr);

	return vector >= 0 && vector >> 4 > lapic_ppr(lapic) >> 4 && lapic_hardware_enabled(lapic) ? vector : -1;
}

bool lapic_pending(struct lapic *lapic) { return unlikely(external_pending(lapic)) || deliverable(lapic) >= 0; }

/* Timers may have more to deliver. */
static void taken(struct lapic *lapic, uint8_t vector)
{
	struct irq_chip *chip = lapic->chip;

	if (unlikely(vector == atomic_load_explicit(&chip->timer_vector, memory_order_relaxed)))
		irq_timer_taken(chip);
	if (unlikely(lapic_get(lapic->owed)))
		lapic_timer_taken(lapic);
}

/* The 8259's vector, or -1: another CPU was quicker. */
static int take_external(struct lapic *lapic)
{
	struct irq_chip *chip = lapic->chip;
	struct lock *lock = chip->device.lock;
	bool timer = false;
	int vector = -1;

	lock_take(lock);
	if (chip->intr) {
		vector = pic_acknowledge(chip->pic, &timer);
		lapic_put(lapic->extint, false);
	}
	lock_drop(lock);
	if (timer)
		irq_timer_taken(chip);
	return vector;
}

int lapic_take(struct lapic *lapic)
{
	int vector;

	if (unlikely(external_pending(lapic)) && (vector = take_external(lapic)) >= 0)
		return vector;
	vector = deliverable(lapic);
	if (vector >= 0) {
		clear_bit(lapic->irr, vector);
		set_bit(lapic->isr, vector);
		taken(lapic, (uint8_t)vector);
	}
	return vector;
}

/* The output is wired to LINT0, whose LVT may as well make it a fixed interrupt or an NMI; then its edge counts. */
void lapic_intr(struct lapic *lapic)
{
	if (external_pending(lapic))
		lapic->ops->interrupt(lapic->cpu);
	else
		lapic_local_interrupt(lapic, LVT_LINT0);
}

void lapic_eoi(struct lapic *lapic)
{
	int vector = highest(lapic->isr);

	if (vector < 0)
		return;
	clear_bit(lapic->isr, vector);
	if (lapic_get(lapic->tmr[vector / 32]) & 1u << vector % 32) {
		struct lock *lock = lapic->chip->device.lock;

		lock_take(lock);
		ioapic_eoi(lapic->chip->ioapic, (uint8_t)vector);
		lock_drop(lock);
	}
	lapic_notify(lapic);
}

uint8_t lapic_tpr(struct lapic *lapic) { return (uint8_t)(lapic_get(lapic->tpr) >> 4); }

void lapic_set_tpr(struct lapic *lapic, uint8_t cr8)
{
	lapic_put(lapic->tpr, (uint32_t)(cr8 & 0xf) << 4);
	lapic_notify(lapic);
}

/* ---- inter-processor interrupts (11.6.1) ---- */

void lapic_send(struct lapic *lapic, uint64_t icr)
{
	bool wide = lapic_x2(lapic);
	struct irq_message message = {
		.destination = (uint32_t)(wide ? icr >> 32 : icr >> 56),
		.vector = (uint8_t)icr,
		.mode = bits(icr, 10, 8),
		.logical = icr & BIT(11),
		.wide = wide,
		.shorthand = bits(icr, 19, 18),
		.sender = lapic,
	};
	bool fixed = message.mode == DELIVER_FIXED || message.mode == DELIVER_LOWEST;

	/* An INIT that is a level de-assert only synchronised the arbitration IDs of old; ExtINT is no IPI. */
	if ((message.mode == DELIVER_INIT && (icr & BIT(15)) && !(icr & BIT(14))) || message.mode == DELIVER_EXTINT)
		return;
	/* Table 11-3: to itself (and all including itself) a CPU can only send fixed interrupts. */
	if (!fixed && (message.shorthand == SHORTHAND_SELF || message.shorthand == SHORTHAND_ALL))
		return;
	if (fixed && message.vector < 16) {
		lapic_error(lapic, ESR_SEND_ILLEGAL);
		return;
	}
	TRACE(lapic->device.bus->trace, APIC, "cpu %u: IPI mode %u vector 0x%02x to %s 0x%x shorthand %u", lapic->id,
	      message.mode, message.vector, message.logical ? "logical" : "physical", message.destination,
	      message.shorthand);
	irq_deliver(lapic->chip, &message);
}

/* ---- life ---- */

/*
 * After power-on the local vector table is masked and the APIC software-disabled (11.4.7.1); the firmware of a PC then
 * enables the boot processor's with LINT0 as ExtINT, so that the 8259's interrupts pass ("virtual wire mode", MultiProcessor
 * Specification 3.6.2.2), and LINT1 as NMI. Kernels are booted directly, without a firmware, and find what it would have left.
 */
static void virtual_wire(struct lapic *lapic)
{
	lapic->svr |= SVR_ENABLE;
	lapic->lvt[LVT_LINT0] = DELIVER_EXTINT << 8;
	lapic->lvt[LVT_LINT1] = DELIVER_NMI << 8;
}

void lapic_reset(struct lapic *lapic, bool init)
{
	uint64_t apic_base = lapic->apic_base; /* INIT leaves IA32_APIC_BASE alone (11.4.7.3) */

	pthread_mutex_lock(&lapic->timer_lock);
	timer_disarm(&lapic->timer);
	state_reset(lapic->device.ops->state, lapic);
	pthread_mutex_unlock(&lapic->timer_lock);
	if (init)
		lapic->apic_base = apic_base;
	else if (lapic->id == 0)
		lapic->apic_base |= APIC_BASE_BSP;
	if (!init && lapic->id == 0)
		virtual_wire(lapic);
}

static void lapic_power_on(struct device *device) { lapic_reset((struct lapic *)device, false); }

static void lapic_destroy(struct device *device)
{
	struct lapic *lapic = (struct lapic *)device;

	timer_disarm(&lapic->timer);
	pthread_mutex_destroy(&lapic->timer_lock);
	free(lapic);
}

static int lapic_loaded(void *object, uint16_t version, struct error *err)
{
	struct lapic *lapic = object;

	(void)version;
	if (!(lapic->apic_base & APIC_BASE_EN) && (lapic->apic_base & APIC_BASE_EXTD))
		return error_set(err, EINVAL, "lapic %u: apic_base 0x%llx has EXTD without EN", lapic->id,
				 (unsigned long long)lapic->apic_base);
	return lapic_timer_loaded(lapic, err);
}

/* What its CPU has to take it asks for when it runs. */
static void lapic_attach(struct device *device) { lapic_timer_attach((struct lapic *)device); }

STATE_DESC(lapic_state_desc, "lapic", 1, struct lapic, LAPIC_STATE, .loaded = lapic_loaded);

static const struct device_ops lapic_device_ops = {
	.state = &lapic_state_desc,
	.reset = lapic_power_on,
	.attach = lapic_attach,
	.destroy = lapic_destroy,
};

struct lapic *lapic_create(struct irq_chip *chip, unsigned index, const struct lapic_ops *ops, void *cpu,
			   struct error *err)
{
	struct lapic *lapic = calloc(1, sizeof(*lapic));

	if (!lapic) {
		error_set(err, ENOMEM, "out of memory for local APIC %u", index);
		return NULL;
	}
	lapic->id = index;
	lapic->chip = chip;
	lapic->ops = ops;
	lapic->cpu = cpu;
	pthread_mutex_init(&lapic->timer_lock, NULL);
	device_init_sharing(&lapic->device, chip->device.bus, "lapic", &lapic_device_ops, chip->device.lock);
	lapic_timer_init(lapic);
	lapic_reset(lapic, false);
	return lapic;
}
