/*
 * 9P2000.L by its messages: every one of them, by the book and against it; what another process does to the folder meanwhile; what there is a budget for. The client is this
 * file: requests are written byte by byte, in pieces, and each reply is checked to be no longer than it says.
 */
#include "base/base.h"
#include "share/share.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	TSTATFS = 8,
	TLOPEN = 12,
	TLCREATE = 14,
	TSYMLINK = 16,
	TMKNOD = 18,
	TRENAME = 20,
	TREADLINK = 22,
	TGETATTR = 24,
	TSETATTR = 26,
	TXATTRWALK = 30,
	TXATTRCREATE = 32,
	TREADDIR = 40,
	TFSYNC = 50,
	TLOCK = 52,
	TGETLOCK = 54,
	TLINK = 70,
	TMKDIR = 72,
	TRENAMEAT = 74,
	TUNLINKAT = 76,
	TVERSION = 100,
	TAUTH = 102,
	TATTACH = 104,
	TFLUSH = 108,
	TWALK = 110,
	TREAD = 116,
	TWRITE = 118,
	TCLUNK = 120,
	TREMOVE = 122,
};

#define NO_FID	 0xffffffffu
#define MSIZE	 16384u
#define BUFFER	 (600u << 10)
#define ROOT	 1u
#define EXCHANGE 2u /* of renameat2(2) */

struct client {
	struct share *share;
	char base[64], folder[80]; /* the folder shared is in the other */
	uint8_t request[BUFFER], reply[BUFFER];
	size_t size, reply_size, at; /* at: of what is taken from the reply next */
	size_t room;
	uint16_t tag;
	char paths[2][256];
	unsigned next_path;
};

/* ---- messages ---- */

static void add(struct client *c, uint64_t value, unsigned size)
{
	memcpy(c->request + c->size, &value, size);
	c->size += size;
}

static void add_string(struct client *c, const char *text)
{
	add(c, strlen(text), 2);
	memcpy(c->request + c->size, text, strlen(text));
	c->size += strlen(text);
}

/* Letters of the format: b, w, d, q numbers of 1, 2, 4, 8 bytes; s a string. */
static void begin(struct client *c, unsigned type, const char *format, ...)
{
	va_list args;

	c->size = 0;
	add(c, 0, 4);
	add(c, type, 1);
	add(c, ++c->tag, 2);
	va_start(args, format);
	for (; *format; format++) {
		switch (*format) {
		case 'b': add(c, va_arg(args, unsigned), 1); break;
		case 'w': add(c, va_arg(args, unsigned), 2); break;
		case 'd': add(c, va_arg(args, unsigned), 4); break;
		case 'q': add(c, va_arg(args, uint64_t), 8); break;
		default: add_string(c, va_arg(args, const char *));
		}
	}
	va_end(args);
	store_le32(c->request, (uint32_t)c->size);
}

/* In pieces of so many bytes. */
static unsigned cut(struct iovec *pieces, uint8_t *bytes, size_t size, size_t piece)
{
	unsigned n = 0;

	for (size_t at = 0; at < size; at += pieces[n++].iov_len)
		pieces[n] = (struct iovec){ bytes + at, MIN(piece, size - at) };
	return n;
}

/* What was begun; returns the error code of the reply, 0: none. */
static int send_bytes(struct client *c, size_t size)
{
	struct iovec request[1024], reply[1024];
	struct share_message m = { .request = request, .reply = reply, .request_size = size, .reply_size = c->room };
	size_t written = 0;

	m.request_count = cut(request, c->request, size, size / 7 + 5);
	m.reply_count = cut(reply, c->reply, c->room, c->room / 5 + 3);
	if (share_serve(c->share, &m, false, &written) == -EAGAIN)
		assert_int_equal(share_serve(c->share, &m, true, &written), 0);
	assert_true(written >= 7 && written <= c->room);
	assert_int_equal(load_le32(c->reply), written);
	assert_int_equal(load_le16(c->reply + 5), c->tag);
	c->reply_size = written;
	c->at = 7;
	if (c->reply[4] != 7) {
		assert_int_equal(c->reply[4], c->request[4] + 1);
		return 0;
	}
	assert_int_equal(written, 11);
	return (int)load_le32(c->reply + 7);
}

#define call(c, ...) (begin(c, __VA_ARGS__), send_bytes(c, (c)->size))

static uint64_t take(struct client *c, unsigned size)
{
	uint64_t value = 0;

	assert_true(range_ok(c->at, size, c->reply_size));
	memcpy(&value, c->reply + c->at, size);
	c->at += size;
	return value;
}

static void skip_qid(struct client *c) { take(c, 5), take(c, 8); }

/* ---- a folder and its client ---- */

static void run(const char *format, const char *folder)
{
	char command[512];

	snprintf(command, sizeof(command), format, folder);
	assert_int_equal(system(command), 0);
}

