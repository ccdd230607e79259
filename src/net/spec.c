/*
 * Taking a net's spec apart: KIND[:WHERE][,OPTION=VALUE...].
 */
#include "net/spec.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#define IFNAME_MAX 15

/* ---- values ---- */

static int wrong(const char *option, const char *value, const char *expected, struct error *err)
{
	return error_set(err, EINVAL, "option '%s' is '%.128s'; expected %s", option, value, expected);
}

static bool parse_number(const char *text, unsigned least, unsigned most, unsigned *number)
{
	char *rest;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &rest, 10);
	if (!isdigit((unsigned char)*text) || *rest || errno || n < least || n > most)
		return false;
	*number = (unsigned)n;
	return true;
}

static bool parse_port(const char *text, uint16_t *port)
{
	unsigned number;

	if (!parse_number(text, 1, 65535, &number))
		return false;
	*port = (uint16_t)number;
	return true;
}

/* "[ADDRESS:]PORT", an IPv6 address in brackets; without one it is 0, and *family AF_UNSPEC. */
static bool parse_place(char *text, struct net_place *place, int *family)
{
	char *colon = strrchr(text, ':');
	size_t length;

	*family = AF_UNSPEC;
	if (!colon || colon == text)
		return parse_port(colon ? colon + 1 : text, &place->port);
	*colon = 0;
	*family = AF_INET;
	length = strlen(text);
	if (*text == '[' && text[length - 1] == ']') {
		*family = AF_INET6;
		text[length - 1] = 0;
		text++;
	}
	return parse_port(colon + 1, &place->port) && inet_pton(*family, text, &place->address) == 1;
}

/* ---- forwards ---- */

#define FORWARD_HELP                                                                                                   \
	"tcp:[HOSTADDRESS:]PORT-[GUESTADDRESS:]PORT, the same with udp, or unix:PATH-[GUESTADDRESS:]PORT, with ports " \
	"from 1 to 65535 and either IPv4 addresses or IPv6 addresses in brackets"

static bool parse_ends(struct net_forward *f, char *text)
{
	int host_family = AF_INET, guest_family;
	char *dash = strrchr(text, '-');

	if (!dash)
		return false;
	*dash = 0;
	if (!parse_place(dash + 1, &f->guest, &guest_family))
		return false;
	if (f->kind != FORWARD_UNIX) {
		if (!parse_place(text, &f->host, &host_family))
			return false;
	} else {
		if (!*text || strlen(text) >= sizeof(f->path))
			return false;
		strcpy(f->path, text);
	}
	f->ip6 = host_family == AF_INET6 || guest_family == AF_INET6;
	/* Connections to a path come from an IPv4 address. */
	return !f->ip6 || (host_family != AF_INET && guest_family != AF_INET);
}

static const char *const forward_kinds[] = { "tcp:", "udp:", "unix:" };

static bool parse_forward(struct net_forward *f, const char *value)
{
	char *copy;
	bool good;

	*f = (struct net_forward){ 0 };
	for (unsigned kind = 0; kind < ARRAY_SIZE(forward_kinds); kind++) {
		size_t length = strlen(forward_kinds[kind]);

		if (strncmp(value, forward_kinds[kind], length) != 0)
			continue;
		f->kind = kind;
		copy = strdup(value + length);
		good = copy && parse_ends(f, copy);
		free(copy);
		return good;
	}
	return false;
}

static void print_place(char *text, size_t size, const struct net_forward *f, const struct net_place *place)
{
	char name[INET6_ADDRSTRLEN] = "";

	/* A port alone would be one of IPv4. */
	if (f->ip6) {
		inet_ntop(AF_INET6, &place->address.ip6, name, sizeof(name));
		snprintf(text, size, "[%s]:%u", name, place->port);
		return;
	}
	if (place->address.ip4.s_addr)
		inet_ntop(AF_INET, &place->address.ip4, name, sizeof(name));
	snprintf(text, size, "%s%s%u", name, *name ? ":" : "", place->port);
}

void net_forward_print(const struct net_forward *f, char *text, size_t size)
{
	char host[64], guest[64];

	print_place(host, sizeof(host), f, &f->host);
	print_place(guest, sizeof(guest), f, &f->guest);
	snprintf(text, size, "%s%s-%s", forward_kinds[f->kind], f->kind == FORWARD_UNIX ? f->path : host, guest);
}

static int set_forward(struct net_spec *spec, const char *value, struct error *err)
{
	struct net_user_spec *user = &spec->user;

	if (user->forward_count == NET_MOST_FORWARDS)
		return error_set(err, EINVAL, "option 'forward' is given more than %d times", NET_MOST_FORWARDS);
	if (!parse_forward(&user->forwards[user->forward_count], value))
		return wrong("forward", value, FORWARD_HELP, err);
	user->forward_count++;
	return 0;
}

