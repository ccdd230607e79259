/*
 * Sockets that others connect to: at a path, and by TCP.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int set_address(struct sockaddr_un *address, const char *path, struct error *err)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path))
		return error_set(err, ENAMETOOLONG, "the path has %zu bytes; at most %zu are allowed", strlen(path),
				 sizeof(address->sun_path) - 1);
	memcpy(address->sun_path, path, strlen(path));
	return 0;
}

static int create_socket(struct error *err)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? error_set_errno(err, errno, "cannot create a socket") : fd;
}

int host_unix_connect(const char *path, struct error *err)
{
	struct sockaddr_un address;
	int rc = set_address(&address, path, err), fd, code;

	if (rc)
		return rc;
	fd = create_socket(err);
	if (fd < 0 || !connect(fd, (const struct sockaddr *)&address, sizeof(address)))
		return fd;
	code = errno;
	close(fd);
	return error_set_errno(err, code, "cannot connect to '%s'", path);
}

int host_unix_remove_stale(const char *path, struct error *err)
{
	struct stat st;
	int fd;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : error_set_errno(err, errno, "cannot examine '%s'", path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, EEXIST, "'%s' exists and is no socket", path);
	fd = host_unix_connect(path, NULL);
	if (fd >= 0)
		close(fd);
	if (fd != -ECONNREFUSED)
		return error_set(err, EADDRINUSE, "another process listens on '%s'", path);
	if (unlink(path))
		return error_set_errno(err, errno, "cannot remove the old socket '%s'", path);
	return 0;
}

int host_unix_listen(struct host_listener *listener, const char *path, struct error *err)
{
	struct sockaddr_un address;
	struct stat st;
	int rc;

	*listener = (struct host_listener){ .fd = -1 };
	rc = set_address(&address, path, err);
	if (!rc)
		rc = host_unix_remove_stale(path, err);
	if (rc)
		return rc;
	memcpy(listener->path, address.sun_path, sizeof(listener->path));
	listener->fd = create_socket(err);
	if (listener->fd < 0)
		return listener->fd;
	(void)fchmod(listener->fd, S_IRUSR | S_IWUSR); /* its file will have that mode */
	if (bind(listener->fd, (const struct sockaddr *)&address, sizeof(address))) {
		rc = error_set_errno(err, errno, "cannot bind a socket to '%s'", path);
	} else {
		if (!lstat(path, &st)) {
			listener->bound = true;
			listener->device = st.st_dev;
			listener->inode = st.st_ino;
		}
		rc = listen(listener->fd, 1) ? error_set_errno(err, errno, "cannot listen on '%s'", path) : 0;
	}
	if (rc)
		host_unix_unlisten(listener);
	return rc;
}

void host_unix_unlisten(struct host_listener *listener)
{
	struct stat st;

	if (listener->fd >= 0)
		close(listener->fd);
	listener->fd = -1;
	if (listener->bound && !lstat(listener->path, &st) && st.st_dev == listener->device &&
	    st.st_ino == listener->inode)
		unlink(listener->path);
	listener->bound = false;
}

/* ---- TCP ---- */

int host_tcp_listen(const struct addrinfo *a, int backlog, const char *where, const char *port, struct error *err)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)a->ai_addr;
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), code;
	char owner[128] = "";
	const int on = 1;

	if (fd < 0)
		return error_set_errno(err, errno, "cannot create a socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, backlog))
		return fd;
	code = errno;
	close(fd);
	if (code != EADDRINUSE)
		return error_set_errno(err, code, "cannot listen on %s port %s", where, port);
	host_port_owner(false, a->ai_family == AF_INET6, a->ai_family == AF_INET ? in->sin_addr.s_addr : INADDR_ANY,
			ntohs(in->sin_port), owner, sizeof(owner));
	return error_set(err, code, "port %s is already in use%s", port, owner);
}

/* Takes "HOST:PORT" apart; an IPv6 address is in brackets. */
static int resolve(char *where, int flags, struct addrinfo **list, const char **host, const char **port,
		   struct error *err)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = flags };
	char *colon = strrchr(where, ':');
	size_t length = colon ? (size_t)(colon - where) : 0;
	int code;

	if (!length || !colon[1])
		return error_set(err, EINVAL, "'%.128s' is no address; expected HOST:PORT", where);
	*colon = 0;
	*port = colon + 1;
	*host = where;
	if (*where == '[' && where[length - 1] == ']') {
		where[length - 1] = 0;
		++*host;
	}
	code = getaddrinfo(*host, *port, &hints, list);
	return code ? error_set(err, EINVAL, "'%.128s' port %.16s: %s", *host, *port, gai_strerror(code)) : 0;
}

static int connect_tcp(const struct addrinfo *a, const char *host, const char *port, struct error *err)
{
	int fd = -1, code = EINVAL;

	for (; a; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && !connect(fd, a->ai_addr, a->ai_addrlen))
			return fd;
		code = errno;
		if (fd >= 0)
			close(fd);
	}
	return error_set_errno(err, code, "cannot connect to %s port %s", host, port);
}

int host_tcp_open(const char *where, bool listens, int backlog, struct error *err)
{
	const char *host = where, *port = "";
	struct addrinfo *list = NULL;
	char copy[NI_MAXHOST];
	int fd;

	if (strlen(where) >= sizeof(copy))
		return error_set(err, EINVAL, "'%.64s...' is too long for HOST:PORT", where);
	strcpy(copy, where);
	fd = resolve(copy, listens ? AI_PASSIVE : 0, &list, &host, &port, err);
	if (fd || !list)
		return fd;
	fd = listens ? host_tcp_listen(list, backlog, host, port, err) : connect_tcp(list, host, port, err);
	freeaddrinfo(list);
	if (fd >= 0)
		(void)host_set_nonblocking(fd, true);
	return fd;
}
