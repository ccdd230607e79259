/*
 * Frames of both directions in a file that tcpdump and Wireshark read: pcap, version 2.4, link type Ethernet.
 */
#define _GNU_SOURCE
#include "net/net_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct capture {
	int fd;
	char path[256];
	uint64_t most;
	pthread_mutex_t lock; /* both directions write; of what follows */
	uint64_t size;	      /* of all whole records and what is in front of them */
	bool ended;
};

/* With nanoseconds; in the host's byte order, which the magic number tells. */
struct file_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, accuracy, most, link_type;
};
struct packet_header {
	uint32_t seconds, nanoseconds, kept, size;
};
#define MAGIC	      0xa1b23c4d
#define LINK_ETHERNET 1

struct capture *capture_open(const char *path, uint64_t most, struct error *err)
{
	const struct file_header header = { MAGIC, 2, 4, 0, 0, NET_FRAME_MAX, LINK_ETHERNET };
	struct capture *c = calloc(1, sizeof(*c));
	int rc;

	if (!c) {
		error_set_errno(err, ENOMEM, "cannot capture to '%s'", path);
		return NULL;
	}
	snprintf(c->path, sizeof(c->path), "%s", path);
	c->most = most;
	c->size = sizeof(header);
	pthread_mutex_init(&c->lock, NULL);
	c->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	rc = c->fd < 0 ? -errno : host_write_all(c->fd, &header, sizeof(header));
	if (!rc)
		return c;
	error_set_errno(err, -rc, "option 'capture': cannot write to '%s'", path);
	capture_close(c);
	return NULL;
}

/* The lock is held. */
static void put(struct capture *c, const void *record, size_t size)
{
	int rc;

	if (c->size + size > c->most) {
		c->ended = true;
		log_warning(
			"capture to '%s': it is %llu MiB large (option 'capture-size'); no more frames are captured",
			c->path, (unsigned long long)(c->most >> 20));
		return;
	}
	rc = host_write_all(c->fd, record, size);
	if (!rc) {
		c->size += size;
		return;
	}
	c->ended = true;
	log_error("capture to '%s': %s; no more frames are captured", c->path, strerror(-rc));
	/* Half a record would be all that a reader complains of. */
	if (ftruncate(c->fd, (off_t)c->size)) {
		/* It is no file, then. */
	}
}

void capture_frame(struct capture *c, const struct iovec *iov, unsigned count, size_t size)
{
	struct packet_header header = { .kept = (uint32_t)size, .size = (uint32_t)size };
	uint8_t record[sizeof(header) + NET_FRAME_MAX];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	header.seconds = (uint32_t)now.tv_sec;
	header.nanoseconds = (uint32_t)now.tv_nsec;
	memcpy(record, &header, sizeof(header));
	net_gather(record + sizeof(header), iov, count, 0, size);
	pthread_mutex_lock(&c->lock);
	if (!c->ended)
		put(c, record, sizeof(header) + size);
	pthread_mutex_unlock(&c->lock);
}

void capture_close(struct capture *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
