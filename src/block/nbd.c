/*
 * A disk that an NBD server has. Any number of requests are on their way on one connection: each sender waits for its reply, and one of those
 * who wait reads for all. When the connection breaks it is made again, and what was not answered is sent again.
 */
#include "block/nbd.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC_REQUEST	 0x25609513u
#define MAGIC_SIMPLE	 0x67446698u
#define MAGIC_STRUCTURED 0x668e33efu

enum command { READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES = 6 };
#define COMMAND_NO_HOLE BIT(1)

enum chunk { CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE };
#define CHUNK_ERROR BIT(15)
#define CHUNK_DONE  BIT(0)

#define PART (1u << 20) /* bytes of a request */
/*
 * A server that says nothing for so long, though something is wanted of it, is as good as gone: a flush of its may take a while. So long another one is tried to be
 * had; then requests fail at once, but for one a second that tries again. Whoever waits for a request (a driver's reset, a pause) does so no longer than all of this.
 */
#define PATIENCE      30 /* seconds, each of these */
#define CONNECT_MOST  10
#define CONNECT_ONE   3 /* each attempt of these */
#define CONNECT_AGAIN 1
#define TRY_APART_MS  100
#define SENT_MOST     2 /* times that a request is sent, with a connection of its own each */

struct nbd {
	struct image image;
	struct nbd_address address;
	struct nbd_export export;
	int fd;
	pthread_mutex_t lock, send_lock;
	pthread_cond_t changed;
	struct list pending;
	unsigned users; /* of the connection */
	uint64_t cookie;
	bool reading;		    /* somebody reads replies */
	bool broken;		    /* the connection; nobody begins to use it */
	uint64_t answered, flushed; /* writes: all, and those that were answered before the last flush */
	bool lost;		    /* there were others when the connection broke: the next flush fails */
	_Atomic unsigned given_up;  /* by so many: nobody waits */
	uint64_t next_try; /* host_monotonic_ns() before which nobody connects: the server is gone; 0: it is not */
};

struct nbd_request {
	enum command command;
	uint16_t flags;
	uint64_t offset, size, cookie;
	struct span span; /* of reads and writes */
	uint64_t covered; /* bytes of a read that came */
	int result;
	bool done;
	struct list node;
};

static struct nbd *nbd_of(struct image *image) { return container_of(image, struct nbd, image); }

/* ---- replies; one thread at a time ---- */

static int receive_span(struct nbd *n, struct span span, uint64_t size)
{
	while (size) {
		struct iovec piece;
		uint64_t bytes;
		int rc;

		span_pieces(span, size, &piece, 1, &bytes);
		rc = nbd_receive(n->fd, piece.iov_base, piece.iov_len);
		if (rc)
			return rc;
		span_advance(&span, bytes);
		size -= bytes;
	}
	return 0;
}

static struct nbd_request *find(struct nbd *n, uint64_t cookie)
{
	struct nbd_request *r, *found = NULL;

	pthread_mutex_lock(&n->lock);
	list_for_each (r, &n->pending, node)
		if (r->cookie == cookie)
			found = r;
	pthread_mutex_unlock(&n->lock);
	return found;
}

/* The server's errors are Linux' numbers. */
static int result_of(uint32_t error)
{
	switch (error) {
	case 0: return 0;
	case EPERM:
	case ENOMEM:
	case EINVAL:
	case ENOSPC: return -(int)error;
	default: return -EIO;
	}
}

static void finish(struct nbd *n, struct nbd_request *r)
{
	if (r->command == READ && !r->result && r->covered != r->size)
		r->result = -EIO;
	pthread_mutex_lock(&n->lock);
	list_remove(&r->node);
	r->done = true;
	pthread_mutex_unlock(&n->lock);
}

static int simple_reply(struct nbd *n, const uint8_t *head)
{
	struct nbd_request *r = find(n, load_be64(head + 8));
	int rc = 0;

	if (!r)
		return -EPROTO;
	r->result = result_of(load_be32(head + 4));
	if (r->command == READ && !r->result) {
		rc = receive_span(n, r->span, r->size);
		r->covered = r->size;
	}
	if (!rc)
		finish(n, r);
	return rc;
}

/* A part of what a read wants: data, or that there is none. */
static int read_part(struct nbd *n, struct nbd_request *r, enum chunk type, uint32_t length)
{
	uint32_t fixed = type == CHUNK_DATA ? 8 : 12;
	uint8_t head[12];
	uint64_t offset, size;
	struct span span = r->span;
	int rc;

	if (r->command != READ || length < fixed)
		return -EPROTO;
	rc = nbd_receive(n->fd, head, fixed);
	if (rc)
		return rc;
	offset = load_be64(head) - r->offset;
	size = type == CHUNK_DATA ? length - fixed : load_be32(head + 8);
	if (!range_ok(offset, size, r->size) || (type == CHUNK_HOLE && length != fixed))
		return -EPROTO;
	span_advance(&span, offset);
	r->covered += size;
	if (type == CHUNK_DATA)
		return receive_span(n, span, size);
	span_zero(span, size);
	return 0;
}

