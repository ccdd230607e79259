/*
 * The 16550A UART (National Semiconductor PC16550D data sheet), COM1..COM4. Receives through its FIFO with flow control from the
 * character device; what is transmitted goes straight to it, so that the transmitter is empty again when the guest's write is over, unless the
 * character device's queue is nearly full. Who writes to the host has no lock meanwhile.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#define FIFO_SIZE 16
#define TX_ROOM	  4096	   /* bytes of room in the queue below which the transmitter stays busy */
#define TX_RETRY  1000000  /* ns until it looks again */
#define COME_BACK 20000000 /* ns after a guest cleared the receiver, see hold_back() */
#define POLLS	  100	   /* looks in a row at an empty receiver: the guest waits for input */
#define CHAR_TIME 86806ull /* ns for 10 bits at divisor 1: 160 cycles of 1.8432 MHz */

/* Registers, by offset; the first two are the divisor while LCR.DLAB is set. */
enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_RDA	 BIT(0)
#define IER_THRE BIT(1)
#define IER_RLS	 BIT(2)
#define IER_MSR	 BIT(3)

#define IIR_NONE    0x01
#define IIR_MSR	    0x00
#define IIR_THRE    0x02
#define IIR_RDA	    0x04
#define IIR_RLS	    0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFOS   0xc0

#define FCR_ENABLE   BIT(0)
#define FCR_CLEAR_RX BIT(1)

#define LCR_DLAB BIT(7)

#define MCR_DTR	 BIT(0)
#define MCR_RTS	 BIT(1)
#define MCR_OUT1 BIT(2)
#define MCR_OUT2 BIT(3)
#define MCR_LOOP BIT(4)

#define LSR_DR	   BIT(0)
#define LSR_OE	   BIT(1)
#define LSR_FE	   BIT(3)
#define LSR_BI	   BIT(4)
#define LSR_ERRORS 0x1e
#define LSR_THRE   BIT(5)
#define LSR_TEMT   BIT(6)
#define LSR_FIFO   BIT(7) /* an error in the FIFO */

#define MSR_DELTAS 0x0f
#define MSR_TERI   BIT(2)
#define MSR_CTS	   BIT(4)
#define MSR_DSR	   BIT(5)
#define MSR_RI	   BIT(6)
#define MSR_DCD	   BIT(7)

#define UART_STATE(_, T)                                                                                               \
	_(T, uint8_t, fifo, 16, 1, 0, 0xff)                                                                            \
	_(T, uint8_t, fifo_first, 1, 2, 0, 15)                                                                         \
	_(T, uint8_t, fifo_count, 1, 3, 0, 16)                                                                         \
	_(T, uint16_t, divisor, 1, 4, 12, 0xffff)                                                                      \
	_(T, uint8_t, ier, 1, 5, 0, 0x0f)                                                                              \
	_(T, uint8_t, fcr, 1, 6, 0, 0xc9)                                                                              \
	_(T, uint8_t, lcr, 1, 7, 0, 0xff)                                                                              \
	_(T, uint8_t, mcr, 1, 8, 0, 0x1f)                                                                              \
	_(T, uint8_t, lsr, 1, 9, LSR_THRE | LSR_TEMT, 0x7f)                                                            \
	_(T, uint8_t, msr_deltas, 1, 10, 0, MSR_DELTAS)                                                                \
	_(T, uint8_t, scr, 1, 11, 0, 0xff)                                                                             \
	_(T, bool, thre_pending, 1, 12, 0, 1) /* the transmitter became empty, and IIR did not tell yet */             \
	_(T, bool, timed_out, 1, 13, 0, 1)    /* bytes below the trigger level have waited */                          \
	_(T, uint64_t, timeout_at, 1, 14, VTIME_NEVER, UINT64_MAX)                                                     \
	_(T, uint64_t, transmit_at, 1, 15, VTIME_NEVER, UINT64_MAX) /* when a busy transmitter looks again */          \
	_(T, uint16_t, breaks, 1, 16, 0, 0xffff)		    /* which places of the FIFO are breaks */          \
	_(T, uint8_t, held, 16, 17, 0, 0xff)			    /* see hold_back(), oldest first */                \
	_(T, uint8_t, held_count, 1, 18, 0, 16)                                                                        \
	_(T, uint64_t, held_until, 1, 19, VTIME_NEVER, UINT64_MAX)                                                     \
	_(T, uint8_t, polls, 1, 20, 0, POLLS) /* reads of LSR in a row that found nothing */                           \
	_(T, bool, looped, 1, 21, 0, 1)	      /* what is in the FIFO came back in loopback */

