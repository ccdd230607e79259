/*
 * -netdev, -nic, -net: doppel's network specifications.
 */
#include "qemu/private.h"

#include <errno.h>
#include <stdlib.h>

/* "tcp:[HOSTADDRESS]:PORT-[GUESTADDRESS]:PORT" is doppel's "tcp:[HOSTADDRESS:]PORT-[GUESTADDRESS:]PORT". */
static int add_forward(struct qemu *q, struct bytes *spec, const char *value)
{
	char protocol[4] = "tcp", host[64] = "", guest[64] = "";
	const char *at = value, *dash;
	unsigned from, to;

	if (!strncmp(at, "tcp:", 4) || !strncmp(at, "udp:", 4)) {
		memcpy(protocol, at, 3);
		at += 4;
	} else if (*at == ':') {
		at++;
	}
	dash = strrchr(at, '-');
	if (!dash || (sscanf(at, ":%u", &from) != 1 && sscanf(at, "%63[^:-]:%u", host, &from) != 2) ||
	    (sscanf(dash + 1, ":%u", &to) != 1 && sscanf(dash + 1, "%63[^:]:%u", guest, &to) != 2))
		return refuse(q, "hostfwd=%.100s: expected [tcp|udp]:[HOSTADDRESS]:PORT-[GUESTADDRESS]:PORT", value);
	if (!strcmp(host, "0.0.0.0"))
		*host = 0;
	at = text_print(q, ",forward=%s:%s%s%u-%s%s%u", protocol, host, *host ? ":" : "", from, guest,
			*guest ? ":" : "", to);
	q->no_memory |= !bytes_add(spec, at, strlen(at));
	return 0;
}

static void add(struct qemu *q, struct bytes *spec, const char *format, const char *value)
{
	const char *text = value ? text_print(q, format, value) : "";

	q->no_memory |= !bytes_add(spec, text, strlen(text));
}

static int make_user(struct qemu *q, struct group *g, struct bytes *spec)
{
	int rc = 0;

	add(q, spec, "%s", "user");
	if (group_switch(g, "restrict", false))
		add(q, spec, "%s", ",restrict");
	if (!group_switch(g, "ipv6", true))
		add(q, spec, "%s", ",ipv6=off");
	add(q, spec, ",hostname=%s", group_take(g, "hostname"));
	add(q, spec, ",net=%s", group_take(g, "net"));
	for (unsigned n = 0; !rc && n < g->count; n++) {
		struct pair *p = &g->pairs[n];

		if (strncmp(p->name, "hostfwd", 7) != 0)
			continue;
		p->used = true;
		rc = add_forward(q, spec, p->value);
	}
	return rc;
}

static int make_stream(struct qemu *q, struct group *g, struct bytes *spec)
{
	const char *path = group_take(g, "addr.path"), *host = group_take(g, "addr.host"),
		   *port = group_take(g, "addr.port");

	(void)group_take(g, "addr.type");
	if (!path && !(host && port))
		return refuse(q, "%s %s: expected addr.path, or addr.host and addr.port", g->option, g->text);
	add(q, spec, "stream:unix:%s", path);
	if (!path)
		add(q, spec, "stream:tcp:%s", text_print(q, "%s:%s", host, port));
	if (group_switch(g, "server", false))
		add(q, spec, "%s", ",server");
	return 0;
}

/* Its frames are those of a stream. */
static int make_socket(struct qemu *q, struct group *g, struct bytes *spec)
{
	const char *listen = group_take(g, "listen"), *connect = group_take(g, "connect"),
		   *where = listen ? listen : connect;

	if (!where)
		return refuse(q, "%s %s: expected listen=[HOST]:PORT or connect=HOST:PORT", g->option, g->text);
	add(q, spec, "stream:tcp:%s", *where == ':' ? text_print(q, "0.0.0.0%s", where) : where);
	if (listen)
		add(q, spec, "%s", ",server");
	return 0;
}

static int make_tap(struct qemu *q, struct group *g, struct bytes *spec)
{
	const char *name = group_take(g, "ifname");

	if (!name)
		return refuse(q, "%s %s: expected ifname=NAME, a tap device of this user's", g->option, g->text);
	add(q, spec, "tap:%s", name);
	return 0;
}

static int make_vhost_user(struct qemu *q, struct group *g, struct bytes *spec)
{
	const char *path = chardev_path(q, g->option, group_take(g, "chardev"));

	(void)group_take(g, "queues");
	add(q, spec, "vhost-user:%s", path);
	return path ? 0 : -EINVAL;
}