static void start(struct client *c, const struct share_options *options)
{
	struct share_options o = *options;
	struct error err;

	o.folder = c->folder;
	c->share = share_open(&o, &err);
	if (!c->share)
		fail_msg("%s", err.text);
	c->room = MSIZE;
	assert_int_equal(call(c, TVERSION, "ds", MSIZE, "9P2000.L"), 0);
	assert_int_equal(take(c, 4), MSIZE);
	assert_int_equal(call(c, TATTACH, "ddssd", ROOT, NO_FID, "user", "", 7u), 0);
	assert_int_equal(take(c, 1), 0x80);
}

static struct client *client(const struct share_options *options)
{
	struct client *c = calloc(1, sizeof(*c));

	strcpy(c->base, "/tmp/test_share.XXXXXX");
	assert_non_null(mkdtemp(c->base));
	snprintf(c->folder, sizeof(c->folder), "%s/folder", c->base);
	run("cd '%s' && mkdir -p folder/a/b outside && echo inside >folder/a/file && echo outside >outside/file && "
	    "ln -s ../../outside folder/a/out && mkfifo folder/fifo",
	    c->base);
	start(c, options);
	return c;
}

static void end(struct client *c)
{
	share_close(c->share);
	run("rm -rf '%s'", c->base);
	free(c);
}

static struct client *plain(void) { return client(&(struct share_options){ .fids = 100 }); }

/* So many bytes of the file, or the error as -code. */
static int read_all(struct client *c, unsigned fid, char *to, size_t size)
{
	int rc = call(c, TREAD, "dqd", fid, (uint64_t)0, (unsigned)size - 1);
	size_t got;

	if (rc)
		return -rc;
	got = take(c, 4);
	assert_int_equal(c->reply_size, 11 + got);
	memcpy(to, c->reply + 11, got);
	to[got] = 0;
	return (int)got;
}

static int walk1(struct client *c, unsigned from, unsigned to, const char *name)
{
	return call(c, TWALK, "ddws", from, to, 1u, name);
}

static int walk2(struct client *c, unsigned to, const char *first, const char *second)
{
	return call(c, TWALK, "ddwss", ROOT, to, 2u, first, second);
}

static void clunk(struct client *c, unsigned fid) { assert_int_equal(call(c, TCLUNK, "d", fid), 0); }

/* What there is where, as a path on the host; good until the next but one. */
static const char *host(struct client *c, const char *name)
{
	char *path = c->paths[c->next_path ^= 1];

	snprintf(path, sizeof(c->paths[0]), "%s/%s", c->folder, name);
	return path;
}

/* ---- the session ---- */

static void versions(void **state)
{
	struct client *c = plain();

	(void)state;
	assert_int_equal(call(c, TVERSION, "ds", 4095u, "9P2000.L"), EMSGSIZE);
	assert_int_equal(call(c, TVERSION, "ds", 1u << 30, "9P2000.L"), 0);
	assert_int_equal(take(c, 4), SHARE_MESSAGE_MOST);
	assert_int_equal(share_fid_count(c->share), 0); /* whatever there was is gone */
	assert_int_equal(call(c, TGETATTR, "dq", ROOT, (uint64_t)0x7ff), EBADF);
	assert_int_equal(call(c, TVERSION, "ds", 8192u, "9P2000.u"), 0);
	take(c, 4);
	assert_int_equal(take(c, 2), 7);
	assert_memory_equal(c->reply + c->at, "unknown", 7);
	assert_int_equal(call(c, TATTACH, "ddssd", ROOT, NO_FID, "", "", 0u), EPROTO); /* none was agreed on */
	end(c);
}