static int error_part(struct nbd *n, struct nbd_request *r, uint32_t length)
{
	uint8_t text[4096 + 64];
	int rc;

	if (length < 6 || length > sizeof(text))
		return -EPROTO;
	rc = nbd_receive(n->fd, text, length);
	r->result = result_of(load_be32(text));
	return rc;
}

static int structured_reply(struct nbd *n, const uint8_t *head)
{
	uint16_t flags = load_be16(head + 4), type = load_be16(head + 6);
	struct nbd_request *r = find(n, load_be64(head + 8));
	uint8_t bytes[4];
	uint32_t length;
	int rc = nbd_receive(n->fd, bytes, sizeof(bytes));

	length = load_be32(bytes);
	if (rc || !r)
		return rc ? rc : -EPROTO;
	if (type & CHUNK_ERROR)
		rc = error_part(n, r, length);
	else if (type == CHUNK_DATA || type == CHUNK_HOLE)
		rc = read_part(n, r, (enum chunk)type, length);
	else if (type != CHUNK_NONE || length)
		rc = -EPROTO;
	if (!rc && (flags & CHUNK_DONE))
		finish(n, r);
	return rc;
}

static int read_reply(struct nbd *n)
{
	uint8_t head[16];
	int rc = nbd_receive(n->fd, head, sizeof(head));

	if (rc)
		return rc;
	switch (load_be32(head)) {
	case MAGIC_SIMPLE: return simple_reply(n, head);
	case MAGIC_STRUCTURED: return structured_reply(n, head);
	default: return -EPROTO;
	}
}

/* ---- requests ---- */

static int send_request(struct nbd *n, const struct nbd_request *r)
{
	struct span span = r->span;
	uint64_t left = r->command == WRITE ? r->size : 0;
	uint8_t head[28];
	int rc;

	store_be32(head, MAGIC_REQUEST);
	store_be16(head + 4, r->flags);
	store_be16(head + 6, (uint16_t)r->command);
	store_be64(head + 8, r->cookie);
	store_be64(head + 16, r->offset);
	store_be32(head + 24, (uint32_t)r->size);
	pthread_mutex_lock(&n->send_lock);
	rc = nbd_send(n->fd, head, sizeof(head));
	while (left && !rc) {
		struct iovec piece;
		uint64_t bytes;

		span_pieces(span, left, &piece, 1, &bytes);
		rc = nbd_send(n->fd, piece.iov_base, piece.iov_len);
		span_advance(&span, bytes);
		left -= bytes;
	}
	pthread_mutex_unlock(&n->send_lock);
	return rc;
}

/* Lock held. Who reads, or waits in a send, comes back. */
static void break_connection(struct nbd *n)
{
	if (!n->broken)
		shutdown(n->fd, SHUT_RDWR);
	n->broken = true;
	pthread_cond_broadcast(&n->changed);
}

/* Lock held. Waits until the request is done, or the connection is broken and nobody reads from it any more. */
static void wait_for_reply(struct nbd *n, struct nbd_request *r)
{
	while (!r->done && !(n->broken && !n->reading)) {
		int rc;

		if (n->reading || n->broken) {
			pthread_cond_wait(&n->changed, &n->lock);
			continue;
		}
		n->reading = true;
		pthread_mutex_unlock(&n->lock);
		rc = read_reply(n);
		pthread_mutex_lock(&n->lock);
		n->reading = false;
		if (rc)
			break_connection(n);
		pthread_cond_broadcast(&n->changed);
	}
}

static bool same_export(const struct nbd_export *a, const struct nbd_export *b)
{
	return a->size == b->size && a->flags == b->flags;
}

/* A connection to the same disk, or -errno with a sentence. */
static int try_to_connect(const struct nbd *n, unsigned patience, struct nbd_export *export, struct error *err)
{
	int fd = nbd_connect(&n->address, export, patience, err);

	if (fd < 0 || same_export(export, &n->export))
		return fd;
	close(fd);
	return error_set(err, ESTALE, "it is another disk now");
}