struct uart {
	struct device device;
	STATE_FIELDS(UART_STATE)
	struct chardev *chardev;
	unsigned sending; /* bytes on their way to it, by vCPUs that write them; 0 when these are stopped */
	struct irq_line irq;
	unsigned n; /* COM(n + 1) */
	struct bus_range range;
	struct timer receive_timer, transmit_timer, held_timer;
};

static void arm(struct timer *timer, uint64_t *at, vtime_t deadline)
{
	*at = deadline;
	if (deadline == VTIME_NEVER)
		timer_disarm(timer);
	else
		timer_arm(timer, deadline);
}

/* ---- interrupts ---- */

static unsigned capacity(const struct uart *uart) { return uart->fcr & FCR_ENABLE ? FIFO_SIZE : 1; }

static unsigned trigger_level(const struct uart *uart)
{
	static const uint8_t levels[4] = { 1, 4, 8, 14 };

	return uart->fcr & FCR_ENABLE ? levels[uart->fcr >> 6] : 1;
}

/* The cause with the highest priority (table IV). */
static uint8_t interrupt_cause(const struct uart *uart)
{
	if ((uart->ier & IER_RLS) && (uart->lsr & LSR_ERRORS))
		return IIR_RLS;
	if ((uart->ier & IER_RDA) && uart->fifo_count >= trigger_level(uart))
		return IIR_RDA;
	if ((uart->ier & IER_RDA) && uart->timed_out)
		return IIR_TIMEOUT;
	if ((uart->ier & IER_THRE) && uart->thre_pending)
		return IIR_THRE;
	if ((uart->ier & IER_MSR) && uart->msr_deltas)
		return IIR_MSR;
	return IIR_NONE;
}

/* On a PC the OUT2 pin connects the interrupt output to the bus. */
static void update_irq(struct uart *uart)
{
	irq_set(&uart->irq, (uart->mcr & MCR_OUT2) && interrupt_cause(uart) != IIR_NONE);
}

/* ---- modem lines ---- */

