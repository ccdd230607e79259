/*
 * Who has a port of this host, as far as /proc tells: its socket's inode in /proc/net, then the process that has that among its descriptors.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#define TCP_LISTENS 0x0a /* its state in /proc/net/tcp */

/* A row of /proc/net/tcp or udp, and of their IPv6 forms: the inode of a socket that is bound to the port; 0: it is another one. */
static uint64_t row_inode(const char *row, bool udp, struct in_addr address, uint16_t port)
{
	char local[40];
	unsigned local_port, state;
	uint64_t inode;
	uint32_t bound;

	if (sscanf(row, " %*d: %39[0-9A-F]:%x %*s %x %*s %*s %*s %*d %*d %" SCNu64, local, &local_port, &state,
		   &inode) != 4)
		return 0;
	if (local_port != port || (!udp && state != TCP_LISTENS))
		return 0;
	bound = strlen(local) == 8 ? (uint32_t)strtoul(local, NULL, 16) : 0;
	return !bound || !address.s_addr || bound == address.s_addr ? inode : 0;
}

static uint64_t find_inode(const char *path, bool udp, struct in_addr address, uint16_t port)
{
	FILE *file = fopen(path, "re");
	uint64_t inode = 0;
	char row[512];

	if (!file)
		return 0;
	while (!inode && fgets(row, sizeof(row), file))
		inode = row_inode(row, udp, address, port);
	fclose(file);
	return inode;
}

static bool has_socket(const char *process, const char *wanted)
{
	char path[300], target[64];
	const struct dirent *entry;
	bool found = false;
	DIR *folder;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%.32s/fd", process);
	folder = opendir(path);
	if (!folder)
		return false;
	while (!found && (entry = readdir(folder))) {
		n = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
		target[MAX(n, 0)] = 0;
		found = !strcmp(target, wanted);
	}
	closedir(folder);
	return found;
}

static void name_process(const char *process, char *text, size_t size)
{
	char path[64], name[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%.32s/comm", process);
	file = fopen(path, "re");
	if (file) {
		if (!fgets(name, sizeof(name), file))
			*name = 0;
		fclose(file);
	}
	name[strcspn(name, "\n")] = 0;
	snprintf(text, size, " by %s (process %.32s)", name, process);
}

void host_port_owner(bool udp, bool ip6, uint32_t be_address, uint16_t port, char *text, size_t size)
{
	struct in_addr address = { be_address };
	uint64_t inode = ip6 ? 0 : find_inode(udp ? "/proc/net/udp" : "/proc/net/tcp", udp, address, port);
	const struct dirent *entry;
	char wanted[48];
	DIR *folder;

	*text = 0;
	/* A socket of IPv6 may have the port of IPv4, too. */
	if (!inode)
		inode = find_inode(udp ? "/proc/net/udp6" : "/proc/net/tcp6", udp, address, port);
	folder = inode ? opendir("/proc") : NULL;
	if (!folder)
		return;
	snprintf(wanted, sizeof(wanted), "socket:[%" PRIu64 "]", inode);
	while (!*text && (entry = readdir(folder)))
		if (isdigit((unsigned char)*entry->d_name) && has_socket(entry->d_name, wanted))
			name_process(entry->d_name, text, size);
	closedir(folder);
}
