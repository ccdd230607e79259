/*
 * Character devices: every kind with its peer, what happens when the peer is slow, absent or gone, and what the
 * terminal is left as.
 */
#define _GNU_SOURCE
#include "backend/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#define QUEUE (1u << 20)

struct fixture {
	char folder[32], path[64], spec[80];
	struct event_loop *loop;
	struct chardev *cd;
	char received[4096];
	size_t count, accept; /* the device takes at most `accept` bytes in all */
	unsigned quits;
	bool (*until)(struct fixture *);
	uint64_t give_up;
	int peer;
	unsigned rounds;
	size_t expected;
};

static size_t receive(void *opaque, const uint8_t *data, size_t size)
{
	struct fixture *f = opaque;
	size_t n = MIN(size, f->accept - f->count);

	memcpy(f->received + f->count, data, n);
	f->count += n;
	return n;
}

static void quit(void *opaque) { ((struct fixture *)opaque)->quits++; }

static const struct chardev_ops ops = { .receive = receive, .quit = quit };

static void create(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	strcpy(f->folder, "/tmp/doppel-chardev-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/x", f->folder);
	f->loop = event_loop_create(NULL);
	f->accept = sizeof(f->received);
	f->peer = -1;
}

static void open_spec(struct fixture *f, const char *kind)
{
	struct error err = { 0 };

	snprintf(f->spec, sizeof(f->spec), "%s%s", kind, strchr(kind, ':') ? f->path : "");
	f->cd = chardev_open(f->spec, f->loop, &err);
	if (!f->cd)
		fail_msg("%s", err.text);
	chardev_attach(f->cd, &ops, f);
}

static void destroy(struct fixture *f)
{
	chardev_close(f->cd);
	event_loop_destroy(f->loop);
	if (f->peer >= 0)
		close(f->peer);
	unlink(f->path);
	rmdir(f->folder);
}

/* Looks again after every event, and every millisecond for what no event of the loop tells. */
static uint64_t tick(void *opaque)
{
	struct fixture *f = opaque;
	uint64_t now = host_monotonic_ns();

	if (f->until(f) || now > f->give_up)
		event_loop_stop(f->loop);
	return now + 1000000;
}

static void run_until(struct fixture *f, bool (*until)(struct fixture *))
{
	f->until = until;
	f->rounds = 0;
	f->give_up = host_monotonic_ns() + 10000000000ull;
	event_loop_set_tick(f->loop, tick, f);
	event_loop_run(f->loop);
	assert_true(host_monotonic_ns() < f->give_up);
}

static bool has_expected(struct fixture *f) { return f->count >= f->expected; }

/* After one wait of the loop, be it for a millisecond only. */
static bool after_a_round(struct fixture *f) { return f->rounds++ > 0; }

static void expect_received(struct fixture *f, const char *text)
{
	f->expected = strlen(text);
	run_until(f, has_expected);
	assert_int_equal(f->count, strlen(text));
	assert_memory_equal(f->received, text, f->count);
}

/* Reads just this text from the peer. */
static void expect_from_peer(int fd, const char *text)
{
	char got[256];
	size_t n = 0;

	while (n < strlen(text)) {
		ssize_t more = read(fd, got + n, strlen(text) - n);

		assert_true(more > 0);
		n += (size_t)more;
	}
	assert_memory_equal(got, text, n);
}

/* Standard error goes to a file meanwhile. */
static int saved_stderr;

static FILE *stderr_to_file(void)
{
	FILE *file = tmpfile();

	assert_non_null(file);
	fflush(stderr);
	saved_stderr = dup(STDERR_FILENO);
	dup2(fileno(file), STDERR_FILENO);
	return file;
}

static size_t stderr_back(FILE *file, char *text, size_t size)
{
	size_t n;

	fflush(stderr);
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	rewind(file);
	n = fread(text, 1, size - 1, file);
	text[n] = 0;
	fclose(file);
	return n;
}

/* ---- specs ---- */

