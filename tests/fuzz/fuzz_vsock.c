/*
 * Connections of virtio-vsock: packets of a guest's and bytes of the host's programs in any order. No more connections and no more bytes are kept than may be, and never
 * is a guest sent more than it said it has room for.
 */
#define _GNU_SOURCE
#include "devices/virtio/vsock_link.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CID	    3u
#define MAX_ACTIONS 300
#define CLIENTS	    4
#define DATA	    4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
	struct vsock_links links;
	struct reader {
		const uint8_t *data;
		size_t size, offset;
	} input;
	char path[64];
	int clients[CLIENTS], listener;
	uint8_t data[DATA];
};

static uint32_t take(struct fuzz *f, unsigned bytes)
{
	uint32_t value = 0;

	for (unsigned n = 0; n < bytes && f->input.offset < f->input.size; n++)
		value |= (uint32_t)f->input.data[f->input.offset++] << 8 * n;
	return value;
}

/* Few, so that they meet. */
static uint32_t port(struct fuzz *f) { return take(f, 1) % 8 ? (1u << 30) + take(f, 1) % 4 : take(f, 1) % 3; }

static void hear(struct fuzz *f)
{
	static const uint32_t sizes[] = { 0, 1, 100, DATA };
	unsigned choice = take(f, 1);
	struct vsock_header h = {
		.src_cid = choice & 0xf0 ? CID : take(f, 2),
		.dst_cid = choice & 0x0f ? VSOCK_HOST_CID : take(f, 1),
		.src_port = take(f, 1) % 3,
		.dst_port = port(f),
		.type = take(f, 1) % 16 ? VSOCK_TYPE_STREAM : (uint16_t)take(f, 2),
		.op = take(f, 1) % 9,
		.flags = take(f, 1) % 4,
		.buf_alloc = take(f, 1) % 2 ? 0x10000 : take(f, 4),
		.fwd_cnt = take(f, 1) % 2 ? 0 : take(f, 4),
		.len = sizes[take(f, 1) % 4],
	};
	struct iovec pieces[] = { { &h, sizeof(h) }, { f->data, h.len / 2 }, { f->data, h.len - h.len / 2 } };

	if (vsock_hears(&f->links))
		vsock_hear(&f->links, &h, pieces, 3, sizeof(h));
}

static void say(struct fuzz *f)
{
	uint8_t data[DATA];
	struct iovec piece = { data, 1 + take(f, 1) * 16u };
	struct vsock_header h;
	struct vsock_link *link;

	if (vsock_has_words(&f->links))
		vsock_say(&f->links);
	else if (vsock_has_data(&f->links) && vsock_read(&f->links, &h, &piece, 1))
		list_for_each (link, &f->links.links, node)
			if (link->host_port == h.src_port && link->guest_port == h.dst_port &&
			    link->sent - link->guest_taken > link->guest_buffer)
				abort();
}

static void settle(struct fuzz *f)
{
	struct pollfd fds[VSOCK_LINKS_MOST + 1];
	unsigned count = vsock_prepare(&f->links, fds, take(f, 1) & 1);
	char path[VSOCK_PATH_SIZE];
	struct vsock_link *link;

	if (poll(fds, count, 0) >= 0)
		vsock_ready(&f->links, fds, take(f, 1) % 8);
	while ((link = vsock_connects(&f->links, path)))
		vsock_connected(&f->links, link, host_unix_connect(path, NULL));
	vsock_reap(&f->links);
}

static void drop_client(struct fuzz *f, unsigned n)
{
	if (f->clients[n] >= 0)
		close(f->clients[n]);
	f->clients[n] = -1;
}

static void client(struct fuzz *f)
{
	static const char *const lines[] = { "CONNECT 0\n", "CONNECT 1\nabc", "CONNECT ", "2\n", "\n" };
	unsigned n = take(f, 1) % CLIENTS, choice = take(f, 1) % 16;
	int *fd = &f->clients[n];

	if (*fd < 0)
		*fd = choice & 1 ? host_unix_connect(f->path, NULL)
				 : accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (*fd < 0)
		return;
	if (choice < 8)
		(void)!send(*fd, lines[choice % 5], strlen(lines[choice % 5]), MSG_NOSIGNAL);
	else if (choice < 11)
		(void)!send(*fd, f->data, take(f, 1) * 16u, MSG_NOSIGNAL);
	else if (choice < 13)
		(void)!recv(*fd, f->data, take(f, 1) * 16u, 0);
	else if (choice == 13)
		shutdown(*fd, take(f, 1) % 3);
	else
		drop_client(f, n);
}

static void check(const struct fuzz *f)
{
	const struct vsock_link *link;
	unsigned count = 0;

	list_for_each (link, &f->links.links, node) {
		count++;
		if (link->end - link->first > VSOCK_BUFFER || link->came - link->taken != link->end - link->first)
			abort();
	}
	if (count != f->links.count || count > VSOCK_LINKS_MOST)
		abort();
}

static void act(struct fuzz *f)
{
	switch (take(f, 1) % 16) {
	case 0 ... 5: hear(f); break;
	case 6 ... 8: say(f); break;
	case 9 ... 12: client(f); break;
	case 13: take(f, 1) % 16 ? settle(f) : vsock_forget(&f->links); break;
	default: settle(f); break;
	}
}

/* What the guest's connections to port 1 reach. */
static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s_1", path);
	unlink(address.sun_path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 4))
		abort();
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz *f = calloc(1, sizeof(*f));
	char name[80];

	log_set_level(LOG_ERROR);
	f->input = (struct reader){ data, size, 0 };
	snprintf(f->path, sizeof(f->path), "/tmp/fuzz_vsock.%d", (int)getpid());
	f->listener = listen_at(f->path);
	for (unsigned n = 0; n < CLIENTS; n++)
		f->clients[n] = -1;
	if (vsock_open(&f->links, f->path, CID, NULL))
		abort();
	for (unsigned n = 0; n < MAX_ACTIONS && f->input.offset < f->input.size; n++) {
		act(f);
		check(f);
	}
	for (unsigned n = 0; n < CLIENTS; n++)
		drop_client(f, n);
	vsock_close(&f->links);
	close(f->listener);
	snprintf(name, sizeof(name), "%s_1", f->path);
	unlink(name);
	free(f);
	return 0;
}
