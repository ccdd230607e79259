/* qemu: what its files share. */
#ifndef DOPPEL_QEMU_PRIVATE_H
#define DOPPEL_QEMU_PRIVATE_H

#include "qemu/qemu.h"

/* ---- lists of NAME=VALUE (group.c) ---- */

struct pair {
	const char *name, *value;
	bool used;
};
struct group {
	const char *option; /* "-drive" */
	const char *text;   /* as the user wrote it */
	struct pair *pairs;
	unsigned count;
};

enum item_kind {
	DRIVE,
	BLOCKDEV,
	CHARDEV,
	NETDEV,
	NIC,
	FSDEV,
	OBJECT,
	DEVICE,
	SERIAL,
	PARALLEL,
	MONITOR,
	QMP,
	ITEM_KINDS
};
/* An option that others may refer to, or that refers to others: kept until all are known. */
struct item {
	enum item_kind kind;
	struct group group;
	bool taken; /* by what refers to it */
};
#define ITEMS_MOST 256

struct qemu {
	struct qemu_line *line;
	struct error *err;
	bool no_memory;
	struct item items[ITEMS_MOST];
	unsigned item_count;
	/* What is known when all options are. */
	const char *kernel, *firmware, *nvram, *vga, *cpu;
	struct bytes boot; /* of --boot */
	unsigned cpus;
	bool no_defaults, no_graphic, snapshot, pure, no_machine, no_net, memory_given, displayed, q35;
	bool kvm, tcg;	/* asked for */
	unsigned uarts; /* made so far */
	bool stdio_taken;
};

/* A text that lives as long as the line; "" without memory, which is noted. */
const char *text_print(struct qemu *, const char *format, ...) printf_like(2, 3);
/* Memory that does, zeros; NULL without, which is noted. */
void *text_room(struct qemu *, size_t size);
/* A sentence for the user: 0 and -EINVAL, for who returns it. */
int refuse(struct qemu *, const char *format, ...) printf_like(2, 3);

/* "A=B,C", the first word's name is `first` unless it has one (NULL: all have names); or a JSON object, whose members' members are "a.b". 0 or -EINVAL. */
int group_parse(struct qemu *, struct group *, const char *option, const char *first, const char *text);
/* The value, which is not left over then; NULL: there is none. */
const char *group_take(struct group *, const char *name);
/* "on", "yes", "true"; "off", "no", "false". */
bool group_switch(struct group *, const char *name, bool by_default);
/* What nobody has taken: nothing where keys.c says that it is harmless, else a line. */
void group_leftovers(struct qemu *, struct group *, const char *what);

/* ---- doppel's words ---- */

/* Both live as long as the line; value NULL: a switch. */
void word_add(struct qemu *, const char *option, const char *value);
/* NAME,OPTION=VALUE...: begins with a name; values that are NULL add nothing. */
struct spec {
	struct bytes text;
};
void spec_begin(struct qemu *, struct spec *, const char *name);
void spec_add(struct qemu *, struct spec *, const char *name, const char *value);
/* Commas of the value are its own kind's, and stay single: network specifications for --net. */
void spec_emit(struct qemu *, struct spec *, const char *option);

/* ---- items ---- */

/* Takes the item of one of the kinds (bits) whose id or node-name it is; NULL: there is none. */
struct item *item_find(struct qemu *, unsigned kinds, const char *id);
int item_add(struct qemu *, enum item_kind, const char *option, const char *first, const char *text);

/* ---- by topic ---- */

/* drives.c: adds file, format, cache and so on of the drive that `id` names to a device. */
int drive_describe(struct qemu *, struct spec *, const char *option, const char *id, bool disc);
/* Those that no device names. */
int drives_finish(struct qemu *);
int option_hard_disk(struct qemu *, const char *file, unsigned index);
int option_cdrom(struct qemu *, const char *value);
int option_floppy(struct qemu *, const char *value, unsigned index);
int option_pflash(struct qemu *, const char *value);

/* chardevs.c: doppel's spec of the character device with this id; or of what -serial and its like take. NULL: refused, or "" : nothing is connected. */
const char *chardev_spec(struct qemu *, const char *option, const char *id);
int chardevs_finish(struct qemu *);
/* The socket of a vhost-user back end. */
const char *chardev_path(struct qemu *, const char *option, const char *id);

/* nets.c: doppel's specification of the netdev. */
const char *net_spec_of(struct qemu *, const char *option, const char *id, const char *mac, const char *mtu);
int nets_finish(struct qemu *);
int option_net(struct qemu *, const char *value);
int option_nic(struct qemu *, const char *value);

/* devices.c */
int devices_finish(struct qemu *);
const char *device_list(struct qemu *);
/* "NAME,help" */
const char *device_properties(struct qemu *, const char *name);

/* board.c: the machine, its processors and memory */
int option_machine(struct qemu *, const char *value);
int option_accel(struct qemu *, const char *value);
int option_kvm(struct qemu *, const char *value);
int option_cpu(struct qemu *, const char *value);
int option_smp(struct qemu *, const char *value);
int option_memory(struct qemu *, const char *value);
int option_boot(struct qemu *, const char *value);
int board_finish(struct qemu *);

/* keys.c: does it do no harm to leave this out? */
bool key_is_harmless(const char *option, const char *name, const char *value);

/* help.c */
const char *help_version(struct qemu *);
const char *help_of(struct qemu *, const char *option); /* what "OPTION help" prints; NULL: nothing */

#endif