static void bad_specs_are_named(void **state)
{
	static const char *const bad[] = { "", "serial", "stdio:", "pty:x", "file", "file:", "unix:", "nullx", "fil" };
	struct error err;
	struct fixture f;
	size_t i;

	(void)state;
	create(&f);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_null(chardev_open(bad[i], f.loop, &err));
		assert_int_equal(err.code, EINVAL);
		assert_non_null(strstr(err.text, "stdio, pty, file:PATH, unix:PATH, tcp:HOST:PORT, unix-connect:PATH, "
						 "tcp-connect:HOST:PORT, null"));
		assert_non_null(strstr(err.text, bad[i]));
	}
	assert_null(chardev_open("file:/nonexistent/x", f.loop, &err));
	assert_non_null(strstr(err.text, "'/nonexistent/x'"));
	assert_null(chardev_open("file:/tmp", f.loop, &err));
	assert_int_equal(err.code, EISDIR);
	assert_null(chardev_open("unix:/nonexistent/x", f.loop, &err));
	assert_non_null(strstr(err.text, "'/nonexistent/x'"));
	snprintf(f.spec, sizeof(f.spec), "file:%s", f.path);
	assert_int_equal(mkfifo(f.path, 0600), 0);
	assert_null(chardev_open(f.spec, f.loop, &err));
	assert_int_equal(err.code, ENXIO);
	destroy(&f);
}

static void null_takes_everything(void **state)
{
	struct fixture f;
	int i;

	(void)state;
	create(&f);
	open_spec(&f, "null");
	assert_string_equal(chardev_describe(f.cd), "null");
	for (i = 0; i < 20; i++)
		assert_int_equal(chardev_write(f.cd, f.received, sizeof(f.received)), QUEUE);
	chardev_resume(f.cd);
	destroy(&f);
}

/* ---- file ---- */

static void file_is_truncated_and_written(void **state)
{
	struct fixture f;
	uint8_t *data;
	size_t size;
	FILE *old;

	(void)state;
	create(&f);
	old = fopen(f.path, "w");
	fputs("something longer than what comes", old);
	fclose(old);
	open_spec(&f, "file:");
	assert_int_equal(chardev_write(f.cd, "hello ", 6), QUEUE);
	assert_int_equal(chardev_write(f.cd, "world", 5), QUEUE);
	assert_int_equal(host_file_read(f.path, 100, &data, &size, NULL), 0);
	assert_string_equal((char *)data, "hello world");
	free(data);
	destroy(&f);
}