/* Lock held, and nobody uses the connection. */
static int connect_again(struct nbd *n)
{
	uint64_t now = host_monotonic_ns(), end = now + CONNECT_MOST * 1000000000ull;
	struct nbd_export export;
	struct error err = { 0 };
	int fd;

	if (now < n->next_try)
		return -EIO;
	if (!n->next_try)
		log_warning("'%s': the connection is lost; trying again", n->image.file->path);
	while ((fd = try_to_connect(n, n->next_try ? CONNECT_AGAIN : CONNECT_ONE, &export, &err)) < 0 && !n->next_try &&
	       !n->given_up && host_monotonic_ns() < end)
		poll(NULL, 0, TRY_APART_MS);
	if (fd < 0) {
		if (!n->next_try)
			log_error("'%s': %s; requests fail until the server is back", n->image.file->path, err.text);
		n->next_try = host_monotonic_ns() + 1000000000;
		return -EIO;
	}
	if (n->next_try)
		log_warning("'%s': the server is back", n->image.file->path);
	n->next_try = 0;
	nbd_set_patience(fd, PATIENCE);
	close(n->fd);
	n->fd = fd;
	n->export.structured = export.structured;
	n->broken = false;
	n->lost |= n->answered != n->flushed;
	n->flushed = n->answered;
	return 0;
}

/* Lock held. */
static int begin_use(struct nbd *n)
{
	int rc = 0;

	while (n->broken && n->users)
		pthread_cond_wait(&n->changed, &n->lock);
	if (n->broken)
		rc = n->given_up ? -EIO : connect_again(n);
	if (!rc)
		n->users++;
	return rc;
}

/* Lock held. */
static void try_request(struct nbd *n, struct nbd_request *r)
{
	int rc;

	r->cookie = ++n->cookie;
	r->covered = 0;
	list_append(&n->pending, &r->node);
	pthread_mutex_unlock(&n->lock);
	rc = send_request(n, r);
	pthread_mutex_lock(&n->lock);
	if (rc)
		break_connection(n);
	wait_for_reply(n, r);
	if (!r->done)
		list_remove(&r->node);
	n->users--;
	pthread_cond_broadcast(&n->changed);
}

static int do_request(struct nbd *n, struct nbd_request *r)
{
	int rc = 0;

	pthread_mutex_lock(&n->lock);
	for (unsigned sent = 0; !r->done && !rc; sent++) {
		rc = sent < SENT_MOST ? begin_use(n) : -EIO;
		if (!rc)
			try_request(n, r);
	}
	if (!rc)
		rc = r->result;
	if (!rc && r->command != READ && r->command != FLUSH)
		n->answered++;
	pthread_mutex_unlock(&n->lock);
	return rc;
}

static int do_parts(struct nbd *n, enum command command, uint16_t flags, uint64_t offset, uint64_t size,
		    struct span span)
{
	while (size) {
		struct nbd_request r = { .command = command,
					 .flags = flags,
					 .offset = offset,
					 .size = MIN(size, MIN(PART, align_down(n->export.most, BLOCK_SECTOR))),
					 .span = span };
		int rc = do_request(n, &r);

		if (rc)
			return rc;
		if (command == READ || command == WRITE)
			span_advance(&span, r.size);
		offset += r.size;
		size -= r.size;
	}
	return 0;
}

/* ---- the image ---- */

/* An export whose size is no multiple of a sector ends in the last one, and what is behind it does not exist. */
static int nbd_read(struct image *image, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	struct nbd *n = nbd_of(image);
	uint64_t inside = MIN(size, n->export.size - offset);
	int rc = nowait ? -EAGAIN : do_parts(n, READ, 0, offset, inside, span);

	if (rc)
		return rc;
	span_advance(&span, inside);
	span_zero(span, size - inside);
	return 0;
}

static int nbd_write(struct image *image, uint64_t offset, uint64_t size, struct span span, bool nowait)
{
	struct nbd *n = nbd_of(image);

	return nowait ? -EAGAIN : do_parts(n, WRITE, 0, offset, MIN(size, n->export.size - offset), span);
}

static int write_zeros(struct nbd *n, uint64_t offset, uint64_t size)
{
	struct iovec zeros = { calloc(1, PART), PART };
	int rc = zeros.iov_base ? 0 : -ENOMEM;

	while (size && !rc) {
		uint64_t part = MIN(size, PART);

		rc = do_parts(n, WRITE, 0, offset, part, span_of(&zeros));
		offset += part;
		size -= part;
	}
	free(zeros.iov_base);
	return rc;
}

static int nbd_zero(struct image *image, uint64_t offset, uint64_t size, bool unmap)
{
	struct nbd *n = nbd_of(image);

	size = MIN(size, n->export.size - offset);
	if (!(n->export.flags & NBD_WRITE_ZEROES))
		return write_zeros(n, offset, size);
	return do_parts(n, WRITE_ZEROES, unmap ? 0 : COMMAND_NO_HOLE, offset, size, (struct span){ 0 });
}

