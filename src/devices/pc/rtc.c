/*
 * The MC146818 real-time clock (Motorola data sheet, as in the PIIX4) at 0x70 and 0x71 with 128 bytes of CMOS memory. Time of day is
 * the machine's UTC plus what the guest changed by setting it; nothing ticks: registers and flags are computed when they are
 * looked at, and a timer is armed only for an interrupt that is enabled.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum {
	RTC_SECONDS,
	RTC_SECONDS_ALARM,
	RTC_MINUTES,
	RTC_MINUTES_ALARM,
	RTC_HOURS,
	RTC_HOURS_ALARM,
	RTC_DAY_OF_WEEK,
	RTC_DAY,
	RTC_MONTH,
	RTC_YEAR,
	RTC_A,
	RTC_B,
	RTC_C,
	RTC_D,
	CMOS_FIRST = 0x10, /* that is no clock's */
	CMOS_EQUIPMENT = 0x14,
	CMOS_BASE_MEMORY = 0x15,
	CMOS_EXTENDED = 0x17,
	CMOS_CHECKSUM = 0x2e,
	CMOS_EXTENDED_2 = 0x30,
	RTC_CENTURY = 0x32,
	CMOS_ABOVE_16M = 0x34,
	CMOS_ABOVE_4G = 0x5b,
	CMOS_MORE_CPUS = 0x5f, /* besides the first: so many does firmware wait for */
};

#define A_UIP	 BIT(7)
#define A_RATE	 0x0f
#define B_SET	 BIT(7)
#define B_PIE	 BIT(6)
#define B_AIE	 BIT(5)
#define B_UIE	 BIT(4)
#define B_BINARY BIT(2)
#define B_24H	 BIT(1)
#define C_IRQF	 BIT(7)
#define C_PF	 BIT(6)
#define C_AF	 BIT(5)
#define C_UF	 BIT(4)
#define D_VRT	 BIT(7)
#define HOUR_PM	 BIT(7)

/* UIP is set 244 us before an update, which takes 1,984 us: the registers change at its end. */
#define UIP_NS ((244 + 1984) * 1000)

#define UTC_JITTER_NS 10000000ull

/*
 * cmos holds the time registers as of the last look at them; while the clock is stopped (SET, or the divider in reset), they
 * are what will be set.
 */
#define RTC_STATE(_, T)                                                                                                \
	_(T, uint8_t, cmos, 128, 1, 0, 0xff)                                                                           \
	_(T, uint8_t, index, 1, 2, 0, 0x7f)                                                                            \
	_(T, uint64_t, offset_s, 1, 3, 0, UINT64_MAX) /* guest's date minus UTC, seconds, two's complement */          \
	_(T, uint32_t, offset_ns, 1, 4, 0, 999999999) /* and this, 0 unless the divider was reset */                   \
	_(T, uint64_t, seen, 1, 5, 0, UINT64_MAX)     /* vtime to which the flags of register C are up to date */      \
	_(T, uint64_t, event_at, 1, 6, VTIME_NEVER, UINT64_MAX) /* when the timer fires */

struct rtc {
	struct device device;
	STATE_FIELDS(RTC_STATE)
	/* A reset of the machine finds the battery-backed part as it was. */
	struct {
		uint8_t cmos[128];
		uint64_t offset_s;
		uint32_t offset_ns;
	} battery;
	uint64_t utc_base; /* UTC at guest time 0, see utc_at() */
	struct irq_line irq;
	struct timer timer;
	struct bus_range range;
};

/* ---- time ---- */

static vtime_t now(const struct rtc *rtc) { return clock_now(rtc->device.bus->clock); }

static bool divider_reset(const struct rtc *rtc) { return (rtc->cmos[RTC_A] >> 4 & 6) == 6; }

static bool stopped(const struct rtc *rtc) { return (rtc->cmos[RTC_B] & B_SET) || divider_reset(rtc); }

/* The guest's clock at guest time t: whole seconds since 1970 and ns into the second. */
struct rtc_time {
	int64_t seconds;
	uint32_t ns;
};

/*
 * The clock tells guest time and UTC at two moments; that jitter must not move a second's boundary from one look to the next.
 * What is more than jitter is the clock being set when it first starts.
 */