static void full_disk_is_one_error(void **state)
{
	char text[1024];
	struct fixture f;
	FILE *file;
	int i;

	(void)state;
	create(&f);
	assert_int_equal(symlink("/dev/full", f.path), 0);
	open_spec(&f, "file:");
	file = stderr_to_file();
	for (i = 0; i < 100; i++)
		assert_int_equal(chardev_write(f.cd, "x", 1), QUEUE);
	run_until(&f, after_a_round);
	chardev_write(f.cd, "x", 1);
	run_until(&f, after_a_round);
	stderr_back(file, text, sizeof(text));
	assert_non_null(strstr(text, f.path));
	assert_non_null(strstr(text, "No space left on device"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	destroy(&f);
}

/* ---- pty ---- */

static void open_pty_peer(struct fixture *f)
{
	open_spec(f, "pty");
	assert_int_equal(strncmp(chardev_describe(f->cd), "pty /dev/", 9), 0);
	f->peer = open(chardev_describe(f->cd) + 4, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(f->peer >= 0);
}

static void pty_goes_both_ways(void **state)
{
	struct fixture f;

	(void)state;
	create(&f);
	open_pty_peer(&f);
	/* Nothing is echoed, no newline changed. */
	assert_int_equal(chardev_write(f.cd, "login:\n", 7), QUEUE);
	expect_from_peer(f.peer, "login:\n");
	assert_int_equal(write(f.peer, "root\r\x01x\x03", 8), 8);
	expect_received(&f, "root\r\x01x\x03");
	assert_int_equal(f.quits, 0);
	/* The terminal program ends; another comes. */
	close(f.peer);
	chardev_write(f.cd, "more", 4);
	run_until(&f, after_a_round);
	f.peer = open(chardev_describe(f.cd) + 4, O_RDWR | O_NOCTTY | O_CLOEXEC);
	expect_from_peer(f.peer, "more");
	destroy(&f);
}

static void pty_without_reader_holds_up_nobody(void **state)
{
	char block[4096], text[1024];
	struct fixture f;
	FILE *file;
	int i;

	(void)state;
	create(&f);
	open_pty_peer(&f);
	memset(block, 'x', sizeof(block));
	file = stderr_to_file();
	for (i = 0; i < 400; i++)
		assert_int_equal(chardev_write(f.cd, block, sizeof(block)), QUEUE);
	run_until(&f, after_a_round);
	stderr_back(file, text, sizeof(text));
	assert_non_null(strstr(text, "nobody reads"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	/* So that closing need not wait. */
	while (read(f.peer, block, sizeof(block)) == sizeof(block)) {
		struct pollfd p = { .fd = f.peer, .events = POLLIN };

		run_until(&f, after_a_round);
		if (!poll(&p, 1, 0))
			break;
	}
	destroy(&f);
}

/* ---- flow control of input ---- */

static void device_that_is_full_loses_nothing(void **state)
{
	char sent[2000];
	struct fixture f;
	size_t i;

	(void)state;
	create(&f);
	open_pty_peer(&f);
	for (i = 0; i < sizeof(sent); i++)
		sent[i] = (char)(i * 31 + i / 256);
	assert_int_equal(write(f.peer, sent, sizeof(sent)), sizeof(sent));
	for (f.accept = 3; f.count < sizeof(sent); f.accept = MIN(f.accept + 17, sizeof(sent))) {
		f.expected = f.accept;
		run_until(&f, has_expected);
		assert_int_equal(f.count, f.accept);
		chardev_resume(f.cd);
	}
	assert_memory_equal(f.received, sent, sizeof(sent));
	destroy(&f);
}

/* A device with room for one byte that another thread empties: no resume may get lost. */
struct slow_device {
	struct chardev *cd;
	struct event_loop *loop;
	_Atomic int slot; /* -1: empty */
	_Atomic unsigned taken;
	unsigned expected;
	bool wrong;
};

static size_t slow_receive(void *opaque, const uint8_t *data, size_t size)
{
	struct slow_device *d = opaque;
	int empty = -1;

	(void)size;
	return atomic_compare_exchange_strong(&d->slot, &empty, data[0]) ? 1 : 0;
}

static void *slow_guest(void *opaque)
{
	struct slow_device *d = opaque;
	unsigned n = 0;

	while (n < d->expected) {
		int byte = atomic_exchange(&d->slot, -1);

		if (byte < 0)
			continue;
		d->wrong |= byte != (int)(n & 0xff);
		n++;
		chardev_resume(d->cd);
	}
	event_loop_stop(d->loop);
	return NULL;
}

static void resume_from_another_thread(void **state)
{
	static const struct chardev_ops slow_ops = { .receive = slow_receive };
	struct slow_device d = { .expected = 3000, .slot = -1 };
	uint8_t bytes[3000];
	struct fixture f;
	pthread_t thread;
	size_t i;

	(void)state;
	create(&f);
	open_pty_peer(&f);
	d.cd = f.cd;
	d.loop = f.loop;
	chardev_attach(f.cd, &slow_ops, &d);
	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	assert_int_equal(write(f.peer, bytes, sizeof(bytes)), sizeof(bytes));
	assert_int_equal(host_thread_create(&thread, "guest", slow_guest, &d, NULL), 0);
	event_loop_run(f.loop);
	pthread_join(thread, NULL);
	assert_false(d.wrong);
	destroy(&f);
}

/* ---- unix ---- */

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void unix_goes_both_ways(void **state)
{
	struct fixture f;
	char rest;

	(void)state;
	create(&f);
	open_spec(&f, "unix:");
	/* What was said before anybody listened is there for the first client. */
	assert_int_equal(chardev_write(f.cd, "early ", 6), QUEUE);
	f.peer = connect_to(f.path);
	assert_int_equal(write(f.peer, "abc", 3), 3);
	expect_received(&f, "abc");
	chardev_write(f.cd, "late", 4);
	expect_from_peer(f.peer, "early late");
	/* A client that has said all it had to say still listens. */
	shutdown(f.peer, SHUT_WR);
	run_until(&f, after_a_round);
	run_until(&f, after_a_round);
	chardev_write(f.cd, "!", 1);
	expect_from_peer(f.peer, "!");
	chardev_close(f.cd);
	assert_int_equal(read(f.peer, &rest, 1), 0);
	assert_int_equal(access(f.path, F_OK), -1);
	f.cd = NULL;
	destroy(&f);
}

static void clients_take_turns(void **state)
{
	struct fixture f;
	int first, second;

	(void)state;
	create(&f);
	open_spec(&f, "unix:");
	first = connect_to(f.path);
	second = connect_to(f.path);
	assert_int_equal(write(second, "2", 1), 1);
	assert_int_equal(write(first, "1", 1), 1);
	expect_received(&f, "1");
	/* What a client sent before it left is not lost. */
	assert_int_equal(write(first, "b", 1), 1);
	close(first);
	expect_received(&f, "1b2");
	chardev_write(f.cd, "x", 1);
	expect_from_peer(second, "x");
	close(second);
	f.peer = connect_to(f.path);
	assert_int_equal(write(f.peer, "3", 1), 1);
	expect_received(&f, "1b23");
	destroy(&f);
}

/* A client that leaves while the guest reads nothing must not keep others out. */
static void client_gone_while_guest_is_busy(void **state)
{
	struct fixture f;
	int first;

	(void)state;
	create(&f);
	f.accept = 1;
	open_spec(&f, "unix:");
	first = connect_to(f.path);
	assert_int_equal(write(first, "abc", 3), 3);
	expect_received(&f, "a");
	close(first);
	f.peer = connect_to(f.path);
	assert_int_equal(write(f.peer, "d", 1), 1);
	run_until(&f, after_a_round);
	run_until(&f, after_a_round);
	f.accept = sizeof(f.received);
	chardev_resume(f.cd);
	expect_received(&f, "abcd");
	destroy(&f);
}

struct drain {
	int fd;
	size_t expected, wrong;
	_Atomic size_t got;
};

static void *drain_thread(void *opaque)
{
	struct drain *d = opaque;
	uint8_t buffer[10000];
	ssize_t n, i;

	while (d->got < d->expected) {
		n = read(d->fd, buffer, sizeof(buffer));
		if (n <= 0)
			break;
		for (i = 0; i < n; i++)
			d->wrong += buffer[i] != (uint8_t)((d->got + (size_t)i) * 7 >> 3);
		d->got += (size_t)n;
	}
	return NULL;
}

static void *write_all_bytes(void *opaque)
{
	struct fixture *f = opaque;
	uint8_t block[1000];
	size_t at = 0, i;

	while (at < f->expected) {
		/* As a UART does: no more than there is room for. */
		size_t room = chardev_write(f->cd, NULL, 0);
		size_t n = MIN(MIN(room, sizeof(block)), f->expected - at);

		for (i = 0; i < n; i++)
			block[i] = (uint8_t)((at + i) * 7 >> 3);
		chardev_write(f->cd, block, n);
		at += n;
	}
	return NULL;
}

/* More than queue and socket hold, from a thread that respects the room it is told: every byte arrives, in order. */
static void slow_reader_gets_every_byte(void **state)
{
	pthread_t reader, writer;
	struct fixture f;
	struct drain d;
	char text[256];
	FILE *file;

	(void)state;
	create(&f);
	open_spec(&f, "unix:");
	f.peer = connect_to(f.path);
	assert_int_equal(write(f.peer, "x", 1), 1);
	expect_received(&f, "x");
	file = stderr_to_file();
	f.expected = 3 * QUEUE;
	assert_int_equal(host_thread_create(&writer, "writer", write_all_bytes, &f, NULL), 0);
	d = (struct drain){ .fd = f.peer, .expected = f.expected };
	assert_int_equal(host_thread_create(&reader, "reader", drain_thread, &d, NULL), 0);
	run_until(&f, after_a_round);
	while (d.got < d.expected)
		run_until(&f, after_a_round);
	pthread_join(writer, NULL);
	pthread_join(reader, NULL);
	assert_int_equal(stderr_back(file, text, sizeof(text)), 0);
	assert_int_equal(d.got, d.expected);
	assert_int_equal(d.wrong, 0);
	destroy(&f);
}

static void a_full_queue_is_told(void **state)
{
	char block[4096], text[1024];
	struct fixture f;
	size_t room = QUEUE;
	FILE *file;
	int i;

	(void)state;
	create(&f);
	open_spec(&f, "unix:");
	f.peer = connect_to(f.path);
	assert_int_equal(write(f.peer, "x", 1), 1);
	expect_received(&f, "x");
	memset(block, 'x', sizeof(block));
	for (i = 0; i < 2000 && room; i++)
		room = chardev_write(f.cd, block, MIN(room, sizeof(block)));
	assert_int_equal(room, 0);
	file = stderr_to_file();
	assert_int_equal(chardev_write(f.cd, "x", 1), 0);
	assert_int_equal(chardev_write(f.cd, "x", 1), 0);
	stderr_back(file, text, sizeof(text));
	assert_non_null(strstr(text, "dropped"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	/* The client leaves: the guest goes on. */
	close(f.peer);
	f.peer = -1;
	run_until(&f, after_a_round);
	run_until(&f, after_a_round);
	assert_int_equal(chardev_write(f.cd, "x", 1), QUEUE);
	destroy(&f);
}

static void old_sockets_are_replaced_others_not(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct error err;
	struct fixture f;
	struct stat st;
	FILE *file;
	int fd;

	(void)state;
	create(&f);
	strcpy(address.sun_path, f.path);
	snprintf(f.spec, sizeof(f.spec), "unix:%s", f.path);

	file = fopen(f.path, "w");
	fclose(file);
	assert_null(chardev_open(f.spec, f.loop, &err));
	assert_int_equal(err.code, EEXIST);
	assert_int_equal(lstat(f.path, &st), 0);
	unlink(f.path);

	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_null(chardev_open(f.spec, f.loop, &err));
	assert_int_equal(err.code, EADDRINUSE);
	assert_non_null(strstr(err.text, f.path));
	assert_int_equal(lstat(f.path, &st), 0);

	close(fd);
	open_spec(&f, "unix:");
	f.peer = connect_to(f.path);
	assert_int_equal(write(f.peer, "x", 1), 1);
	expect_received(&f, "x");

	/* Closing removes its own socket, not one that has taken its place. */
	unlink(f.path);
	file = fopen(f.path, "w");
	fclose(file);
	chardev_close(f.cd);
	f.cd = NULL;
	assert_int_equal(lstat(f.path, &st), 0);
	destroy(&f);
}

/* ---- stdio, in a child whose standard streams are ours ---- */

struct child {
	pid_t pid;
	int in, out; /* our ends */
	int slave;   /* a terminal: kept open to look at its mode */
};

/* Exit status: 10 + quits; whatever is received is sent back in upper case. */
static size_t child_receive(void *opaque, const uint8_t *data, size_t size)
{
	struct fixture *f = opaque;
	size_t i;

	for (i = 0; i < size; i++) {
		char c = (char)data[i] == 1 ? 'A' : (char)(data[i] ^ 0x20);

		if (data[i] == '!')
			abort();
		if (f->cd)
			chardev_write(f->cd, &c, 1);
	}
	return size;
}

static void child_quit(void *opaque)
{
	struct fixture *f = opaque;

	f->quits++;
	event_loop_stop(f->loop);
}

/* Every other time there is no room yet. */
static bool child_receive_break(void *opaque)
{
	struct fixture *f = opaque;

	if (f->rounds++ % 2) {
		chardev_write(f->cd, "<", 1);
		return true;
	}
	chardev_resume(f->cd);
	return false;
}

static const struct chardev_ops child_ops = {
	.receive = child_receive,
	.receive_break = child_receive_break,
	.quit = child_quit,
};

static _Noreturn void child_main(int in, int out)
{
	struct fixture f = { .loop = event_loop_create(NULL) };
	int flags_in, flags_out;

	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	flags_in = fcntl(STDIN_FILENO, F_GETFL);
	flags_out = fcntl(STDOUT_FILENO, F_GETFL);
	f.cd = chardev_open("stdio", f.loop, NULL);
	if (!f.cd)
		_exit(1);
	/* The shell's own open files stay as they were. */
	if (fcntl(STDIN_FILENO, F_GETFL) != flags_in || fcntl(STDOUT_FILENO, F_GETFL) != flags_out)
		_exit(2);
	chardev_attach(f.cd, &child_ops, &f);
	chardev_write(f.cd, "ready\n", 6);
	event_loop_run(f.loop);
	chardev_close(f.cd);
	event_loop_destroy(f.loop);
	exit(10 + (int)f.quits);
}

static void default_signals(void)
{
	int n;

	for (n = 1; n < 32; n++)
		signal(n, SIG_DFL);
}

static void start_on_terminal(struct child *c)
{
	char name[64];

	c->in = c->out = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(c->in >= 0 && !grantpt(c->in) && !unlockpt(c->in) && !ptsname_r(c->in, name, sizeof(name)));
	c->slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(c->slave >= 0);
	fflush(NULL);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (!c->pid) {
		default_signals();
		close(c->in);
		child_main(c->slave, c->slave);
	}
}

static void start_on(struct child *c, int in, int out)
{
	fflush(NULL);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (!c->pid) {
		default_signals();
		if (c->in >= 0)
			close(c->in);
		if (c->out >= 0)
			close(c->out);
		child_main(in, out);
	}
}

static int wait_for(struct child *c)
{
	int status;

	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	return status;
}

static void end_terminal(struct child *c)
{
	close(c->in);
	close(c->slave);
}

static void expect_mode(struct child *c, bool raw)
{
	struct termios mode;

	assert_int_equal(tcgetattr(c->slave, &mode), 0);
	assert_int_equal(!(mode.c_lflag & ICANON), raw);
	assert_int_equal(!(mode.c_lflag & ECHO), raw);
	assert_int_equal(!(mode.c_lflag & ISIG), raw);
}

static void terminal_keys(void **state)
{
	struct child c;
	int status;

	(void)state;
	start_on_terminal(&c);
	expect_from_peer(c.out, "ready\r\n");
	expect_mode(&c, true);
	assert_int_equal(write(c.in,
			       "ab\x03\x01\x01\x01"
			       "a\x01zc",
			       10),
			 10);
	expect_from_peer(c.out, "AB\x23"
				"AAC");
	assert_int_equal(write(c.in, "\x01h", 2), 2);
	expect_from_peer(c.out, "\r\r\nCtrl-A h       this help\r\r\nCtrl-A x       quit doppel\r\r\n"
				"Ctrl-A b       send a break (Linux: SysRq, the next key says what)\r\r\n"
				"Ctrl-A Ctrl-A  send a Ctrl-A (Ctrl-A a, too)\r\r\n");
	assert_int_equal(write(c.in,
			       "\x01"
			       "bd\x01"
			       "be\x01"
			       "B\x01"
			       "bf",
			       11),
			 11);
	expect_from_peer(c.out, "<D<E<<F");
	assert_int_equal(write(c.in, "\x01x", 2), 2);
	status = wait_for(&c);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 11);
	expect_mode(&c, false);
	end_terminal(&c);
}

static void terminal_is_restored_on_signals(void **state)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGSEGV, SIGABRT, SIGBUS, SIGUSR1 };
	struct child c;
	size_t i;
	int status;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		start_on_terminal(&c);
		expect_from_peer(c.out, "ready\r\n");
		expect_mode(&c, true);
		kill(c.pid, signals[i]);
		status = wait_for(&c);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), signals[i]);
		expect_mode(&c, false);
		end_terminal(&c);
	}
	start_on_terminal(&c);
	expect_from_peer(c.out, "ready\r\n");
	assert_int_equal(write(c.in, "!", 1), 1);
	status = wait_for(&c);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	expect_mode(&c, false);
	end_terminal(&c);
}

static void terminal_that_goes_away_quits(void **state)
{
	struct child c;
	int status;

	(void)state;
	start_on_terminal(&c);
	expect_from_peer(c.out, "ready\r\n");
	end_terminal(&c);
	status = wait_for(&c);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 11);
}