/* When all options are known. */
static int check_forwards(const struct net_user_spec *user, struct error *err)
{
	char text[192];

	for (unsigned i = 0; i < user->forward_count; i++) {
		if (!user->forwards[i].ip6 || user->ip6)
			continue;
		net_forward_print(&user->forwards[i], text, sizeof(text));
		return error_set(err, EINVAL, "option 'forward' is '%s', but 'ipv6' is off", text);
	}
	return 0;
}

/* ---- other options ---- */

static int set_switch(bool *field, const char *option, const char *value, struct error *err)
{
	*field = !value || !strcmp(value, "on");
	return *field || !strcmp(value, "off") ? 0 : wrong(option, value, "on or off", err);
}

static int set_restrict(struct net_spec *spec, const char *value, struct error *err)
{
	return set_switch(&spec->user.restricted, "restrict", value, err);
}

static int set_ip6(struct net_spec *spec, const char *value, struct error *err)
{
	return set_switch(&spec->user.ip6, "ipv6", value, err);
}

static int set_server(struct net_spec *spec, const char *value, struct error *err)
{
	return set_switch(&spec->server, "server", value, err);
}

static int set_hostname(struct net_spec *spec, const char *value, struct error *err)
{
	/* It becomes a file's contents in guests: letters, digits, '-' and '.' are all that a name of a host has. */
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
	size_t length = strlen(value);

	if (!length || length >= sizeof(spec->user.hostname) || strspn(value, letters) != length)
		return wrong("hostname", value, "1 to 63 letters, digits, '-' and '.'", err);
	strcpy(spec->user.hostname, value);
	return 0;
}

static int set_dns(struct net_spec *spec, const char *value, struct error *err)
{
	if (inet_pton(AF_INET, value, &spec->user.dns) != 1)
		return wrong("dns", value, "an IPv4 address", err);
	return 0;
}

#define NETWORK	     0x0a000200u /* 10.0.2.0 */
#define NETWORK_BITS 24
/* So that it has room for the addresses in it. */
#define NETWORK_BITS_LEAST 8
#define NETWORK_BITS_MOST  27

static void set_network_bits(struct net_user_spec *user, unsigned width)
{
	user->mask.s_addr = htonl((uint32_t)(0xffffffffull << (32 - width)));
	user->network.s_addr &= user->mask.s_addr;
}

static int set_network(struct net_spec *spec, const char *value, struct error *err)
{
	const char *slash = strchr(value, '/');
	char address[INET_ADDRSTRLEN];
	unsigned width;

	if (slash && (size_t)(slash - value) < sizeof(address) &&
	    parse_number(slash + 1, NETWORK_BITS_LEAST, NETWORK_BITS_MOST, &width)) {
		snprintf(address, sizeof(address), "%.*s", (int)(slash - value), value);
		if (inet_pton(AF_INET, address, &spec->user.network) == 1) {
			set_network_bits(&spec->user, width);
			return 0;
		}
	}
	return wrong("net", value, "an IPv4 address and 8 to 27 bits, such as 10.0.2.0/24", err);
}

static int set_capture_size(struct net_spec *spec, const char *value, struct error *err)
{
	if (parse_number(value, 1, 1u << 20, &spec->capture_mib))
		return 0;
	return wrong("capture-size", value, "a number of MiB from 1 to 1048576", err);
}

static int set_mtu(struct net_spec *spec, const char *value, struct error *err)
{
	char expected[64];

	if (parse_number(value, NET_MTU_MIN, NET_MTU_MAX, &spec->mtu))
		return 0;
	snprintf(expected, sizeof(expected), "a number from %d to %d", NET_MTU_MIN, NET_MTU_MAX);
	return wrong("mtu", value, expected, err);
}

static int set_capture(struct net_spec *spec, const char *value, struct error *err)
{
	if (!*value || strlen(value) >= sizeof(spec->capture))
		return wrong("capture", value, "a path of at most 255 bytes", err);
	strcpy(spec->capture, value);
	return 0;
}

static int set_mac(struct net_spec *spec, const char *value, struct error *err)
{
	char rest;
	int n = sscanf(value, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", &spec->mac[0], &spec->mac[1], &spec->mac[2],
		       &spec->mac[3], &spec->mac[4], &spec->mac[5], &rest);

	if (n != 6 || strlen(value) != 17 || spec->mac[0] & 1)
		return wrong("mac", value, "six pairs of hexadecimal digits such as 52:54:00:12:34:56, no multicast",
			     err);
	spec->has_mac = true;
	return 0;
}

