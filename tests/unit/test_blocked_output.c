/*
 * The host's side of output takes its time: who waits for it has no lock, so that others use all devices meanwhile, and vCPUs can be stopped.
 */
#define _GNU_SOURCE
#include "lib/board.h"

#include <fcntl.h>
#include <semaphore.h>
#include <unistd.h>

#define GIVE_UP 60 /* seconds */

#define COM1_THR    0x3f8
#define COM1_IER    0x3f9
#define COM1_MCR    0x3fc
#define COM1_LSR    0x3fd
#define PM1_CNT	    (ACPI_PM_BASE + 4)
#define SLEEP_S3    0x2c00 /* SLP_EN, a type that there is not */
#define LINE_LENGTH 64

/* ---- a character device that is busy until it is told ---- */

struct chardev {
	const struct chardev_ops *ops;
	void *opaque;
	sem_t entered, may_leave;
	char output[16];
	atomic_uint count;
};

void chardev_attach(struct chardev *chardev, const struct chardev_ops *ops, void *opaque)
{
	chardev->ops = ops;
	chardev->opaque = opaque;
}

size_t chardev_write(struct chardev *chardev, const void *data, size_t size)
{
	assert_int_equal(size, 1);
	sem_post(&chardev->entered);
	sem_wait(&chardev->may_leave);
	chardev->output[chardev->count++] = *(const char *)data;
	return chardev_room(chardev);
}

size_t chardev_room(struct chardev *chardev)
{
	(void)chardev;
	return 1 << 20;
}

void chardev_resume(struct chardev *chardev) { (void)chardev; }

/* ---- the machine, and a vCPU besides this one ---- */

struct fixture {
	struct board *b;
	struct chardev line;
	atomic_int waiting; /* threads that have said so */
	sem_t waits;
	int pipe[2];
	pthread_t thread;
	uint16_t port, value;
};

static void tell(void *opaque, bool begins)
{
	struct fixture *f = opaque;

	f->waiting += begins ? 1 : -1;
	if (begins)
		sem_post(&f->waits);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct chardev *line = &f->line;
	struct bus *bus;

	alarm(GIVE_UP);
	sem_init(&f->waits, 0, 0);
	sem_init(&line->entered, 0, 0);
	sem_init(&line->may_leave, 0, 0);
	f->b = board_create(1);
	bus = f->b->bus;
	assert_int_equal(pci_bus_create(bus, NULL) || piix_type.create(bus, NULL, NULL) ||
				 pit_type.create(bus, NULL, NULL) || uart_create(bus, 0, line, NULL) ||
				 debug_console_type.create(bus, &line, NULL),
			 0);
	outb(f->b, COM1_MCR, 0x08); /* its interrupt is connected */
	bus->locks.waits = tell;
	bus->locks.waits_opaque = f;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	board_destroy(f->b);
	sem_destroy(&f->waits);
	sem_destroy(&f->line.entered);
	sem_destroy(&f->line.may_leave);
	free(f);
	alarm(0);
	return 0;
}

static void *write_port(void *opaque)
{
	struct fixture *f = opaque;

	board_write(f->b, BUS_PIO, f->port, f->value >> 8 ? 2 : 1, f->value);
	return NULL;
}

static void begin(struct fixture *f, uint16_t port, uint16_t value)
{
	f->port = port;
	f->value = value;
	assert_int_equal(pthread_create(&f->thread, NULL, write_port, f), 0);
}

/* No lock is in the way of anything. */
static void use_everything(struct board *b)
{
	inb(b, 0x61);
	inb(b, 0x21);
	inl(b, ACPI_PM_BASE);
	board_ioapic_read(b, 0);
	board_config_read(b, 0, 0, 4);
	inb(b, COM1_LSR);
	bus_lock(b->bus);
	bus_unlock(b->bus);
}

/* ---- character devices ---- */

