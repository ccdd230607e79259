/*
 * 9P2000.L from a client that sends anything: the input is a row of messages, each with four bytes in front: how long its pieces are, how much room there is for the reply,
 * its type, and how long it is; what it says of its own length is right, but for some. The folder is one that was made for it, and what may be done there is what may be done to it.
 */
#define _GNU_SOURCE
#include "share/share.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOM	    8192u
#define HEADER_SIZE 7u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned cut(struct iovec *pieces, uint8_t *bytes, size_t size, size_t piece)
{
	unsigned n = 0;

	for (size_t at = 0; at < size; at += pieces[n++].iov_len)
		pieces[n] = (struct iovec){ bytes + at, MIN(piece, size - at) };
	return n;
}

static void serve(struct share *share, const uint8_t *message, size_t size, size_t piece, size_t room)
{
	struct iovec request[ROOM], reply[ROOM];
	struct share_message m = { .request = request, .reply = reply, .request_size = size, .reply_size = room };
	/* Of exactly that size: the sanitizer sees each byte beyond. */
	uint8_t *in = malloc(size + !size), *out = malloc(room + !room);
	size_t written = 0;

	if (!in || !out)
		abort();
	memcpy(in, message, size);
	m.request_count = cut(request, in, size, MAX(piece, size / 1000 + 1));
	m.reply_count = cut(reply, out, room, MAX(piece, room / 1000 + 1));
	if (!share_serve(share, &m, size & 1, &written) && (written < 7 || written > room || load_le32(out) != written))
		abort();
	free(in);
	free(out);
}

/* So that there is something to be found: attached as fid 1, a file walked to as fid 2. */
static void prepare(struct share *share, const char *folder)
{
	static const uint8_t version[] = { 21, 0, 0,   0,   100, 0,   0,   0,	32,  0,	 0,
					   8,  0, '9', 'P', '2', '0', '0', '0', '.', 'L' };
	static const uint8_t attach[] = {
		23, 0, 0, 0, 104, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0
	};
	static const uint8_t walk[] = { 21, 0, 0, 0, 110, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 2, 0, 'a', 'b' };
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/ab", folder);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	if (fd < 0)
		abort();
	close(fd);
	serve(share, version, sizeof(version), 100, ROOM);
	serve(share, attach, sizeof(attach), 100, ROOM);
	serve(share, walk, sizeof(walk), 100, ROOM);
}

/* A file of terabytes, sparse as it may be, is not what is tested. */
static bool is_too_long(const uint8_t *message, size_t size)
{
	unsigned offset = size > 4 && message[4] == 118 ? 11 : size > 4 && message[4] == 26 ? 27 : 0;

	return offset && size >= offset + 8u && load_le64(message + offset) > 1u << 20;
}

static void serve_next(struct share *share, const uint8_t *data, size_t left)
{
	uint8_t message[HEADER_SIZE + 0x7f] = { 0 };
	size_t size = MIN(data[3] & 0x7fu, left - 4);

	memcpy(message + HEADER_SIZE, data + 4, size);
	size += HEADER_SIZE;
	store_le32(message, (uint32_t)size + (data[3] & 0x80));
	message[4] = data[2];
	if (!is_too_long(message, size))
		serve(share, message, size, data[0], data[1] * 32u);
}

/* Folders of any mode are gone through. */
static int open_up(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)flag, (void)ftw;
	return S_ISDIR(st->st_mode) && chmod(path, 0700);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void remove_folder(const char *folder)
{
	if (nftw(folder, open_up, 16, FTW_PHYS) || nftw(folder, remove_one, 16, FTW_PHYS | FTW_DEPTH))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char folder[] = "/tmp/fuzz_9p.XXXXXX";
	struct share_options options = { .folder = folder, .fids = 16 };
	struct share *share;

	if (!size || !mkdtemp(folder))
		return 0;
	options.security = *data & 1;
	options.readonly = (*data & 6) == 6;
	share = share_open(&options, NULL);
	if (share) {
		prepare(share, folder);
		for (size_t at = 1; at + 4 <= size; at += 4 + (data[at + 3] & 0x7f))
			serve_next(share, data + at, size - at);
		share_close(share);
	}
	remove_folder(folder);
	return 0;
}
