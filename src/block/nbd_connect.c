/*
 * To an NBD server: what an address says, the connection, and what both sides agree on before the first request.
 */
#define _GNU_SOURCE
#include "block/nbd.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAGIC	     0x4e42444d41474943ull /* "NBDMAGIC" */
#define MAGIC_OPTION 0x49484156454f5054ull /* "IHAVEOPT" */
#define MAGIC_REPLY  0x3e889045565a9ull

#define FIXED_NEWSTYLE BIT(0)
#define NO_ZEROES      BIT(1)

#define OPTION_GO	  7u
#define OPTION_STRUCTURED 8u

#define REPLY_ACK   1u
#define REPLY_INFO  3u
#define REPLY_ERROR BIT(31)
#define REPLY_TLS   (BIT(31) + 5)

#define INFO_EXPORT	0
#define INFO_BLOCK_SIZE 3

#define REPLY_MAX 4096u /* bytes of an answer to an option */

/* ---- addresses ---- */

static char *copy_part(const char *from, size_t size) { return strndup(from, size); }

/* HOST[:PORT], the host in brackets if it has colons. */
static void split_host(const char *text, size_t size, struct nbd_address *a)
{
	const char *end = text + size, *colon = memrchr(text, ':', size), *bracket = memrchr(text, ']', size);

	if (!colon || (bracket && colon < bracket))
		colon = end;
	a->port = colon < end ? copy_part(colon + 1, (size_t)(end - colon - 1)) : strdup("10809");
	if (bracket && *text == '[')
		a->host = copy_part(text + 1, (size_t)(bracket - text - 1));
	else
		a->host = copy_part(text, (size_t)(colon - text));
}

static void parse_url(const char *rest, struct nbd_address *a)
{
	const char *slash = strchrnul(rest, '/');

	split_host(rest, (size_t)(slash - rest), a);
	a->export = strdup(*slash ? slash + 1 : "");
}

/* NAME?socket=PATH */
static void parse_unix_url(const char *rest, struct nbd_address *a)
{
	const char *query = strstr(rest, "?socket=");

	if (!query)
		return;
	a->export = copy_part(rest, (size_t)(query - rest));
	a->path = strdup(query + 8);
}

static void parse_words(const char *rest, struct nbd_address *a)
{
	const char *name = strstr(rest, ":exportname=");
	size_t size = name ? (size_t)(name - rest) : strlen(rest);

	a->export = strdup(name ? name + 12 : "");
	if (!strncmp(rest, "unix:", 5))
		a->path = copy_part(rest + 5, size - 5);
	else
		split_host(rest, size, a);
}

int nbd_parse(const char *uri, struct nbd_address *a, struct error *err)
{
	*a = (struct nbd_address){ 0 };
	if (!strncmp(uri, "nbd+unix:///", 12))
		parse_unix_url(uri + 12, a);
	else if (!strncmp(uri, "nbd://", 6))
		parse_url(uri + 6, a);
	else
		parse_words(uri + 4, a);
	if (a->export && ((a->path && *a->path) || (a->host && *a->host && a->port && *a->port)))
		return 0;
	nbd_address_free(a);
	return error_set(err, EINVAL,
			 "'%s' is no address; expected nbd:unix:PATH, nbd:HOST:PORT, nbd://HOST/NAME or "
			 "nbd+unix:///NAME?socket=PATH",
			 uri);
}

void nbd_address_free(struct nbd_address *a)
{
	free(a->path);
	free(a->host);
	free(a->port);
	free(a->export);
	*a = (struct nbd_address){ 0 };
}

/* ---- bytes ---- */

