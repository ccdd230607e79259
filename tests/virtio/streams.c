/*
 * Both ends of the tests of virtio-vsock, in the guest and on the host:
 *
 *	streams echo ADDRESS			whatever comes on a connection goes back on it; several at once, until it is killed
 *	streams check ADDRESS COUNT SIZE	so many connections at once, so many bytes on each, which come back; then each is closed in halves
 *
 * ADDRESS is vsock:CID:PORT, unix:PATH, or (to connect) hybrid:PATH:PORT, where the socket is asked for a port first.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define PIECE 65536

static int fail(const char *what)
{
	perror(what);
	return 1;
}

/* ---- addresses ---- */

union address {
	struct sockaddr any;
	struct sockaddr_vm vsock;
	struct sockaddr_un un;
};

/* A socket for it; *port: what a hybrid one is to be asked for, else 0. */
static int parse(const char *text, union address *address, unsigned *port)
{
	unsigned cid;

	*address = (union address){ .un = { .sun_family = AF_UNIX } };
	*port = 0;
	if (sscanf(text, "vsock:%u:%u", &cid, port) == 2) {
		address->vsock = (struct sockaddr_vm){ .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = *port };
		*port = 0;
	} else if (sscanf(text, "unix:%107s", address->un.sun_path) != 1 &&
		   sscanf(text, "hybrid:%107[^:]:%u", address->un.sun_path, port) != 2) {
		exit(2);
	}
	return socket(address->any.sa_family, SOCK_STREAM, 0);
}

static socklen_t size_of(const union address *address)
{
	return address->any.sa_family == AF_UNIX ? sizeof(address->un) : sizeof(address->vsock);
}

/* "CONNECT PORT", "OK PORT" */
static int ask(int fd, unsigned port)
{
	char line[32] = "", *at = line;

	snprintf(line, sizeof(line), "CONNECT %u\n", port);
	if (write(fd, line, strlen(line)) < 0)
		return -1;
	while (at < line + sizeof(line) && read(fd, at, 1) == 1)
		if (*at++ == '\n')
			return strncmp(line, "OK ", 3) ? -1 : 0;
	return -1;
}

/* ---- echo ---- */

static int write_all(int fd, const char *data, ssize_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, data, size);

		if (n < 0)
			return -1;
		data += n;
		size -= n;
	}
	return 0;
}

static int echo_one(int fd)
{
	static char data[PIECE];
	ssize_t n;

	while ((n = read(fd, data, sizeof(data))) > 0)
		if (write_all(fd, data, n))
			return 1;
	return n != 0;
}

static int echo(const char *text)
{
	union address address;
	unsigned port;
	int fd = parse(text, &address, &port);

	if (fd < 0 || bind(fd, &address.any, size_of(&address)) || listen(fd, 128))
		return fail(text);
	for (;;) {
		int one = accept(fd, NULL, NULL);

		if (one < 0)
			return fail("accept");
		if (!fork()) {
			close(fd);
			_exit(echo_one(one));
		}
		close(one);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

/* ---- check ---- */

static void fill(uint64_t *state, char *data, size_t size)
{
	for (size_t n = 0; n < size; n++) {
		*state = *state * 6364136223846793005ull + 1442695040888963407ull;
		data[n] = (char)(*state >> 56);
	}
}

/* Sends and receives at the same time. */
static int check_one(int fd, uint64_t seed, size_t size)
{
	static char out[PIECE], in[PIECE], expected[PIECE];
	uint64_t sends = seed, receives = seed;
	size_t sent = 0, got = 0, first = 0, end = 0;

	while (got < size) {
		struct pollfd p = { .fd = fd, .events = POLLIN | (sent < size ? POLLOUT : 0) };
		ssize_t n;

		if (poll(&p, 1, -1) < 0)
			return fail("poll");
		if (p.revents & POLLIN) {
			n = read(fd, in, sizeof(in));
			if (n <= 0)
				return fail("read");
			fill(&receives, expected, (size_t)n);
			if (memcmp(in, expected, (size_t)n))
				return fail("other bytes");
			got += (size_t)n;
		} else if (p.revents & POLLOUT) {
			if (first == end) {
				end = size - sent < sizeof(out) ? size - sent : sizeof(out);
				first = 0;
				fill(&sends, out, end);
			}
			n = send(fd, out + first, end - first, MSG_DONTWAIT);
			if (n < 0)
				return fail("send");
			first += (size_t)n;
			sent += (size_t)n;
		} else {
			return fail("hung up");
		}
	}
	if (shutdown(fd, SHUT_WR) || read(fd, in, 1) != 0)
		return fail("no end");
	return 0;
}

/* Virtual time, which jumps over what a guest waits, does not wait for a busy host to answer. */
static int wait_long(int fd, const union address *address)
{
	struct timeval limit = { .tv_sec = 100000 };

	return address->any.sa_family != AF_VSOCK
		       ? 0
		       : setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &limit, sizeof(limit));
}

static int check(const char *text, unsigned count, size_t size)
{
	int status, failed = 0;

	for (unsigned n = 0; n < count; n++) {
		union address address;
		unsigned port;
		int fd = parse(text, &address, &port);

		if (fd < 0 || wait_long(fd, &address) || connect(fd, &address.any, size_of(&address)) ||
		    (port && ask(fd, port))) {
			failed = fail(text);
			break;
		}
		if (!fork())
			_exit(check_one(fd, n, size));
		close(fd);
	}
	while (wait(&status) > 0)
		failed |= status != 0;
	return failed;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "echo"))
		return echo(argv[2]);
	if (argc == 5 && !strcmp(argv[1], "check"))
		return check(argv[2], (unsigned)atoi(argv[3]), strtoull(argv[4], NULL, 10));
	return 2;
}