static void walks(void **state)
{
	struct client *c = plain();
	uint64_t root, folder;

	(void)state;
	assert_int_equal(call(c, TWALK, "ddw", ROOT, 2u, 0u), 0);
	assert_int_equal(take(c, 2), 0);
	assert_int_equal(call(c, TGETATTR, "dq", 2u, (uint64_t)0), 0);
	take(c, 8), take(c, 5), root = take(c, 8);
	assert_int_equal(walk1(c, ROOT, 2, "a"), EINVAL); /* the fid is taken */
	assert_int_equal(walk1(c, ROOT, NO_FID, "a"), EINVAL);
	assert_int_equal(walk2(c, 3, "a", "file"), 0);
	assert_int_equal(take(c, 2), 2);
	take(c, 5), folder = take(c, 8);
	assert_int_not_equal(root, folder);
	/* A part of the way: what there is of it, and no fid. */
	assert_int_equal(walk2(c, 4, "a", "nothing"), 0);
	assert_int_equal(take(c, 2), 1);
	assert_int_equal(call(c, TCLUNK, "d", 4u), EBADF);
	assert_int_equal(walk1(c, ROOT, 4, "nothing"), ENOENT);
	/* Up, and no further than the root. */
	assert_int_equal(walk2(c, 4, "a", ".."), 0);
	take(c, 2), skip_qid(c), take(c, 5);
	assert_int_equal(take(c, 8), root);
	assert_int_equal(walk2(c, 5, "..", ".."), 0);
	take(c, 2), skip_qid(c), take(c, 5);
	assert_int_equal(take(c, 8), root);
	/* In place. */
	assert_int_equal(walk1(c, 5, 5, "a"), 0);
	assert_int_equal(walk1(c, 5, 5, "b"), 0);
	assert_int_equal(walk1(c, 5, 6, ".."), 0);
	take(c, 2), take(c, 5);
	assert_int_equal(take(c, 8), folder);
	assert_int_equal(walk1(c, 3, 7, "x"), ENOTDIR);
	assert_int_equal(walk1(c, 3, 7, ".."), ENOTDIR);
	/* A link is a link. */
	assert_int_equal(walk2(c, 7, "a", "out"), 0);
	take(c, 2), skip_qid(c);
	assert_int_equal(take(c, 1), 2);
	assert_int_equal(walk1(c, 7, 8, "file"), ENOTDIR);
	assert_int_equal(call(c, TLOPEN, "dd", 7u, 0u), ELOOP);
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(walk1(c, ROOT, 8, ((const char *[]){ "", ".", "a/b", "/" })[n]), EINVAL);
	assert_int_equal(call(c, TWALK, "ddw", ROOT, 8u, 17u), EINVAL);
	end(c);
}

static void sessions(void **state)
{
	struct client *c = plain();

	(void)state;
	assert_int_equal(call(c, TAUTH, "dssd", 2u, "user", "", 0u), EOPNOTSUPP);
	assert_int_equal(call(c, TATTACH, "ddssd", ROOT, NO_FID, "", "", 0u), EINVAL); /* taken */
	assert_int_equal(call(c, TATTACH, "ddssd", 2u, 1u, "", "", 0u), EINVAL);
	assert_int_equal(call(c, TFLUSH, "w", 1u), 0);
	assert_int_equal(call(c, TLOCK, "dbdqqds", ROOT, 1u, 0u, (uint64_t)0, (uint64_t)0, 1u, "client"), 0);
	assert_int_equal(take(c, 1), 0);
	assert_int_equal(call(c, TGETLOCK, "dbqqds", ROOT, 1u, (uint64_t)5, (uint64_t)6, 7u, "client"), 0);
	assert_int_equal(take(c, 1), 2);
	assert_int_equal(take(c, 8), 5);
	assert_int_equal(take(c, 8), 6);
	assert_int_equal(call(c, TLOCK, "dbdqqds", 9u, 1u, 0u, (uint64_t)0, (uint64_t)0, 1u, "client"), EBADF);
	assert_int_equal(call(c, TSTATFS, "d", ROOT), 0);
	assert_int_equal(c->reply_size, 7 + 60);
	clunk(c, ROOT);
	assert_int_equal(call(c, TCLUNK, "d", ROOT), EBADF);
	end(c);
}

/* ---- files ---- */

static void files(void **state)
{
	struct client *c = plain();
	char text[64];

	(void)state;
	assert_int_equal(walk2(c, 2, "a", "file"), 0);
	assert_int_equal(read_all(c, 2, text, sizeof(text)), -EBADF); /* not open */
	assert_int_equal(call(c, TLOPEN, "dd", 2u, 3u), EINVAL);
	assert_int_equal(call(c, TLOPEN, "dd", 2u, (unsigned)O_RDWR), 0);
	assert_int_equal(call(c, TLOPEN, "dd", 2u, 0u), EINVAL); /* it is */
	assert_int_equal(read_all(c, 2, text, sizeof(text)), 7);
	assert_string_equal(text, "inside\n");
	begin(c, TWRITE, "dqd", 2u, (uint64_t)2, 3u);
	add(c, 'X' | 'Y' << 8 | 'Z' << 16, 3);
	store_le32(c->request, (uint32_t)c->size);
	assert_int_equal(send_bytes(c, c->size), 0);
	assert_int_equal(take(c, 4), 3);
	assert_int_equal(read_all(c, 2, text, sizeof(text)), 7);
	assert_string_equal(text, "inXYZe\n");
	/* More than the message has; more than a reply may be. */
	assert_int_equal(call(c, TWRITE, "dqd", 2u, (uint64_t)0, 4u), EINVAL);
	assert_int_equal(call(c, TREAD, "dqd", 2u, (uint64_t)0, 0xffffffffu), 0);
	assert_int_equal(take(c, 4), 7);
	assert_int_equal(call(c, TREAD, "dqd", 2u, UINT64_MAX, 1u), EINVAL);
	assert_int_equal(call(c, TREAD, "dqd", 2u, (uint64_t)100, 5u), 0);
	assert_int_equal(take(c, 4), 0);
	assert_int_equal(call(c, TFSYNC, "dd", 2u, 1u), 0);
	assert_int_equal(call(c, TFSYNC, "d", 2u), 0); /* as older clients say it */
	assert_int_equal(call(c, TWALK, "ddw", 2u, 3u, 0u), 0);
	assert_int_equal(call(c, TLOPEN, "dd", 3u, (unsigned)(O_WRONLY | O_TRUNC)), 0);
	assert_int_equal(read_all(c, 2, text, sizeof(text)), 0);
	assert_int_equal(read_all(c, 3, text, sizeof(text)), -EBADF);
	/* A FIFO would keep us waiting: it is the guest's. */
	assert_int_equal(walk1(c, ROOT, 4, "fifo"), 0);
	assert_int_equal(call(c, TLOPEN, "dd", 4u, 0u), ENXIO);
	end(c);
}