#define USER_ONLY   BIT(NET_USER)
#define STREAM_ONLY (BIT(NET_STREAM_UNIX) | BIT(NET_STREAM_TCP))
#define ANY_KIND    (~0ull)
#define FRAMES_SEEN (ANY_KIND & ~BIT(NET_VHOST_USER))

static const struct option {
	const char *name;
	int (*set)(struct net_spec *, const char *value, struct error *);
	bool is_switch;
	uint64_t kinds;
} options[] = {
	{ "forward", set_forward, false, USER_ONLY },
	{ "restrict", set_restrict, true, USER_ONLY },
	{ "hostname", set_hostname, false, ANY_KIND },
	{ "dns", set_dns, false, USER_ONLY },
	{ "net", set_network, false, USER_ONLY },
	{ "ipv6", set_ip6, true, USER_ONLY },
	{ "server", set_server, true, STREAM_ONLY },
	{ "mtu", set_mtu, false, ANY_KIND },
	{ "mac", set_mac, false, ANY_KIND },
	{ "capture", set_capture, false, FRAMES_SEEN },
	{ "capture-size", set_capture_size, false, FRAMES_SEEN },
};

static int unknown(const char *name, size_t length, unsigned kind, struct error *err)
{
	char names[256] = "";
	size_t used = 0;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (options[i].kinds & BIT(kind))
			used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "",
						 options[i].name);
	return error_set(err, EINVAL, "option '%.*s' is unknown; expected %s", (int)MIN(length, 64), name, names);
}

static int parse_option(struct net_spec *spec, char *text, struct error *err)
{
	size_t length = strcspn(text, "=");
	const char *value = text[length] ? text + length + 1 : NULL;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const struct option *o = &options[i];

		if (strlen(o->name) != length || strncmp(o->name, text, length) != 0 || !(o->kinds & BIT(spec->kind)))
			continue;
		if (!value && !o->is_switch)
			return error_set(err, EINVAL, "option '%s' has no value; expected %s=VALUE", o->name, o->name);
		return o->set(spec, value, err);
	}
	return unknown(text, length, spec->kind, err);
}

/* ---- kinds ---- */

static bool set_tcp(struct net_spec *spec, const char *where)
{
	const char *colon = strrchr(where, ':');
	uint16_t port;

	if (!colon || colon == where || !parse_port(colon + 1, &port))
		return false;
	/* An IPv6 address is in brackets. */
	if (*where == '[' && colon[-1] == ']')
		snprintf(spec->where, sizeof(spec->where), "%.*s", (int)(colon - where - 2), where + 1);
	else
		snprintf(spec->where, sizeof(spec->where), "%.*s", (int)(colon - where), where);
	snprintf(spec->port, sizeof(spec->port), "%u", port);
	return true;
}

static const struct kind {
	const char *name;
	bool has_where;
	size_t most; /* bytes of it */
} kinds[] = {
	[NET_USER] = { "user", false, 0 },
	[NET_STREAM_UNIX] = { "stream:unix:", true, NET_PATH_SIZE - 1 },
	[NET_STREAM_TCP] = { "stream:tcp:", true, 255 },
	[NET_TAP] = { "tap:", true, IFNAME_MAX },
	[NET_VHOST_USER] = { "vhost-user:", true, NET_PATH_SIZE - 1 },
	[NET_NONE] = { "none", false, 0 },
};

static int parse_kind(struct net_spec *spec, const char *text, struct error *err)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t length = strlen(kinds[i].name);
		const char *where = text + length;

		if (kinds[i].has_where ? strncmp(text, kinds[i].name, length) : strcmp(text, kinds[i].name))
			continue;
		spec->kind = i;
		if (kinds[i].has_where && (!*where || strlen(where) > kinds[i].most))
			break;
		if (i == NET_STREAM_TCP && !set_tcp(spec, where))
			break;
		if (i != NET_STREAM_TCP)
			strcpy(spec->where, where);
		return 0;
	}
	return error_set(err, EINVAL, "'%.128s' is no network; expected %s", text, NET_SPEC_HELP);
}

int net_spec_parse(const char *text, struct net_spec *spec, struct error *err)
{
	char *copy = strdup(text), *at = copy, *one;
	int rc;

	*spec = (struct net_spec){ .capture_mib = NET_CAPTURE_MIB,
				   .user = { .ip6 = true, .network.s_addr = htonl(NETWORK) } };
	set_network_bits(&spec->user, NETWORK_BITS);
	if (!copy)
		return error_set_errno(err, ENOMEM, "cannot look at '%.128s'", text);
	rc = parse_kind(spec, strsep(&at, ","), err);
	while (!rc && (one = strsep(&at, ",")))
		rc = parse_option(spec, one, err);
	if (!rc)
		rc = check_forwards(&spec->user, err);
	spec->user.mtu = spec->mtu ? spec->mtu : 1500;
	free(copy);
	return rc;
}