static uint64_t utc_at(struct rtc *rtc, vtime_t t)
{
	uint64_t base = clock_wall_ns(rtc->device.bus->clock) - now(rtc);

	if (base - rtc->utc_base + UTC_JITTER_NS > 2 * UTC_JITTER_NS)
		rtc->utc_base = base;
	return rtc->utc_base + t;
}

static struct rtc_time time_at(struct rtc *rtc, vtime_t t)
{
	uint64_t utc = utc_at(rtc, t) + rtc->offset_ns;

	return (struct rtc_time){ (int64_t)(utc / NS_PER_S + rtc->offset_s), utc % NS_PER_S };
}

static uint8_t encode(const struct rtc *rtc, unsigned value)
{
	return (uint8_t)(rtc->cmos[RTC_B] & B_BINARY ? value : (value / 10 << 4 | value % 10));
}

static unsigned decode(const struct rtc *rtc, uint8_t value)
{
	return rtc->cmos[RTC_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static unsigned decode_hour(const struct rtc *rtc, uint8_t value)
{
	unsigned hour;

	if (rtc->cmos[RTC_B] & B_24H)
		return decode(rtc, value);
	hour = decode(rtc, value & ~HOUR_PM) % 12;
	return value & HOUR_PM ? hour + 12 : hour;
}

static uint8_t encode_hour(const struct rtc *rtc, unsigned hour)
{
	if (rtc->cmos[RTC_B] & B_24H)
		return encode(rtc, hour);
	return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static void refresh_registers(struct rtc *rtc)
{
	time_t seconds;
	struct tm tm;

	if (stopped(rtc))
		return;
	seconds = time_at(rtc, now(rtc)).seconds;
	if (!gmtime_r(&seconds, &tm))
		return;
	rtc->cmos[RTC_SECONDS] = encode(rtc, tm.tm_sec);
	rtc->cmos[RTC_MINUTES] = encode(rtc, tm.tm_min);
	rtc->cmos[RTC_HOURS] = encode_hour(rtc, tm.tm_hour);
	rtc->cmos[RTC_DAY_OF_WEEK] = encode(rtc, tm.tm_wday + 1);
	rtc->cmos[RTC_DAY] = encode(rtc, tm.tm_mday);
	rtc->cmos[RTC_MONTH] = encode(rtc, tm.tm_mon + 1);
	rtc->cmos[RTC_YEAR] = encode(rtc, (tm.tm_year + 1900u) % 100);
	rtc->cmos[RTC_CENTURY] = encode(rtc, (tm.tm_year + 1900u) / 100 % 100);
}

/* The registers become the date; the fraction of the second goes on. Any register values give some date. */
static void set_from_registers(struct rtc *rtc)
{
	struct tm tm = {
		.tm_sec = (int)decode(rtc, rtc->cmos[RTC_SECONDS]),
		.tm_min = (int)decode(rtc, rtc->cmos[RTC_MINUTES]),
		.tm_hour = (int)decode_hour(rtc, rtc->cmos[RTC_HOURS]),
		.tm_mday = (int)decode(rtc, rtc->cmos[RTC_DAY]),
		.tm_mon = (int)decode(rtc, rtc->cmos[RTC_MONTH]) - 1,
		.tm_year = (int)(decode(rtc, rtc->cmos[RTC_CENTURY]) * 100 + decode(rtc, rtc->cmos[RTC_YEAR])) - 1900,
	};

	rtc->offset_s += (uint64_t)timegm(&tm) - (uint64_t)time_at(rtc, now(rtc)).seconds;
}

/* ---- flags and interrupts ---- */

/* Ticks of 32,768 Hz between periodic interrupts; 0: none. Rates 1 and 2 are as 8 and 9. */
static unsigned periodic_ticks(const struct rtc *rtc)
{
	unsigned rate = rtc->cmos[RTC_A] & A_RATE;

	if (!rate || divider_reset(rtc))
		return 0;
	return 1u << ((rate < 3 ? rate + 7 : rate) - 1);
}

static uint64_t periods(vtime_t t, unsigned period)
{
	return (uint64_t)((unsigned __int128)t * 32768 / NS_PER_S) / period;
}

static vtime_t next_periodic(vtime_t t, unsigned period)
{
	uint64_t ticks = (periods(t, period) + 1) * period;

	return (vtime_t)(((unsigned __int128)ticks * NS_PER_S + 32767) / 32768);
}

/* Does a value of the alarm's register match? 0xc0..0xff match all. */
static bool alarm_matches(uint8_t alarm, unsigned decoded, unsigned value) { return alarm >= 0xc0 || decoded == value; }

/* Seconds from second-of-day `from` (not counted itself) to the next alarm, 0 if it never comes. */
static unsigned seconds_to_alarm(const struct rtc *rtc, unsigned from)
{
	uint8_t hours = rtc->cmos[RTC_HOURS_ALARM], minutes = rtc->cmos[RTC_MINUTES_ALARM];
	uint8_t seconds = rtc->cmos[RTC_SECONDS_ALARM];
	unsigned hour = decode_hour(rtc, hours), minute = decode(rtc, minutes), second = decode(rtc, seconds);

	for (unsigned ahead = 1; ahead <= 86400;) {
		unsigned t = (from + ahead) % 86400;

		if (!alarm_matches(hours, hour, t / 3600))
			ahead += 3600 - t % 3600;
		else if (!alarm_matches(minutes, minute, t / 60 % 60))
			ahead += 60 - t % 60;
		else if (!alarm_matches(seconds, second, t % 60))
			ahead++;
		else
			return ahead;
	}
	return 0;
}

/* The guest time of a second boundary, n >= 1 seconds on from t. */
static vtime_t boundary(struct rtc *rtc, vtime_t t, unsigned n) { return t + n * NS_PER_S - time_at(rtc, t).ns; }

static vtime_t next_alarm(struct rtc *rtc, vtime_t t)
{
	int64_t of_day = time_at(rtc, t).seconds % 86400;
	unsigned n = seconds_to_alarm(rtc, (unsigned)(of_day < 0 ? of_day + 86400 : of_day));

	return n ? boundary(rtc, t, n) : VTIME_NEVER;
}

/* Set the flags of what happened since they were last brought up to date. */
static void update_flags(struct rtc *rtc)
{
	vtime_t t = now(rtc), since = rtc->seen;
	unsigned period = periodic_ticks(rtc);
	uint8_t *flags = &rtc->cmos[RTC_C];

	rtc->seen = t;
	if (since >= t)
		return;
	if (period && periods(since, period) != periods(t, period))
		*flags |= C_PF;
	if (!stopped(rtc)) {
		if (boundary(rtc, since, 1) <= t)
			*flags |= C_UF;
		if (next_alarm(rtc, since) <= t)
			*flags |= C_AF;
	}
}

/* The flags' bits are those of their enables. */
static void update_irq(struct rtc *rtc)
{
	bool active = rtc->cmos[RTC_C] & rtc->cmos[RTC_B] & (C_PF | C_AF | C_UF);
	vtime_t t = now(rtc), next = VTIME_NEVER;
	uint8_t wanted = rtc->cmos[RTC_B] & ~rtc->cmos[RTC_C];

	rtc->cmos[RTC_C] = (rtc->cmos[RTC_C] & ~C_IRQF) | (active ? C_IRQF : 0);
	irq_set(&rtc->irq, active && !atomic_load(&rtc->device.bus->timers_replaced));
	/* While the line is up nothing more can happen until the guest reads register C. */
	if (!active) {
		unsigned period = periodic_ticks(rtc);

		if ((wanted & B_PIE) && period)
			next = next_periodic(t, period);
		if ((wanted & B_UIE) && !stopped(rtc))
			next = MIN(next, boundary(rtc, t, 1));
		if ((wanted & B_AIE) && !stopped(rtc))
			next = MIN(next, next_alarm(rtc, t));
	}
	rtc->event_at = next;
	timer_arm(&rtc->timer, next);
}

void rtc_replaced(struct bus *bus)
{
	struct rtc *rtc = (struct rtc *)bus_find_device(bus, "rtc", 0);

	if (!rtc)
		return;
	lock_take(rtc->device.lock);
	update_flags(rtc);
	update_irq(rtc);
	lock_drop(rtc->device.lock);
}

static void event_due(void *opaque)
{
	struct rtc *rtc = opaque;

	update_flags(rtc);
	update_irq(rtc);
}

/* ---- registers ---- */

static uint8_t read_register(struct rtc *rtc)
{
	uint8_t value;

	switch (rtc->index) {
	case RTC_SECONDS:
	case RTC_MINUTES:
	case RTC_HOURS:
	case RTC_DAY_OF_WEEK:
	case RTC_DAY:
	case RTC_MONTH:
	case RTC_YEAR:
	case RTC_CENTURY: refresh_registers(rtc); return rtc->cmos[rtc->index];
	case RTC_A:
		value = rtc->cmos[RTC_A];
		return !stopped(rtc) && time_at(rtc, now(rtc)).ns >= NS_PER_S - UIP_NS ? value | A_UIP : value;
	case RTC_C:
		update_flags(rtc);
		update_irq(rtc);
		value = rtc->cmos[RTC_C];
		rtc->cmos[RTC_C] = 0;
		update_irq(rtc);
		return value;
	default: return rtc->cmos[rtc->index];
	}
}

/* Registers A and B may stop the clock or let it go on. */
static void write_control(struct rtc *rtc, uint8_t value)
{
	bool was_stopped = stopped(rtc), was_reset = divider_reset(rtc);

	refresh_registers(rtc);
	if (rtc->index == RTC_A) {
		rtc->cmos[RTC_A] = value & ~A_UIP;
	} else {
		rtc->cmos[RTC_B] = value & B_SET ? value & ~B_UIE : value; /* SET clears UIE */
	}
	/* The first update comes half a second after the divider starts. */
	if (was_reset && !divider_reset(rtc)) {
		uint32_t ns = time_at(rtc, now(rtc)).ns;

		rtc->offset_ns = (uint32_t)((rtc->offset_ns + NS_PER_S + NS_PER_S / 2 - ns) % NS_PER_S);
	}
	if (was_stopped && !stopped(rtc))
		set_from_registers(rtc);
}

static void write_register(struct rtc *rtc, uint8_t value)
{
	update_flags(rtc);
	switch (rtc->index) {
	case RTC_SECONDS:
	case RTC_MINUTES:
	case RTC_HOURS:
	case RTC_DAY:
	case RTC_MONTH:
	case RTC_YEAR:
	case RTC_CENTURY:
		refresh_registers(rtc);
		rtc->cmos[rtc->index] = value;
		if (!stopped(rtc))
			set_from_registers(rtc);
		break;
	case RTC_A:
	case RTC_B: write_control(rtc, value); break;
	case RTC_C:
	case RTC_D: /* read-only */ return;
	default: rtc->cmos[rtc->index] = value; break;
	}
	memcpy(rtc->battery.cmos, rtc->cmos, sizeof(rtc->cmos));
	rtc->battery.offset_s = rtc->offset_s;
	rtc->battery.offset_ns = rtc->offset_ns;
	update_irq(rtc);
}

static uint64_t rtc_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return offset ? read_register((struct rtc *)device) : 0xff; /* the index is write-only */
}

static void rtc_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct rtc *rtc = (struct rtc *)device;

	(void)size;
	if (offset)
		write_register(rtc, (uint8_t)value);
	else
		rtc->index = value & 0x7f; /* bit 7 masks NMIs; there are none */
}

/* ---- life ---- */

/* Of what a PC's firmware has checked, 0x10 to 0x2d. */
static void set_checksum(uint8_t *cmos)
{
	uint16_t checksum = 0;

	for (unsigned i = 0x10; i < CMOS_CHECKSUM; i++)
		checksum += cmos[i];
	cmos[CMOS_CHECKSUM] = (uint8_t)(checksum >> 8);
	cmos[CMOS_CHECKSUM + 1] = (uint8_t)checksum;
}

/* What the firmware of a PC finds out about memory, and where operating systems look for it. */
static void fill_memory_size(struct rtc *rtc, const struct guest_mem *mem)
{
	uint64_t low = MIN(mem->ram_size, MEM_LOW_TOP), above_1m = low - MIN(low, 0x100000ull);
	uint64_t above_16m = low - MIN(low, 0x1000000ull), above_4g = mem->ram_size - low;
	uint8_t *cmos = rtc->battery.cmos;

	store_le16(&cmos[CMOS_BASE_MEMORY], 640);
	store_le16(&cmos[CMOS_EXTENDED], (uint16_t)MIN(above_1m >> 10, 0xffff));
	store_le16(&cmos[CMOS_EXTENDED_2], (uint16_t)MIN(above_1m >> 10, 0xffff));
	store_le16(&cmos[CMOS_ABOVE_16M], (uint16_t)MIN(above_16m >> 16, 0xffff));
	above_4g = MIN(above_4g >> 16, 0xffffff);
	store_le16(&cmos[CMOS_ABOVE_4G], (uint16_t)above_4g);
	cmos[CMOS_ABOVE_4G + 2] = (uint8_t)(above_4g >> 16);
	set_checksum(cmos);
}

static void rtc_reset(struct device *device)
{
	struct rtc *rtc = (struct rtc *)device;

	memcpy(rtc->cmos, rtc->battery.cmos, sizeof(rtc->cmos));
	rtc->offset_s = rtc->battery.offset_s;
	rtc->offset_ns = rtc->battery.offset_ns;
	/* The RESET pin clears interrupt enables and flags, and leaves the clock alone. */
	rtc->cmos[RTC_B] &= ~(B_PIE | B_AIE | B_UIE);
	rtc->cmos[RTC_C] = 0;
	rtc->seen = now(rtc);
	update_irq(rtc);
}

static void rtc_destroy(struct device *device)
{
	struct rtc *rtc = (struct rtc *)device;

	timer_disarm(&rtc->timer);
	bus_unmap(device->bus, BUS_PIO, &rtc->range);
	irq_line_free(&rtc->irq);
	free(rtc);
}

static void rtc_attach(struct device *device)
{
	struct rtc *rtc = (struct rtc *)device;

	memcpy(rtc->battery.cmos, rtc->cmos, sizeof(rtc->cmos));
	rtc->battery.offset_s = rtc->offset_s;
	rtc->battery.offset_ns = rtc->offset_ns;
	rtc->utc_base = 0; /* the clock is another one: utc_at() looks anew */
	timer_arm(&rtc->timer, rtc->event_at);
}

STATE_DESC(rtc_state_desc, "rtc", 1, struct rtc, RTC_STATE);

static const struct device_ops rtc_ops = {
	.state = &rtc_state_desc, .reset = rtc_reset, .attach = rtc_attach, .destroy = rtc_destroy
};

int rtc_create(struct bus *bus, unsigned cpu_count, struct error *err)
{
	struct rtc *rtc = calloc(1, sizeof(*rtc));

	if (!rtc)
		return error_set(err, ENOMEM, "out of memory for the real-time clock");
	device_init(&rtc->device, bus, "rtc", &rtc_ops);
	device_timer_init(&rtc->device, &rtc->timer, "rtc", event_due, rtc);
	rtc->irq = irq_isa_line(&rtc->device, 8);
	rtc->battery.cmos[RTC_A] = 0x26; /* 32,768 Hz, periodic rate 1,024 Hz */
	rtc->battery.cmos[RTC_B] = B_24H;
	rtc->battery.cmos[RTC_D] = D_VRT;
	rtc->battery.cmos[CMOS_EQUIPMENT] = 0x02; /* a floating-point unit */
	rtc->battery.cmos[CMOS_MORE_CPUS] = (uint8_t)(cpu_count - 1);
	if (bus->mem)
		fill_memory_size(rtc, bus->mem);
	rtc_reset(&rtc->device);
	rtc->range = (struct bus_range){
		.start = 0x70, .size = 2, .sizes = 1, .device = &rtc->device, .read = rtc_read, .write = rtc_write
	};
	return bus_map(bus, BUS_PIO, &rtc->range, err);
}

void rtc_set_cmos(struct bus *bus, unsigned index, uint8_t value)
{
	struct rtc *rtc = (struct rtc *)bus_find_device(bus, "rtc", 0);

	BUG_ON(index < CMOS_FIRST || index == RTC_CENTURY || index >= sizeof(rtc->cmos));
	if (!rtc)
		return;
	rtc->battery.cmos[index] = rtc->cmos[index] = value;
	set_checksum(rtc->battery.cmos);
	memcpy(&rtc->cmos[CMOS_CHECKSUM], &rtc->battery.cmos[CMOS_CHECKSUM], 2);
}

static int create(struct bus *bus, const void *options, struct error *err)
{
	(void)options;
	return rtc_create(bus, irq_cpu_count(bus), err);
}

const struct device_type rtc_type = {
	.name = "rtc",
	.help = "MC146818 real-time clock with 128 bytes of CMOS",
	.most = 1,
	.in_every_pc = true,
	.create = create,
};