static void pipes_are_plain(void **state)
{
	int in[2], out[2], status;
	struct child c;

	(void)state;
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	c = (struct child){ .in = in[1], .out = out[0] };
	start_on(&c, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	expect_from_peer(c.out, "ready\n");
	/* No keys here, and the end of input is not the end of the machine. */
	assert_int_equal(write(c.in, "a\x01x", 3), 3);
	close(c.in);
	expect_from_peer(c.out, "AAX");
	/* The reader leaves: the machine quits by itself. */
	close(c.out);
	status = wait_for(&c);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 11);
}

static void sockets_as_stdio(void **state)
{
	struct child c;
	int pair[2], status;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	c = (struct child){ .in = pair[0], .out = -1 };
	start_on(&c, pair[1], pair[1]);
	close(pair[1]);
	expect_from_peer(c.in, "ready\n");
	assert_int_equal(write(c.in, "abc", 3), 3);
	expect_from_peer(c.in, "ABC");
	close(c.in);
	status = wait_for(&c);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 11);
}

/* Output to a file shares its position with everybody else who writes there. */
static void files_as_stdio(void **state)
{
	struct child c = { .in = -1, .out = -1 };
	FILE *in = tmpfile(), *out = tmpfile();
	char text[64] = "";
	int status;

	(void)state;
	assert_true(in && out);
	fputs("abc", in);
	fflush(in);
	rewind(in);
	fputs("before ", out);
	fflush(out);
	start_on(&c, fileno(in), fileno(out));
	while (strlen(text) < strlen("before ready\nABC"))
		assert_true(pread(fileno(out), text, sizeof(text) - 1, 0) > 0);
	kill(c.pid, SIGTERM);
	status = wait_for(&c);
	assert_true(WIFSIGNALED(status));
	assert_string_equal(text, "before ready\nABC");
	fclose(in);
	fclose(out);
}