static void uart_that_waits_for_its_character_device(void **state)
{
	struct fixture *f = *state;
	struct board *b = f->b;
	const uint8_t input = 'i';

	begin(f, COM1_THR, 'a');
	sem_wait(&f->line.entered);
	assert_int_equal(f->waiting, 1);
	use_everything(b);
	assert_int_equal(inb(b, COM1_LSR), 0); /* not out yet */
	outb(b, COM1_IER, 1);
	assert_int_equal(f->line.ops->receive(f->line.opaque, &input, 1), 1);
	assert_int_equal(inb(b, COM1_THR), 'i');
	outb(b, COM1_IER, 0);
	assert_int_equal(f->line.count, 0);
	sem_post(&f->line.may_leave);
	pthread_join(f->thread, NULL);
	assert_int_equal(f->waiting, 0);
	assert_int_equal(inb(b, COM1_LSR), 0x60);
	sem_post(&f->line.may_leave);
	outb(b, COM1_THR, 'b');
	assert_string_equal(f->line.output, "ab");
}

/* Which of two comes first is theirs to settle; the transmitter is empty when both are out. */
static void two_vcpus_send_at_once(void **state)
{
	struct fixture *f = *state, other = { .b = f->b };

	begin(f, COM1_THR, 'a');
	sem_wait(&f->line.entered);
	begin(&other, COM1_THR, 'b');
	sem_wait(&f->line.entered);
	sem_post(&f->line.may_leave);
	while (!f->line.count)
		sched_yield();
	assert_int_equal(inb(f->b, COM1_LSR), 0);
	sem_post(&f->line.may_leave);
	pthread_join(f->thread, NULL);
	pthread_join(other.thread, NULL);
	assert_int_equal(inb(f->b, COM1_LSR), 0x60);
	assert_int_equal(f->line.count, 2);
}

static void debug_console_that_waits_for_its_character_device(void **state)
{
	struct fixture *f = *state;

	begin(f, 0xe9, 'd');
	sem_wait(&f->line.entered);
	assert_int_equal(f->waiting, 1);
	use_everything(f->b);
	assert_int_equal(inb(f->b, 0xe9), 0xe9);
	sem_post(&f->line.may_leave);
	pthread_join(f->thread, NULL);
	assert_string_equal(f->line.output, "d");
}

/* ---- the log and traces ---- */

/* A pipe that takes nothing more, without a line in it. */
static void fill_pipe(struct fixture *f)
{
	assert_int_equal(pipe(f->pipe), 0);
	assert_int_equal(fcntl(f->pipe[1], F_SETFL, O_NONBLOCK), 0);
	while (write(f->pipe[1], "x", 1) == 1)
		;
	assert_int_equal(fcntl(f->pipe[1], F_SETFL, 0), 0);
}

/* Behind what filled it. */
static void read_line(struct fixture *f, char *line)
{
	size_t n = 0;
	char c;

	while (read(f->pipe[0], &c, 1) == 1 && c != '\n')
		if (c != 'x' && n < LINE_LENGTH - 1)
			line[n++] = c;
	line[n] = '\0';
}

static void log_that_nobody_reads(void **state)
{
	struct fixture *f = *state;
	char line[LINE_LENGTH];
	int stderr_was = dup(STDERR_FILENO);

	fill_pipe(f);
	dup2(f->pipe[1], STDERR_FILENO);
	begin(f, PM1_CNT, SLEEP_S3);
	sem_wait(&f->waits);
	use_everything(f->b);
	read_line(f, line);
	pthread_join(f->thread, NULL);
	dup2(stderr_was, STDERR_FILENO);
	close(stderr_was);
	close(f->pipe[0]);
	close(f->pipe[1]);
	assert_non_null(strstr(line, "doppel: warning: sleep type 3 ignored"));
}

static void trace_that_nobody_reads(void **state)
{
	struct fixture *f = *state;
	struct trace *trace = &f->b->trace;
	char line[LINE_LENGTH];

	fill_pipe(f);
	trace->out = fdopen(f->pipe[1], "w");
	setvbuf(trace->out, NULL, _IOLBF, BUFSIZ);
	trace->left = 1000;
	trace->mask = BIT(TRACE_IRQ);
	begin(f, COM1_IER, 2);
	sem_wait(&f->waits);
	trace->mask = 0;
	use_everything(f->b);
	read_line(f, line);
	pthread_join(f->thread, NULL);
	fclose(trace->out);
	close(f->pipe[0]);
	assert_string_equal(line, "irq: line 4 high");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(uart_that_waits_for_its_character_device),
		T(two_vcpus_send_at_once),
		T(debug_console_that_waits_for_its_character_device),
		T(log_that_nobody_reads),
		T(trace_that_nobody_reads),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