static void creates(void **state)
{
	struct client *c = plain();
	struct stat st;

	(void)state;
	assert_int_equal(call(c, TWALK, "ddw", ROOT, 2u, 0u), 0);
	assert_int_equal(call(c, TLCREATE, "dsddd", 2u, "a/b", (unsigned)O_RDWR, 0644u, 0u), EINVAL);
	assert_int_equal(call(c, TLCREATE, "dsddd", 2u, "..", (unsigned)O_RDWR, 0644u, 0u), EINVAL);
	assert_int_equal(call(c, TLCREATE, "dsddd", 2u, "new", (unsigned)O_RDWR, 06666u, 0u), 0);
	assert_int_equal(call(c, TLCREATE, "dsddd", 2u, "new", (unsigned)O_RDWR, 06666u, 0u),
			 EINVAL); /* it is a file now */
	assert_int_equal(stat(host(c, "new"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666); /* no umask of ours, and nothing that others would run as us */
	assert_int_equal(call(c, TWALK, "ddw", ROOT, 3u, 0u), 0);
	assert_int_equal(call(c, TLCREATE, "dsddd", 3u, "new", (unsigned)(O_RDWR | O_EXCL), 0644u, 0u), EEXIST);
	assert_int_equal(call(c, TLCREATE, "dsddd", 3u, "new", (unsigned)O_RDWR, 0600u, 0u),
			 0); /* what there is is opened */
	assert_int_equal(stat(host(c, "new"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	assert_int_equal(symlink("../outside/made", host(c, "way")), 0);
	assert_int_equal(call(c, TWALK, "ddw", ROOT, 4u, 0u), 0);
	assert_int_equal(call(c, TLCREATE, "dsddd", 4u, "way", (unsigned)O_RDWR, 0600u, 0u), ELOOP);
	assert_int_equal(call(c, TMKDIR, "dsdd", ROOT, "folder", 01777u, 0u), 0);
	assert_int_equal(stat(host(c, "folder"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 01777);
	assert_int_equal(call(c, TMKDIR, "dsdd", ROOT, "folder", 0755u, 0u), EEXIST);
	assert_int_equal(call(c, TMKNOD, "dsdddd", ROOT, "node", (unsigned)(S_IFCHR | 0666), 1u, 3u, 0u), EPERM);
	assert_int_equal(call(c, TMKNOD, "dsdddd", ROOT, "pipe", (unsigned)(S_IFIFO | 0644), 0u, 0u, 0u), 0);
	assert_int_equal(call(c, TSYMLINK, "dssd", ROOT, "link", "/etc/passwd", 0u), 0);
	assert_int_equal(walk1(c, ROOT, 5, "link"), 0);
	assert_int_equal(call(c, TREADLINK, "d", 5u), 0);
	assert_int_equal(take(c, 2), 11);
	assert_memory_equal(c->reply + c->at, "/etc/passwd", 11);
	assert_int_equal(call(c, TREADLINK, "d", ROOT), EINVAL);
	end(c);
}

static void attributes(void **state)
{
	struct client *c = plain();
	struct stat st;

	(void)state;
	assert_int_equal(walk2(c, 2, "a", "file"), 0);
	/* Mode, size and both times: one of them now. */
	assert_int_equal(call(c, TSETATTR,
			      "ddddd"
			      "qqqqq",
			      2u, 1u | 8 | 16 | 32 | 256, 04640u, 0u, 0u, (uint64_t)3, (uint64_t)0, (uint64_t)0,
			      (uint64_t)1000, (uint64_t)5),
			 0);
	assert_int_equal(stat(host(c, "a/file"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_size, 3);
	assert_true(st.st_mtim.tv_sec == 1000 && st.st_mtim.tv_nsec == 5 && st.st_atim.tv_sec > 1000);
	assert_int_equal(call(c, TSETATTR,
			      "ddddd"
			      "qqqqq",
			      2u, 32u | 256, 0u, 0u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)1,
			      (uint64_t)1000000000),
			 EINVAL);
	assert_int_equal(call(c, TSETATTR,
			      "ddddd"
			      "qqqqq",
			      2u, 8u, 0u, 0u, 0u, UINT64_MAX, (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)0),
			 EFBIG);
	assert_int_equal(call(c, TGETATTR, "dq", 2u, (uint64_t)0), 0);
	assert_int_equal(c->reply_size, 7 + 153);
	assert_int_equal(take(c, 8), 0x7ff);
	take(c, 5);
	assert_int_equal(take(c, 8), st.st_ino);
	assert_int_equal(take(c, 4), S_IFREG | 0640);
	assert_int_equal(take(c, 4), st.st_uid);
	take(c, 4);
	assert_int_equal(take(c, 8), 1);
	take(c, 8);
	assert_int_equal(take(c, 8), 3);
	end(c);
}

static void names(void **state)
{
	struct client *c = plain();

	(void)state;
	assert_int_equal(walk1(c, ROOT, 2, "a"), 0);
	assert_int_equal(walk2(c, 3, "a", "file"), 0);
	assert_int_equal(call(c, TLINK, "dds", ROOT, 3u, "second"), 0);
	assert_int_equal(call(c, TRENAMEAT, "dsds", ROOT, "second", 2u, "third"), 0);
	assert_int_equal(access(host(c, "a/third"), F_OK), 0);
	assert_int_equal(call(c, TRENAMEAT, "dsds", ROOT, "a", 2u, "inside-itself"), EINVAL);
	assert_int_equal(call(c, TRENAMEAT, "dsds", ROOT, "..", 2u, "x"), EINVAL);
	/* By the fid alone: where is it now? */
	assert_int_equal(rename(host(c, "a/third"), host(c, "fourth")), 0);
	assert_int_equal(walk1(c, ROOT, 4, "fourth"), 0);
	assert_int_equal(rename(host(c, "fourth"), host(c, "a/fifth")), 0);
	assert_int_equal(call(c, TRENAME, "dds", 4u, ROOT, "sixth"), 0);
	assert_int_equal(access(host(c, "sixth"), F_OK), 0);
	assert_int_equal(call(c, TRENAME, "dds", ROOT, ROOT, "root"), EBUSY);
	assert_int_equal(call(c, TREMOVE, "d", 4u), 0);
	assert_int_equal(call(c, TCLUNK, "d", 4u), EBADF);
	assert_int_not_equal(access(host(c, "sixth"), F_OK), 0);
	assert_int_equal(call(c, TUNLINKAT, "dsd", 2u, "b", 0u), EISDIR);
	assert_int_equal(call(c, TUNLINKAT, "dsd", 2u, "b", 1u), EINVAL);
	assert_int_equal(call(c, TUNLINKAT, "dsd", 2u, "b", (unsigned)AT_REMOVEDIR), 0);
	assert_int_equal(call(c, TUNLINKAT, "dsd", 2u, "out", 0u), 0);
	assert_int_equal(call(c, TUNLINKAT, "dsd", 2u, "file", 0u), 0);
	assert_int_equal(call(c, TGETATTR, "dq", 3u, (uint64_t)0), 0); /* as long as the fid lives */
	assert_int_equal(call(c, TREMOVE, "d", 3u), ENOENT);
	assert_int_equal(call(c, TREMOVE, "d", 3u), EBADF);
	end(c);
}

/* Every name once, by messages that have room for few; also behind a name that has gone meanwhile. */
static void folders(void **state)
{
	struct client *c = plain();
	unsigned seen[200] = { 0 }, rounds = 0;
	uint64_t cookie = 0;

	(void)state;
	run("cd '%s' && for n in $(seq 0 199); do : >a/b/name-$n; done", c->folder);
	assert_int_equal(walk2(c, 2, "a", "b"), 0);
	assert_int_equal(call(c, TREADDIR, "dqd", 2u, (uint64_t)0, 500u), EBADF);
	assert_int_equal(call(c, TLOPEN, "dd", 2u, (unsigned)O_DIRECTORY), 0);
	assert_int_equal(call(c, TREADDIR, "dqd", 2u, (uint64_t)0, 20u), EINVAL); /* not one */
	for (;; rounds++) {
		size_t left;

		assert_int_equal(call(c, TREADDIR, "dqd", 2u, cookie, 500u), 0);
		left = take(c, 4);
		assert_true(left <= 500);
		if (!left)
			break;
		while (c->at < 11 + left) {
			char name[256];
			unsigned n, length;

			take(c, 5), take(c, 8);
			cookie = take(c, 8);
			take(c, 1);
			length = (unsigned)take(c, 2);
			memcpy(name, c->reply + c->at, length);
			name[length] = 0;
			c->at += length;
			if (sscanf(name, "name-%u", &n) == 1)
				seen[n]++;
		}
		if (rounds == 3)
			assert_int_equal(unlink(host(c, "a/b/name-7")), 0);
	}
	for (unsigned n = 0; n < 200; n++)
		assert_true(seen[n] == 1 || (n == 7 && !seen[n]));
	assert_true(rounds > 10);
	end(c);
}

/* False, with a line that says so: the host has none here. */
static bool has_xattrs(struct client *c)
{
	if (!setxattr(c->folder, "user.test", "x", 1, 0) && !removexattr(c->folder, "user.test"))
		return true;
	print_message("no user attributes in /tmp: not tested\n");
	return false;
}

static int write_xattr(struct client *c, const char *name, const char *value, unsigned size)
{
	int rc;

	assert_int_equal(walk2(c, 20, "a", "file"), 0);
	rc = call(c, TXATTRCREATE, "dsqd", 20u, name, (uint64_t)size, 0u);
	if (!rc && *value) {
		begin(c, TWRITE, "dqd", 20u, (uint64_t)0, (unsigned)strlen(value));
		memcpy(c->request + c->size, value, strlen(value));
		c->size += strlen(value);
		store_le32(c->request, (uint32_t)c->size);
		rc = send_bytes(c, c->size);
	}
	return rc ? (clunk(c, 20), rc) : call(c, TCLUNK, "d", 20u);
}

static void xattrs(void **state)
{
	struct client *c = plain();
	char text[64];

	(void)state;
	if (!has_xattrs(c)) {
		end(c);
		return;
	}
	assert_int_equal(write_xattr(c, "user.name", "value", 5), 0);
	assert_int_equal(write_xattr(c, "user.short", "value", 6), EINVAL); /* less than was announced */
	assert_int_equal(write_xattr(c, "user.virtfs.mode", "1234", 4), EOPNOTSUPP);
	assert_int_equal(write_xattr(c, "security.name", "1234", 4), EOPNOTSUPP);
	assert_int_equal(write_xattr(c, "user.large", "", 65537), ENOSPC);
	assert_int_equal(setxattr(host(c, "a/file"), "user.virtfs.uid", "1234", 4, 0), 0);
	assert_int_equal(walk2(c, 2, "a", "file"), 0);
	assert_int_equal(call(c, TXATTRWALK, "dds", 2u, 3u, "user.name"), 0);
	assert_int_equal(take(c, 8), 5);
	assert_int_equal(read_all(c, 3, text, sizeof(text)), 5);
	assert_string_equal(text, "value");
	assert_int_equal(call(c, TGETATTR, "dq", 3u, (uint64_t)0), EBADF); /* no file */
	assert_int_equal(call(c, TXATTRWALK, "dds", 2u, 4u, ""), 0);
	assert_int_equal(take(c, 8), 10);
	assert_int_equal(read_all(c, 4, text, sizeof(text)), 10);
	assert_string_equal(text, "user.name"); /* and none that is not the guest's */
	assert_int_equal(call(c, TXATTRWALK, "dds", 2u, 5u, "user.nothing"), ENODATA);
	assert_int_equal(call(c, TXATTRWALK, "dds", 2u, 5u, "user.virtfs.uid"), EOPNOTSUPP);
	/* No bytes: removed. */
	assert_int_equal(write_xattr(c, "user.name", "", 0), 0);
	assert_int_equal(call(c, TXATTRWALK, "dds", 2u, 5u, "user.name"), ENODATA);
	/* The memory for them has a bound. */
	for (unsigned n = 0; n < 17; n++) {
		assert_int_equal(call(c, TWALK, "ddw", 2u, 40u + n, 0u), 0);
		assert_int_equal(call(c, TXATTRCREATE, "dsqd", 40u + n, "user.much", (uint64_t)65536, 0u),
				 n < 15 ? 0 : ENOSPC);
	}
	end(c);
}

static void mapped(void **state)
{
	struct client *c = plain();
	struct stat st;

	(void)state;
	if (!has_xattrs(c)) {
		end(c);
		return;
	}
	share_close(c->share);
	start(c, &(struct share_options){ .security = SHARE_SECURITY_MAPPED });
	assert_int_equal(call(c, TMKNOD, "dsdddd", ROOT, "node", (unsigned)(S_IFBLK | 0640), 8u, 17u, 6u), 0);
	assert_int_equal(lstat(host(c, "node"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_int_equal(walk1(c, ROOT, 2, "node"), 0);
	assert_int_equal(call(c, TSETATTR,
			      "ddddd"
			      "qqqqq",
			      2u, 1u | 2, 07700u, 1000u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)0,
			      (uint64_t)0),
			 0);
	assert_int_equal(call(c, TGETATTR, "dq", 2u, (uint64_t)0), 0);
	take(c, 8), take(c, 5), take(c, 8);
	assert_int_equal(take(c, 4), S_IFBLK | 07700);
	assert_int_equal(take(c, 4), 1000);
	assert_int_equal(take(c, 4), 6);
	take(c, 8);
	assert_int_equal(take(c, 8), 0x811);
	/* As QEMU writes them. */
	assert_int_equal(getxattr(host(c, "node"), "user.virtfs.rdev", &(char[8]){ 0 }, 8), 8);
	assert_int_equal(getxattr(host(c, "node"), "user.virtfs.mode", &(char[8]){ 0 }, 8), 4);
	assert_int_equal(call(c, TSYMLINK, "dssd", ROOT, "link", "target", 0u), 0);
	assert_int_equal(lstat(host(c, "link"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_int_equal(walk1(c, ROOT, 3, "link"), 0);
	take(c, 2);
	assert_int_equal(take(c, 1), 2);
	assert_int_equal(call(c, TREADLINK, "d", 3u), 0);
	assert_int_equal(take(c, 2), 6);
	end(c);
}

static void readonly(void **state)
{
	struct client *c = client(&(struct share_options){ .readonly = true });

	(void)state;
	assert_int_equal(walk2(c, 2, "a", "file"), 0);
	assert_int_equal(call(c, TLOPEN, "dd", 2u, (unsigned)O_RDWR), EROFS);
	assert_int_equal(call(c, TLOPEN, "dd", 2u, (unsigned)O_TRUNC), EROFS);
	assert_int_equal(call(c, TLOPEN, "dd", 2u, 0u), 0);
	for (const unsigned *type = (const unsigned[]){ TLCREATE, TSYMLINK, TMKNOD, TRENAME, TSETATTR, TXATTRCREATE,
							TLINK, TMKDIR, TRENAMEAT, TUNLINKAT, TWRITE, TREMOVE, 0 };
	     *type; type++)
		assert_int_equal(call(c, *type, "d", ROOT), EROFS);
	end(c);
}

/* ---- against the book ---- */

/* Every request cut off at every place: an error, and nothing that comes of it. */
static void cut_off(void **state)
{
	struct client *c = plain();

	(void)state;
	for (unsigned type = 0; type < 256; type++) {
		for (size_t size = 7; size < 40; size++) {
			begin(c, type, "qqqqqq", 0ull, 0ull, 0ull, 0ull, 0ull, 0ull);
			store_le32(c->request, (uint32_t)size);
			send_bytes(c, size);
		}
		begin(c, type, "dddd", ROOT, NO_FID, 0xffffffffu, 0xffffffffu); /* strings longer than the message */
		send_bytes(c, c->size);
		if (!call(c, TGETATTR, "dq", ROOT, (uint64_t)0))
			continue;
		share_reset(c->share);
		call(c, TVERSION, "ds", MSIZE, "9P2000.L");
		assert_int_equal(call(c, TATTACH, "ddssd", ROOT, NO_FID, "", "", 0u), 0);
	}
	end(c);
}

static void lengths(void **state)
{
	struct client *c = plain();
	struct iovec piece = { c->request, 6 }, room = { c->reply, 10 };
	size_t written = 0;

	(void)state;
	for (const uint32_t *size = (const uint32_t[]){ 0, 6, 24, 0x7fffffff, 0xffffffff, 1 }; *size != 1; size++) {
		begin(c, TGETATTR, "dq", ROOT, (uint64_t)0);
		store_le32(c->request, *size);
		assert_int_equal(send_bytes(c, 19), EPROTO);
	}
	begin(c, TGETATTR, "dq", ROOT, (uint64_t)0);
	store_le32(c->request, MSIZE + 1);
	assert_int_equal(send_bytes(c, MSIZE + 1), EMSGSIZE);
	/* Less room than the reply needs, and than any does. */
	c->room = 11;
	assert_int_equal(call(c, TGETATTR, "dq", ROOT, (uint64_t)0), EMSGSIZE);
	assert_int_equal(call(c, TGETATTR, "dq", 5u, (uint64_t)0), EBADF);
	assert_int_equal(share_serve(c->share, &(struct share_message){ &piece, &room, 1, 1, 6, 11 }, true, &written),
			 -EPROTO);
	assert_int_equal(share_serve(c->share, &(struct share_message){ &piece, &room, 1, 1, 19, 10 }, true, &written),
			 -EPROTO);
	end(c);
}

static void budget(void **state)
{
	struct client *c = client(&(struct share_options){ .fids = 16 });

	(void)state;
	for (unsigned n = 2; n <= 17; n++)
		assert_int_equal(call(c, TWALK, "ddw", ROOT, n, 0u), n <= 16 ? 0 : ENFILE);
	clunk(c, 9);
	assert_int_equal(call(c, TWALK, "ddw", ROOT, 9u, 0u), 0);
	assert_int_equal(share_fid_count(c->share), 16);
	share_reset(c->share);
	assert_int_equal(share_fid_count(c->share), 0);
	end(c);
}

static void refused(void **state)
{
	struct error err;

	(void)state;
	assert_null(share_open(&(struct share_options){ .folder = "/nowhere/at/all" }, &err));
	assert_string_equal(err.text, "share '/nowhere/at/all': open the folder: No such file or directory");
}

/* ---- while somebody else is at work ---- */

struct attacker {
	pthread_t thread;
	char one[256], other[256];
	atomic_bool stop;
};

static void *swap(void *opaque)
{
	struct attacker *a = opaque;

	while (!a->stop)
		syscall(SYS_renameat2, AT_FDCWD, a->one, AT_FDCWD, a->other, EXCHANGE);
	return NULL;
}

static void attack(struct attacker *a, struct client *c, const char *one, const char *other)
{
	a->stop = false;
	strcpy(a->one, host(c, one));
	strcpy(a->other, host(c, other));
	assert_int_equal(host_thread_create(&a->thread, "attacker", swap, a, NULL), 0);
}

static void attack_ends(struct attacker *a)
{
	a->stop = true;
	pthread_join(a->thread, NULL);
}

/* A folder that is a link out of the share at every other moment. */
static void swapped(void **state)
{
	struct client *c = plain();
	struct attacker attacker;
	unsigned reached = 0;
	char text[64];

	(void)state;
	assert_int_equal(symlink("../outside", host(c, "link")), 0);
	attack(&attacker, c, "a", "link");
	for (unsigned n = 0; n < 5000 || !reached; n++) {
		if (walk2(c, 2, "a", "file") || take(c, 2) < 2)
			continue;
		assert_int_equal(call(c, TLOPEN, "dd", 2u, 0u), 0);
		assert_int_equal(read_all(c, 2, text, sizeof(text)), 7);
		assert_string_equal(text, "inside\n");
		clunk(c, 2);
		reached++;
	}
	attack_ends(&attacker);
	end(c);
}

/* A file that is a link at every other moment, written to by name. */
static void swapped_file(void **state)
{
	struct client *c = plain();
	struct attacker attacker;
	struct stat st;
	char path[256];

	(void)state;
	assert_int_equal(symlink("../outside/file", host(c, "link")), 0);
	run("echo file >'%s/new'", c->folder);
	attack(&attacker, c, "new", "link");
	for (unsigned n = 0; n < 3000; n++) {
		assert_int_equal(call(c, TWALK, "ddw", ROOT, 2u, 0u), 0);
		call(c, TLCREATE, "dsddd", 2u, "new", (unsigned)(O_WRONLY | O_TRUNC), 0600u, 0u);
		clunk(c, 2);
	}
	attack_ends(&attacker);
	snprintf(path, sizeof(path), "%s/outside/file", c->base);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 8);
	end(c);
}

/* Up from a folder that moves from one to another at every other moment: to one of them, or nowhere. */
static void moved(void **state)
{
	struct client *c = plain();
	struct attacker attacker;
	struct stat inside[2];
	unsigned reached = 0;

	(void)state;
	run("mkdir -p '%s'/c/d", c->folder);
	assert_int_equal(stat(host(c, "a"), &inside[0]) || stat(host(c, "c"), &inside[1]), 0);
	assert_int_equal(walk2(c, 2, "a", "b"), 0);
	attack(&attacker, c, "a/b", "c/d");
	for (unsigned n = 0; n < 3000 || !reached; n++) {
		uint64_t inode;
		int rc = walk1(c, 2, 3, "..");

		assert_true(!rc || rc == ENOENT);
		if (rc)
			continue;
		take(c, 2), take(c, 5), inode = take(c, 8);
		assert_true(inode == inside[0].st_ino || inode == inside[1].st_ino);
		clunk(c, 3);
		reached++;
	}
	attack_ends(&attacker);
	end(c);
}

/* What the host has taken out of the folder is at hand, but there is no way from it to anything else there. */
static void taken_out(void **state)
{
	struct client *c = plain();

	(void)state;
	assert_int_equal(walk2(c, 2, "a", "b"), 0);
	run("cd '%s' && mv folder/a/b outside", c->base);
	assert_int_equal(call(c, TGETATTR, "dq", 2u, (uint64_t)0), 0);
	assert_int_equal(walk1(c, 2, 3, ".."), ENOENT);
	assert_int_equal(call(c, TRENAME, "dds", 2u, ROOT, "back"), ENOENT);
	assert_int_equal(call(c, TREMOVE, "d", 2u), ENOENT);
	end(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(versions),  cmocka_unit_test(walks),	     cmocka_unit_test(sessions),
		cmocka_unit_test(files),     cmocka_unit_test(creates),	     cmocka_unit_test(attributes),
		cmocka_unit_test(names),     cmocka_unit_test(folders),	     cmocka_unit_test(xattrs),
		cmocka_unit_test(mapped),    cmocka_unit_test(readonly),     cmocka_unit_test(cut_off),
		cmocka_unit_test(lengths),   cmocka_unit_test(budget),	     cmocka_unit_test(refused),
		cmocka_unit_test(swapped),   cmocka_unit_test(swapped_file), cmocka_unit_test(moved),
		cmocka_unit_test(taken_out),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