/* Nobody reads the pipe until much has been written: nothing is lost. */
static void slow_pipe_gets_everything(void **state)
{
	static char sent[300000], got[300006];
	int in[2], out[2], status;
	struct child c;
	size_t n = 0;

	(void)state;
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	c = (struct child){ .in = in[1], .out = out[0] };
	start_on(&c, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	memset(sent, 'a', sizeof(sent));
	assert_int_equal(host_write_all(c.in, sent, sizeof(sent)), 0);
	close(c.in);
	while (n < sizeof(got)) {
		ssize_t more = read(c.out, got + n, sizeof(got) - n);

		assert_true(more > 0);
		n += (size_t)more;
	}
	for (n = 6; n < sizeof(got); n++)
		assert_int_equal(got[n], 'A');
	close(c.out);
	status = wait_for(&c);
	assert_int_equal(WEXITSTATUS(status), 11);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_specs_are_named),
		cmocka_unit_test(null_takes_everything),
		cmocka_unit_test(file_is_truncated_and_written),
		cmocka_unit_test(full_disk_is_one_error),
		cmocka_unit_test(pty_goes_both_ways),
		cmocka_unit_test(pty_without_reader_holds_up_nobody),
		cmocka_unit_test(device_that_is_full_loses_nothing),
		cmocka_unit_test(resume_from_another_thread),
		cmocka_unit_test(unix_goes_both_ways),
		cmocka_unit_test(clients_take_turns),
		cmocka_unit_test(client_gone_while_guest_is_busy),
		cmocka_unit_test(slow_reader_gets_every_byte),
		cmocka_unit_test(a_full_queue_is_told),
		cmocka_unit_test(old_sockets_are_replaced_others_not),
		cmocka_unit_test(terminal_keys),
		cmocka_unit_test(terminal_is_restored_on_signals),
		cmocka_unit_test(terminal_that_goes_away_quits),
		cmocka_unit_test(pipes_are_plain),
		cmocka_unit_test(sockets_as_stdio),
		cmocka_unit_test(files_as_stdio),
		cmocka_unit_test(slow_pipe_gets_everything),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