/* In loopback the modem inputs are the outputs; otherwise somebody is at the other end if there is a character device. */
static uint8_t modem_inputs(const struct uart *uart)
{
	if (!(uart->mcr & MCR_LOOP))
		return uart->chardev ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
	return (uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
	       (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void write_mcr(struct uart *uart, uint8_t value)
{
	uint8_t before = modem_inputs(uart), changed;

	uart->mcr = value & 0x1f;
	changed = before ^ modem_inputs(uart);
	uart->msr_deltas |= changed >> 4 & ~MSR_TERI;
	if ((changed & MSR_RI) && (before & MSR_RI)) /* RI counts when it ends */
		uart->msr_deltas |= MSR_TERI;
}

/* ---- receiver ---- */

static void restart_timeout(struct uart *uart)
{
	bool waiting = (uart->fcr & FCR_ENABLE) && uart->fifo_count;
	vtime_t now = clock_now(uart->device.bus->clock);

	uart->timed_out = false;
	/* Four character times, 8.1.2; a divisor of 0 divides by 65,536. */
	arm(&uart->receive_timer, &uart->timeout_at,
	    waiting ? now + 4 * CHAR_TIME * (uart->divisor ? uart->divisor : 0x10000) : VTIME_NEVER);
}

static void receive_timeout(void *opaque)
{
	struct uart *uart = opaque;

	uart->timeout_at = VTIME_NEVER;
	uart->timed_out = uart->fifo_count != 0;
	update_irq(uart);
}

/*
 * Does the guest want what comes on the line? Operating systems say so by DTR and RTS, when a program opens the port and what
 * was tried before is cleared away. Small ones know neither of them, and take interrupts or look again and again.
 */
static bool line_open(const struct uart *uart)
{
	uint8_t ready = MCR_DTR | MCR_RTS;

	return !(uart->mcr & MCR_LOOP) &&
	       ((uart->mcr & ready) == ready || (uart->ier & IER_RDA) || uart->polls == POLLS);
}

/* A break is a zero, whose cause LSR tells when it is the next one to be read. */
static void show_break(struct uart *uart)
{
	if (uart->fifo_count && (uart->breaks & BIT(uart->fifo_first)))
		uart->lsr |= LSR_BI | LSR_FE;
}

static void push(struct uart *uart, uint8_t byte)
{
	if (uart->fifo_count == capacity(uart)) {
		uart->lsr |= LSR_OE;
		/* A full FIFO keeps what it has; the single buffer is overwritten. */
		if (!(uart->fcr & FCR_ENABLE))
			uart->fifo[uart->fifo_first] = byte;
		return;
	}
	uart->fifo[(uart->fifo_first + uart->fifo_count) % FIFO_SIZE] = byte;
	uart->breaks &= ~(uint16_t)BIT((uart->fifo_first + uart->fifo_count++) % FIFO_SIZE);
	uart->lsr |= LSR_DR;
}

static void push_held(struct uart *uart)
{
	unsigned n = 0;

	if (!uart->held_count || uart->held_until != VTIME_NEVER || !line_open(uart))
		return;
	while (n < uart->held_count && uart->fifo_count < capacity(uart))
		push(uart, uart->held[n++]);
	uart->held_count -= n;
	memmove(uart->held, uart->held + n, uart->held_count);
	restart_timeout(uart);
}

/* More may come in now: first what was held back, then what waits at the host's side. */
static void receive_more(struct uart *uart)
{
	push_held(uart);
	if (uart->chardev && line_open(uart) && !uart->held_count)
		chardev_resume(uart->chardev);
}

static uint8_t pop(struct uart *uart)
{
	uint8_t byte = uart->fifo[uart->fifo_first];

	if (!uart->fifo_count)
		return byte; /* the buffer still holds the last one */
	uart->breaks &= ~(uint16_t)BIT(uart->fifo_first);
	if (--uart->fifo_count) {
		uart->fifo_first = (uart->fifo_first + 1) % FIFO_SIZE;
		show_break(uart);
	} else {
		uart->lsr &= ~LSR_DR;
		uart->looped = false;
		receive_more(uart);
	}
	restart_timeout(uart);
	return byte;
}

/*
 * The line is faster than any real one and fills the FIFO long before a guest has set the port up, and guests clear it, several
 * times, while they do that. On a real line those bytes would not have come yet: they come a little later. Breaks do not.
 */
static void hold_back(struct uart *uart)
{
	uint8_t line[FIFO_SIZE];
	unsigned n = 0;

	for (unsigned i = 0; i < uart->fifo_count; i++) {
		unsigned at = (uart->fifo_first + i) % FIFO_SIZE;

		if (!(uart->breaks & BIT(at)))
			line[n++] = uart->fifo[at];
	}
	/* What is held already came later than what was in the FIFO; both together were in it. */
	n = MIN(n, (unsigned)FIFO_SIZE - uart->held_count);
	memmove(uart->held + n, uart->held, uart->held_count);
	memcpy(uart->held, line, n);
	uart->held_count += n;
	if (uart->held_count)
		arm(&uart->held_timer, &uart->held_until, clock_now(uart->device.bus->clock) + COME_BACK);
}

static void come_back(void *opaque)
{
	struct uart *uart = opaque;

	uart->held_until = VTIME_NEVER;
	receive_more(uart);
	update_irq(uart);
}

static void clear_receiver(struct uart *uart)
{
	if (!uart->looped)
		hold_back(uart);
	uart->looped = false;
	uart->fifo_count = 0;
	uart->fifo_first = 0;
	uart->breaks = 0;
	uart->lsr &= ~(LSR_DR | LSR_ERRORS);
	restart_timeout(uart);
	receive_more(uart);
}

/* Event loop's thread. */
static size_t receive(void *opaque, const uint8_t *data, size_t size)
{
	struct uart *uart = opaque;
	size_t taken = 0;

	lock_take(uart->device.lock);
	if (line_open(uart) && !uart->held_count)
		while (taken < size && uart->fifo_count < capacity(uart))
			push(uart, data[taken++]);
	if (taken) {
		restart_timeout(uart);
		update_irq(uart);
	}
	lock_drop(uart->device.lock);
	return taken;
}

static bool receive_break(void *opaque)
{
	struct uart *uart = opaque;
	bool taken;

	lock_take(uart->device.lock);
	taken = line_open(uart) && !uart->held_count && uart->fifo_count < capacity(uart);
	if (taken) {
		push(uart, 0);
		uart->breaks |= (uint16_t)BIT((uart->fifo_first + uart->fifo_count - 1) % FIFO_SIZE);
		if (uart->fifo_count == 1)
			show_break(uart);
		restart_timeout(uart);
		update_irq(uart);
	}
	lock_drop(uart->device.lock);
	return taken;
}

static void quit(void *opaque)
{
	struct uart *uart = opaque;
	struct bus *bus = uart->device.bus;

	if (bus->request)
		bus->request(bus->request_opaque, BUS_REQUEST_QUIT);
}

static const struct chardev_ops uart_chardev_ops = {
	.receive = receive,
	.receive_break = receive_break,
	.quit = quit,
};

/* ---- transmitter ---- */

static void transmitter_empty(struct uart *uart)
{
	uart->lsr |= LSR_THRE | LSR_TEMT;
	uart->thre_pending = true;
}

/* Is it empty, or does it stay busy? */
static void settle_transmitter(struct uart *uart)
{
	if (uart->sending)
		return; /* who sends comes here again */
	/* Loaded from a snapshot, it may find that nothing is connected here. */
	if (uart->chardev && chardev_room(uart->chardev) < TX_ROOM)
		arm(&uart->transmit_timer, &uart->transmit_at, clock_now(uart->device.bus->clock) + TX_RETRY);
	else
		transmitter_empty(uart);
	update_irq(uart);
}

static void transmit_retry(void *opaque)
{
	struct uart *uart = opaque;

	uart->transmit_at = VTIME_NEVER;
	settle_transmitter(uart);
}

/* A byte is in the transmitter. True: it is to be sent. */
static bool transmit(struct uart *uart, uint8_t byte)
{
	uart->thre_pending = false;
	if (!(uart->mcr & MCR_LOOP) && uart->chardev) {
		uart->lsr &= ~(LSR_THRE | LSR_TEMT);
		uart->sending++;
		return true;
	}
	if (uart->mcr & MCR_LOOP) {
		uart->looped = true;
		push(uart, byte);
		restart_timeout(uart);
	}
	transmitter_empty(uart);
	return false;
}

/*
 * Without the lock. Until it is out the transmitter is not empty, and the guest's instruction not over: a byte that comes behind this one in the
 * guest's order, of whichever vCPU, is sent behind it.
 */
static void send(struct uart *uart, uint8_t byte)
{
	struct lock_group *locks = &uart->device.bus->locks;

	lock_waits(locks, true);
	chardev_write(uart->chardev, &byte, 1);
	lock_waits(locks, false);
	lock_take(uart->device.lock);
	uart->sending--;
	settle_transmitter(uart);
	lock_drop(uart->device.lock);
}

/* ---- registers ---- */

static uint8_t read_iir(struct uart *uart)
{
	uint8_t cause = interrupt_cause(uart);

	if (cause == IIR_THRE)
		uart->thre_pending = false;
	return cause | (uart->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct uart *uart)
{
	uint8_t value = uart->lsr | (uart->fcr & FCR_ENABLE && uart->breaks ? LSR_FIFO : 0);

	uart->lsr &= ~LSR_ERRORS;
	if ((value & LSR_DR) || !(value & LSR_THRE) || uart->polls == POLLS)
		return value;
	if (++uart->polls == POLLS)
		receive_more(uart);
	return value;
}

static uint8_t read_msr(struct uart *uart)
{
	uint8_t value = modem_inputs(uart) | uart->msr_deltas;

	uart->msr_deltas = 0;
	return value;
}

static uint64_t read_register(struct uart *uart, uint64_t offset)
{
	bool dlab = uart->lcr & LCR_DLAB;
	uint8_t value = 0;

	switch (offset) {
	case RBR_THR: value = dlab ? uart->divisor & 0xff : pop(uart); break;
	case IER: value = dlab ? uart->divisor >> 8 : uart->ier; break;
	case IIR_FCR: value = read_iir(uart); break;
	case LCR: value = uart->lcr; break;
	case MCR: value = uart->mcr; break;
	case LSR: value = read_lsr(uart); break;
	case MSR: value = read_msr(uart); break;
	case SCR: value = uart->scr; break;
	}
	update_irq(uart);
	return value;
}

static void write_ier(struct uart *uart, uint8_t value)
{
	/* Enabling the transmitter's interrupt while it is empty makes one. */
	if ((value & ~uart->ier & IER_THRE) && (uart->lsr & LSR_THRE))
		uart->thre_pending = true;
	uart->ier = value & 0x0f;
	receive_more(uart);
}

static void write_fcr(struct uart *uart, uint8_t value)
{
	if (((value ^ uart->fcr) & FCR_ENABLE) || (value & FCR_CLEAR_RX))
		clear_receiver(uart);
	/* The other bits can be written only together with the enable bit; the transmitter's FIFO is always empty. */
	uart->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
}

/* True: the byte is to be sent, and the interrupt line is to follow when it was. */
static bool write_register(struct uart *uart, uint64_t offset, uint8_t value)
{
	bool dlab = uart->lcr & LCR_DLAB;

	if (uart->polls < POLLS)
		uart->polls = 0; /* it does something else in between */
	switch (offset) {
	case RBR_THR:
		if (dlab)
			uart->divisor = (uart->divisor & 0xff00) | value;
		else if (transmit(uart, value))
			return true;
		break;
	case IER:
		if (dlab)
			uart->divisor = (uint16_t)((uart->divisor & 0xff) | value << 8);
		else
			write_ier(uart, value);
		break;
	case IIR_FCR: write_fcr(uart, value); break;
	case LCR: uart->lcr = value; break;
	case MCR:
		if ((value & ~uart->mcr & MCR_LOOP) && uart->fifo_count)
			clear_receiver(uart); /* what came on the line is not what comes back in loopback */
		write_mcr(uart, value);
		receive_more(uart);
		break;
	case SCR: uart->scr = value; break;
	default: break; /* LSR and MSR are read-only */
	}
	update_irq(uart);
	return false;
}

static uint64_t uart_read(struct device *device, uint64_t offset, unsigned size)
{
	uint64_t value;

	(void)size;
	lock_take(device->lock);
	value = read_register((struct uart *)device, offset);
	lock_drop(device->lock);
	return value;
}

static void uart_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct uart *uart = (struct uart *)device;
	bool sends;

	(void)size;
	lock_take(device->lock);
	sends = write_register(uart, offset, (uint8_t)value);
	lock_drop(device->lock);
	if (sends)
		send(uart, (uint8_t)value);
}

/* ---- life ---- */

static void uart_reset(struct device *device)
{
	struct uart *uart = (struct uart *)device;

	timer_disarm(&uart->receive_timer);
	timer_disarm(&uart->transmit_timer);
	timer_disarm(&uart->held_timer);
	update_irq(uart);
}

static void uart_destroy(struct device *device)
{
	struct uart *uart = (struct uart *)device;

	timer_disarm(&uart->receive_timer);
	timer_disarm(&uart->transmit_timer);
	timer_disarm(&uart->held_timer);
	bus_unmap(device->bus, BUS_PIO, &uart->range);
	irq_line_free(&uart->irq);
	if (uart->chardev)
		chardev_attach(uart->chardev, NULL, NULL);
	free(uart);
}

static int uart_loaded(void *object, uint16_t version, struct error *err)
{
	struct uart *uart = object;

	(void)version;
	if (uart->fifo_count > capacity(uart))
		return error_set(err, EINVAL, "uart: fifo_count %u is more than its capacity of %u", uart->fifo_count,
				 capacity(uart));
	return 0;
}

static void uart_attach(struct device *device)
{
	struct uart *uart = (struct uart *)device;

	timer_arm(&uart->receive_timer, uart->timeout_at);
	timer_arm(&uart->held_timer, uart->held_until);
	timer_arm(&uart->transmit_timer, uart->transmit_at);
	if (uart->chardev)
		chardev_resume(uart->chardev);
}

STATE_DESC(uart_state_desc, "uart", 1, struct uart, UART_STATE, .loaded = uart_loaded);

static const struct device_ops uart_ops = {
	.state = &uart_state_desc, .reset = uart_reset, .attach = uart_attach, .destroy = uart_destroy
};

int uart_create(struct bus *bus, unsigned n, struct chardev *chardev, struct error *err)
{
	static const struct {
		uint16_t port;
		uint8_t irq;
	} places[UART_COUNT] = {
#define _(port, irq) { port, irq },
		UART_PLACES(_)
#undef _
	};
	struct uart *uart = calloc(1, sizeof(*uart));

	BUG_ON(n >= ARRAY_SIZE(places));
	if (!uart)
		return error_set(err, ENOMEM, "out of memory for UART %u", n);
	device_init(&uart->device, bus, "uart", &uart_ops);
	device_timer_init(&uart->device, &uart->receive_timer, "uart-receive", receive_timeout, uart);
	device_timer_init(&uart->device, &uart->held_timer, "uart-held", come_back, uart);
	device_timer_init(&uart->device, &uart->transmit_timer, "uart-transmit", transmit_retry, uart);
	uart->n = n;
	uart->irq = irq_isa_line(&uart->device, places[n].irq);
	uart->range = (struct bus_range){ .start = places[n].port,
					  .size = 8,
					  .sizes = 1,
					  .takes_locks = true,
					  .device = &uart->device,
					  .read = uart_read,
					  .write = uart_write };
	uart->chardev = chardev;
	if (chardev)
		chardev_attach(chardev, &uart_chardev_ops, uart);
	return bus_map(bus, BUS_PIO, &uart->range, err);
}

unsigned uart_ports(struct bus *bus)
{
	const struct device *device;
	unsigned ports = 0;

	list_for_each (device, &bus->devices, node)
		if (device->ops == &uart_ops)
			ports |= 1u << ((const struct uart *)device)->n;
	return ports;
}

/* clang-format off */
#define UART_OPTIONS(_, T)                                                                                             \
	_(T, NUMBER, port, 1, UART_COUNT, NULL, "COM1 to COM4; by default the first that is not there")                \
	_(T, CHARDEV, chardev, 0, 0, NULL, "what is connected; by default nothing")
/* clang-format on */

struct uart_options {
	DEVICE_OPTION_FIELDS(UART_OPTIONS)
};

static int create(struct bus *bus, const void *options, struct error *err)
{
	const struct uart_options *o = options;
	unsigned ports = uart_ports(bus), first = (unsigned)__builtin_ctz(~ports);

	if (o->port ? ports & 1u << (o->port - 1) : first == UART_COUNT)
		return error_set(err, EBUSY, "uart: COM%u is there already", o->port ? (unsigned)o->port : UART_COUNT);
	return uart_create(bus, o->port ? (unsigned)o->port - 1 : first, o->chardev, err);
}

const struct device_type uart_type = {
	.name = "uart",
	.help = "16550A serial port",
	.most = UART_COUNT,
	.in_every_pc = true,
	DEVICE_OPTIONS(UART_OPTIONS, struct uart_options),
	.short_form = { .name = "--serial",
			.option = "chardev",
			.argument = "SPEC",
			.help = "where COM1 goes (default stdio); again for COM2 to COM4" },
	.create = create,
};