int nbd_receive(int fd, void *to, size_t size)
{
	char *at = to;

	while (size) {
		ssize_t n = recv(fd, at, size, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (!n)
			return -ECONNRESET;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

int nbd_send(int fd, const void *from, size_t size)
{
	const char *at = from;

	while (size) {
		ssize_t n = send(fd, at, size, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

/* ---- the connection ---- */

void nbd_set_patience(int fd, unsigned seconds)
{
	struct timeval most = { .tv_sec = seconds };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
}

/* Connecting takes no longer, either: patience is set before. */
static int connect_unix(const char *path, unsigned patience, struct error *err)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd, code;

	if (strlen(path) >= sizeof(to.sun_path))
		return error_set(err, EINVAL, "'%s' has %zu bytes; a Unix socket's name has at most %zu", path,
				 strlen(path), sizeof(to.sun_path) - 1);
	memcpy(to.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	nbd_set_patience(fd, patience);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&to, sizeof(to)))
		return fd;
	code = errno;
	if (fd >= 0)
		close(fd);
	return error_set_errno(err, code, "cannot connect to '%s'", path);
}

static int connect_tcp(const char *host, const char *port, unsigned patience, struct error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	int rc = getaddrinfo(host, port, &hints, &list), code = 0, fd = -1, one = 1;

	if (rc)
		return error_set(err, EHOSTUNREACH, "cannot find '%s' port '%s': %s", host, port, gai_strerror(rc));
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
		nbd_set_patience(fd, patience);
		if (fd >= 0 && !connect(fd, a->ai_addr, a->ai_addrlen))
			break;
		code = errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	if (fd < 0)
		return error_set_errno(err, code, "cannot connect to '%s' port '%s'", host, port);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* ---- agreeing ---- */

struct answer {
	uint32_t type, size;
	uint8_t data[REPLY_MAX];
};

static int send_option(int fd, uint32_t option, const void *data, size_t size)
{
	uint8_t head[16];
	int rc;

	store_be64(head, MAGIC_OPTION);
	store_be32(head + 8, option);
	store_be32(head + 12, (uint32_t)size);
	rc = nbd_send(fd, head, sizeof(head));
	return rc ? rc : nbd_send(fd, data, size);
}

static int receive_answer(int fd, uint32_t option, struct answer *answer)
{
	uint8_t head[20];
	int rc = nbd_receive(fd, head, sizeof(head));

	if (rc)
		return rc;
	answer->type = load_be32(head + 12);
	answer->size = load_be32(head + 16);
	if (load_be64(head) != MAGIC_REPLY || load_be32(head + 8) != option || answer->size >= REPLY_MAX)
		return -EPROTO;
	rc = nbd_receive(fd, answer->data, answer->size);
	answer->data[answer->size] = 0;
	return rc;
}

static void take_info(const struct answer *answer, struct nbd_export *e)
{
	uint16_t type = answer->size >= 2 ? load_be16(answer->data) : 0xffff;

	if (type == INFO_EXPORT && answer->size >= 12) {
		e->size = load_be64(answer->data + 2);
		e->flags = load_be16(answer->data + 10);
	}
	if (type == INFO_BLOCK_SIZE && answer->size >= 14) {
		e->least = load_be32(answer->data + 2);
		e->most = load_be32(answer->data + 10);
	}
}

/* 0: no such export, or whatever the server says. */
static int refused(const struct nbd_address *a, const struct answer *answer, struct error *err)
{
	if (answer->type == REPLY_TLS)
		return error_set(err, ENOTSUP, "export '%s': the server wants TLS, which doppel does not have",
				 a->export);
	return error_set(err, ENOENT, "export '%s': the server refuses it%s%.200s", a->export, answer->size ? ": " : "",
			 (const char *)answer->data);
}

static int go(int fd, const struct nbd_address *a, struct nbd_export *e, struct answer *answer, struct error *err)
{
	size_t length = strlen(a->export), size = length + 8;
	uint8_t data[REPLY_MAX] = { 0 };
	int rc;

	if (size > sizeof(data))
		return error_set(err, EINVAL, "an export's name of %zu bytes is too long", length);
	store_be32(data, (uint32_t)length);
	memcpy(data + 4, a->export, length);
	store_be16(data + 4 + length, 1);
	store_be16(data + 6 + length, INFO_BLOCK_SIZE);
	rc = send_option(fd, OPTION_GO, data, size);
	while (!rc) {
		rc = receive_answer(fd, OPTION_GO, answer);
		if (rc || answer->type == REPLY_ACK)
			break;
		if (answer->type != REPLY_INFO)
			return refused(a, answer, err);
		take_info(answer, e);
	}
	return rc ? error_set_errno(err, -rc, "the NBD server's answers") : 0;
}

static int greet(int fd, struct nbd_export *e, struct answer *answer, struct error *err)
{
	uint8_t hello[18], flags[4];
	int rc = nbd_receive(fd, hello, sizeof(hello));

	if (!rc && (load_be64(hello) != MAGIC || load_be64(hello + 8) != MAGIC_OPTION ||
		    !(load_be16(hello + 16) & FIXED_NEWSTYLE)))
		return error_set(err, EPROTO, "what answers is no NBD server, or one of before 2011");
	store_be32(flags, FIXED_NEWSTYLE | (load_be16(hello + 16) & NO_ZEROES));
	if (!rc)
		rc = nbd_send(fd, flags, sizeof(flags));
	if (!rc)
		rc = send_option(fd, OPTION_STRUCTURED, NULL, 0);
	if (!rc)
		rc = receive_answer(fd, OPTION_STRUCTURED, answer);
	e->structured = !rc && answer->type == REPLY_ACK;
	return rc ? error_set_errno(err, -rc, "the NBD server's answers") : 0;
}

int nbd_connect(const struct nbd_address *a, struct nbd_export *e, unsigned patience, struct error *err)
{
	struct answer *answer = malloc(sizeof(*answer));
	int fd, rc;

	if (!answer)
		return error_set_errno(err, ENOMEM, "connect to an NBD server");
	*e = (struct nbd_export){ .least = 1, .most = 32u << 20 };
	fd = a->path ? connect_unix(a->path, patience, err) : connect_tcp(a->host, a->port, patience, err);
	rc = fd < 0 ? fd : greet(fd, e, answer, err);
	if (!rc)
		rc = go(fd, a, e, answer, err);
	if (!rc && (e->least > BLOCK_SECTOR || e->most < BLOCK_SECTOR))
		rc = error_set(err, ENOTSUP, "export '%s': requests of %u to %u bytes; expected 512 to be possible",
			       a->export, e->least, e->most);
	free(answer);
	if (!rc)
		return fd;
	if (fd >= 0)
		close(fd);
	return rc;
}