static int nbd_discard(struct image *image, uint64_t offset, uint64_t size)
{
	struct nbd *n = nbd_of(image);

	if (!(n->export.flags & NBD_TRIM))
		return 0;
	return do_parts(n, TRIM, 0, offset, MIN(size, n->export.size - offset), (struct span){ 0 });
}

/* What the server had answered, and not flushed when the connection broke, it may have lost: that is told once. */
static int nbd_flush(struct image *image)
{
	struct nbd *n = nbd_of(image);
	struct nbd_request r = { .command = FLUSH };
	uint64_t answered;
	int rc;

	if (image->file->unsafe)
		return 0;
	pthread_mutex_lock(&n->lock);
	answered = n->answered;
	pthread_mutex_unlock(&n->lock);
	rc = n->export.flags & NBD_FLUSH ? do_request(n, &r) : 0;
	pthread_mutex_lock(&n->lock);
	if (!rc && n->lost)
		rc = -EIO;
	if (!rc)
		n->flushed = MAX(n->flushed, answered);
	else
		n->lost = false;
	pthread_mutex_unlock(&n->lock);
	return rc;
}

static int nbd_content(struct image *image, uint64_t offset, uint64_t size, enum image_content *content,
		       uint64_t *length)
{
	(void)image;
	(void)offset;
	*content = IMAGE_DATA;
	*length = size;
	return 0;
}

static int nbd_resize(struct image *image, uint64_t size, struct error *err)
{
	(void)size;
	return error_set(err, EINVAL, "'%s' is a server's: its size does not change", image->file->path);
}

static void nbd_give_up(struct image *image, bool begins)
{
	struct nbd *n = nbd_of(image);

	if (!begins) {
		n->given_up--;
		return;
	}
	n->given_up++;
	pthread_mutex_lock(&n->lock);
	break_connection(n);
	pthread_mutex_unlock(&n->lock);
}

static void nbd_free(struct nbd *n)
{
	if (n->fd >= 0)
		close(n->fd);
	nbd_address_free(&n->address);
	pthread_mutex_destroy(&n->lock);
	pthread_mutex_destroy(&n->send_lock);
	pthread_cond_destroy(&n->changed);
	file_close(n->image.file);
	free(n);
}

static void nbd_close(struct image *image)
{
	struct nbd *n = nbd_of(image);
	struct nbd_request goodbye = { .command = DISCONNECT };

	if (!n->broken)
		send_request(n, &goodbye);
	nbd_free(n);
}

static const struct image_ops nbd_ops = {
	.name = "raw",
	.read = nbd_read,
	.write = nbd_write,
	.zero = nbd_zero,
	.discard = nbd_discard,
	.flush = nbd_flush,
	.content = nbd_content,
	.resize = nbd_resize,
	.give_up = nbd_give_up,
	.close = nbd_close,
};

bool nbd_is_address(const char *file) { return !strncmp(file, "nbd:", 4) || !strncmp(file, "nbd+unix:", 9); }

static int open_connection(struct nbd *n, const struct block_options *options, struct error *err)
{
	int rc = nbd_parse(options->file, &n->address, err);

	if (rc)
		return rc;
	n->fd = nbd_connect(&n->address, &n->export, CONNECT_MOST, err);
	if (n->fd < 0)
		return n->fd;
	nbd_set_patience(n->fd, PATIENCE);
	if ((n->export.flags & NBD_READ_ONLY) && !options->readonly)
		return error_set(err, EROFS, "the server lets nobody write to it; readonly or snapshot only reads it");
	if (n->export.size > INT64_MAX - BLOCK_SECTOR)
		return error_set(err, EFBIG, "a disk of %llu bytes is too large", (unsigned long long)n->export.size);
	return 0;
}

struct image *nbd_open(const struct block_options *options, struct error *err)
{
	struct nbd *n = calloc(1, sizeof(*n));

	if (!n || file_name_only(&n->image.file, options)) {
		free(n);
		error_set_errno(err, ENOMEM, "open '%s'", options->file);
		return NULL;
	}
	n->image.ops = &nbd_ops;
	n->fd = -1;
	pthread_mutex_init(&n->lock, NULL);
	pthread_mutex_init(&n->send_lock, NULL);
	pthread_cond_init(&n->changed, NULL);
	list_init(&n->pending);
	if (open_connection(n, options, err)) {
		if (err)
			error_prefix(err, "'%s'", options->file);
		nbd_free(n);
		return NULL;
	}
	n->image.size = align_up(n->export.size, BLOCK_SECTOR);
	return &n->image;
}