static const struct {
	const char *type;
	int (*make)(struct qemu *, struct group *, struct bytes *spec);
} kinds[] = {
	{ "user", make_user }, { "stream", make_stream },	  { "socket", make_socket },
	{ "tap", make_tap },   { "vhost-user", make_vhost_user },
};

/* The specification of a group whose type is known, ended by what belongs to the card. */
static const char *make(struct qemu *q, struct group *g, const char *mac, const char *mtu)
{
	const char *type = group_take(g, "type"), *text = NULL;
	struct bytes spec = { 0 };
	int rc = -ENOENT;

	for (size_t n = 0; type && n < ARRAY_SIZE(kinds); n++)
		if (!strcmp(kinds[n].type, type))
			rc = kinds[n].make(q, g, &spec);
	if (rc == -ENOENT)
		refuse(q, "%s %s: doppel has no such network; expected user, stream, socket, tap or vhost-user",
		       g->option, g->text);
	add(q, &spec, ",mac=%s", mac);
	add(q, &spec, ",mtu=%s", mtu);
	if (!rc)
		text = text_print(q, "%.*s", (int)spec.size, (const char *)spec.data);
	free(spec.data);
	if (text)
		group_leftovers(q, g, type);
	return text;
}

const char *net_spec_of(struct qemu *q, const char *option, const char *id, const char *mac, const char *mtu)
{
	struct item *item = id ? item_find(q, BIT(NETDEV), id) : NULL;

	if (!id)
		return text_print(q, "none%s%s", mac ? ",mac=" : "", mac ? mac : "");
	if (!item || item->taken) {
		refuse(q, "%s: there is no '-netdev ...,id=%.64s'%s", option, id, item ? " that is free" : "");
		return NULL;
	}
	item->taken = true;
	return make(q, &item->group, mac, mtu);
}

int option_nic(struct qemu *q, const char *value)
{
	if (!strcmp(value, "none")) {
		q->no_net = true;
		return 0;
	}
	return item_add(q, NIC, "-nic", "type", value);
}

/* The old way: "nic,..." and "user,..." are two of a hub; here the n-th of one is the n-th of the other. */
int option_net(struct qemu *q, const char *value)
{
	struct item *item;

	if (!strcmp(value, "none")) {
		q->no_net = true;
		return 0;
	}
	if (!strncmp(value, "nic", 3) && (!value[3] || value[3] == ','))
		return item_add(q, NIC, "-net", "type", value);
	if (item_add(q, NETDEV, "-net", "type", value))
		return -EINVAL;
	item = &q->items[q->item_count - 1];
	(void)group_take(&item->group, "name");
	return 0;
}

/* The first network of -net that no card has. */
static struct item *free_net(struct qemu *q)
{
	for (unsigned n = 0; n < q->item_count; n++)
		if (q->items[n].kind == NETDEV && !q->items[n].taken && !strcmp(q->items[n].group.option, "-net"))
			return &q->items[n];
	return NULL;
}

static int finish_card(struct qemu *q, struct group *g)
{
	const char *mac = group_take(g, "macaddr"), *model = group_take(g, "model"), *id = group_take(g, "netdev"),
		   *spec;
	struct item *net = !strcmp(g->option, "-net") ? free_net(q) : NULL;
	struct spec s;

	mac = mac ? mac : group_take(g, "mac");
	/* QEMU's card, when none is chosen, is one for which a guest needs no driver of virtio's. */
	if (model && strncmp(model, "virtio", 6) != 0)
		return refuse(q, "%s: model=%.32s: doppel has virtio's card alone; expected model=virtio-net-pci",
			      g->option, model);
	if (net) {
		net->taken = true;
		(void)group_take(g, "type");
		spec = make(q, &net->group, mac, NULL);
	} else if (!strcmp(g->option, "-net")) {
		(void)group_take(g, "type");
		spec = net_spec_of(q, "-net nic", id, mac, NULL);
	} else {
		spec = make(q, g, mac, NULL);
	}
	if (!spec)
		return -EINVAL;
	spec_begin(q, &s, "virtio-net");
	spec_add(q, &s, "net", spec);
	spec_emit(q, &s, "--device");
	group_leftovers(q, g, "nic");
	return 0;
}

int nets_finish(struct qemu *q)
{
	bool asked = false;
	int rc = 0;

	for (unsigned n = 0; !rc && n < q->item_count; n++) {
		asked |= q->items[n].kind == NIC || q->items[n].kind == NETDEV;
		if (q->items[n].kind == NIC)
			rc = finish_card(q, &q->items[n].group);
	}
	/* Every PC of QEMU's has a card on the user network, unless something is said of networks. */
	if (!rc && !asked && !q->no_net && !q->no_defaults && !q->no_machine)
		word_add(q, "--net", "user");
	return rc;
}
