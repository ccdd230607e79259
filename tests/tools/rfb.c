/*
 * A viewer for tests, at a display's Unix socket:
 *
 *	rfb PATH WHAT...	does one thing after the other; its status is 0 if all went well
 *		type TEXT	presses and releases the keys of its characters, as the viewer says them; \n is Enter
 *		key CODE	a key by its place: a code of set 1 in hexadecimal
 *		move X Y	the pointer, by so much
 *		click		the left button
 *		lamps N		waits until the keyboard's lamps are N
 *		pause MS
 *		lamp-times N	Caps Lock N times: prints the median of the ms until its lamp is seen to change
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 30000

static int fd;
static unsigned lamps = ~0u;
static uint16_t width, height;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "rfb: %s\n", what);
	exit(1);
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void put(const void *data, size_t size)
{
	if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
		fail("cannot send");
}

static void take(void *data, size_t size)
{
	char *to = data;

	while (size) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n = poll(&p, 1, PATIENCE_MS) > 0 ? read(fd, to, size) : 0;

		if (n <= 0)
			fail("nothing comes, or the end");
		to += n;
		size -= (size_t)n;
	}
}

static void skip(size_t size)
{
	char data[4096];

	for (size_t n; size; size -= n) {
		n = size < sizeof(data) ? size : sizeof(data);
		take(data, n);
	}
}

static unsigned take_number(unsigned bytes)
{
	uint8_t data[4];
	unsigned value = 0;

	take(data, bytes);
	for (unsigned n = 0; n < bytes; n++)
		value = value << 8 | data[n];
	return value;
}

static void request(void)
{
	put((const uint8_t[]){ 3, 1, 0, 0, 0, 0, (uint8_t)(width >> 8), (uint8_t)width, (uint8_t)(height >> 8),
			       (uint8_t)height },
	    10);
}

/* One update, of which only the lamps matter. */
static void take_update(void)
{
	unsigned count;

	if (take_number(1))
		fail("something but an update");
	skip(1);
	for (count = take_number(2); count; count--) {
		unsigned size = (skip(4), take_number(2));

		size *= take_number(2);
		switch ((int32_t)take_number(4)) {
		case 0: skip(4 * (size_t)size); break;
		case -261: lamps = take_number(1); break;
		case -257:
		case -258: break;
		default: fail("an encoding that was not asked for");
		}
	}
	request();
}

static void connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	double end = now_ms() + PATIENCE_MS;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	while (connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
		if (now_ms() > end)
			fail("nobody listens");
		usleep(10000);
	}
	skip(12);
	put("RFB 003.008\n", 12);
	skip(take_number(1));
	put("\1", 1);
	if (take_number(4))
		fail("refused");
	put("\1", 1);
	width = (uint16_t)take_number(2);
	height = (uint16_t)take_number(2);
	skip(16);
	skip(take_number(4));
	put("\2\0\0\4\0\0\0\0\xff\xff\xfe\xfb\xff\xff\xfe\xfe\xff\xff\xfe\xff", 20);
	request();
	take_update();
}

static void type(const char *text)
{
	for (; *text; text++) {
		uint8_t m[8] = { 4, 1, 0, 0, 0, 0, 0, (uint8_t)*text };

		if (text[0] == '\\' && text[1] == 'n') {
			m[6] = 0xff;
			m[7] = 0x0d;
			text++;
		}
		put(m, sizeof(m));
		m[1] = 0;
		put(m, sizeof(m));
	}
}

static void key(uint8_t code)
{
	uint8_t m[12] = { 255, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, code };

	put(m, sizeof(m));
	m[3] = 0;
	put(m, sizeof(m));
}

/* Relative: the guest has a mouse. */
static void point(uint8_t buttons, int x, int y)
{
	uint16_t at_x = (uint16_t)(0x7fff + x), at_y = (uint16_t)(0x7fff + y);

	put((const uint8_t[]){ 5, buttons, (uint8_t)(at_x >> 8), (uint8_t)at_x, (uint8_t)(at_y >> 8), (uint8_t)at_y },
	    6);
}

static void wait_for_lamps(unsigned wanted)
{
	while (lamps != wanted)
		take_update();
}

static int compare(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void lamp_times(unsigned count)
{
	double *times = calloc(count, sizeof(*times));

	for (unsigned n = 0; n < count; n++) {
		double begin = now_ms();

		key(0x3a);
		wait_for_lamps(lamps ^ 4);
		times[n] = now_ms() - begin;
		usleep(20000);
	}
	qsort(times, count, sizeof(*times), compare);
	printf("%.1f\n", times[count / 2]);
	free(times);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		fail("usage: rfb PATH WHAT...");
	connect_to(argv[1]);
	for (int n = 2; n < argc; n++) {
		const char *what = argv[n];

		if (!strcmp(what, "click")) {
			point(1, 0, 0);
			point(0, 0, 0);
			continue;
		}
		if (++n == argc)
			fail("something is missing");
		if (!strcmp(what, "type"))
			type(argv[n]);
		else if (!strcmp(what, "key"))
			key((uint8_t)strtoul(argv[n], NULL, 16));
		else if (!strcmp(what, "lamps"))
			wait_for_lamps((unsigned)atoi(argv[n]));
		else if (!strcmp(what, "pause"))
			usleep((useconds_t)atoi(argv[n]) * 1000);
		else if (!strcmp(what, "lamp-times"))
			lamp_times((unsigned)atoi(argv[n]));
		else if (!strcmp(what, "move") && n + 1 < argc) {
			point(0, atoi(argv[n]), atoi(argv[n + 1]));
			n++;
		} else
			fail(what);
	}
	/* The server has read all when it answers the last. */
	request();
	return 0;
}
