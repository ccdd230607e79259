/*
 * -drive, -blockdev, -hda and their like: images, and the devices that some of them make by themselves.
 */
#include "qemu/private.h"

#include <errno.h>
#include <stdlib.h>

/* What is said of an image, by a -drive or a chain of -blockdevs; NULL: nothing. */
struct image {
	const char *file, *format, *cache, *on_error, *serial;
	bool readonly, snapshot, discard, direct, no_flush;
};

/* ---- files ---- */

static const char *after(const char *text, const char *prefix)
{
	size_t length = strlen(prefix);

	return strncmp(text, prefix, length) ? NULL : text + length;
}

/* A member of the image's file: "file.NAME" of a -drive, NAME of a node. */
static const char *take_of_file(struct qemu *q, struct group *g, const char *prefix, const char *name)
{
	return group_take(g, text_print(q, "%s%s", prefix, name));
}

/* NBD by its parts. */
static const char *nbd_file(struct qemu *q, struct group *g, const char *prefix)
{
	const char *export = take_of_file(q, g, prefix, "export"), *path = take_of_file(q, g, prefix, "server.path");
	const char *host = take_of_file(q, g, prefix, "server.host"), *port = take_of_file(q, g, prefix, "server.port");
	const char *before = export ? ":exportname=" : "";

	(void)take_of_file(q, g, prefix, "server.type");
	path = path ? path : take_of_file(q, g, prefix, "path");
	host = host ? host : take_of_file(q, g, prefix, "host");
	port = port ? port : take_of_file(q, g, prefix, "port");
	export = export ? export : "";
	if (path)
		return text_print(q, "nbd:unix:%s%s%s", path, before, export);
	return host ? text_print(q, "nbd:%s:%s%s%s", host, port ? port : "10809", before, export) : NULL;
}

/* Of the driver that has the file; 0, or refused. */
static int take_file(struct qemu *q, struct group *g, const char *prefix, const char *driver, struct image *image)
{
	if (!strcmp(driver, "file") || !strcmp(driver, "host_device") || !strcmp(driver, "host_cdrom"))
		image->file = take_of_file(q, g, prefix, "filename");
	else if (!strcmp(driver, "nbd"))
		image->file = nbd_file(q, g, prefix);
	else
		return refuse(q, "%s %s: doppel has no driver '%.64s'; expected file, host_device, nbd, raw or qcow2",
			      g->option, g->text, driver);
	return image->file ? 0 : refuse(q, "%s %s: there is no filename", g->option, g->text);
}

/* A name with a protocol that doppel does not have would be a file's. */
static int check_file(struct qemu *q, const struct group *g, struct image *image)
{
	static const char *const refused[] = {
		"json:",  "fat:", "http:",   "https:",	  "ftp:",     "ftps:",	   "ssh:",   "ssh+",
		"iscsi:", "rbd:", "gluster", "blkdebug:", "null-co:", "null-aio:", "vvfat:", "nfs:"
	};
	const char *file = image->file;

	for (size_t n = 0; file && n < ARRAY_SIZE(refused); n++)
		if (after(file, refused[n]))
			return refuse(
				q, "%s: '%.80s': expected a file, a block device, or nbd: (nbdkit serves many others)",
				g->option, file);
	if (file && after(file, "file:"))
		image->file = file + 5;
	return 0;
}

static int check_format(struct qemu *q, const struct group *g, const char *format)
{
	if (!format || !strcmp(format, "raw") || !strcmp(format, "qcow2") || !strcmp(format, "host_device") ||
	    !strcmp(format, "file"))
		return 0;
	return refuse(q,
		      "%s %s: doppel has no format '%.32s'; expected raw or qcow2 (qemu-img convert makes one of it)",
		      g->option, g->text, format);
}

static const char *doppel_format(const char *format)
{
	return format && (!strcmp(format, "raw") || !strcmp(format, "qcow2")) ? format : NULL;
}

/* ---- -blockdev ---- */

static int take_node(struct qemu *q, struct group *g, struct image *image, unsigned depth);

static int follow(struct qemu *q, const struct group *g, const char *name, struct image *image, unsigned depth)
{
	struct item *item = item_find(q, BIT(BLOCKDEV), name);

	if (!item || depth == 8)
		return refuse(q, "%s %s: there is no '-blockdev ...,node-name=%.64s'", g->option, g->text, name);
	item->taken = true;
	return take_node(q, &item->group, image, depth + 1);
}

static int take_format_node(struct qemu *q, struct group *g, const char *driver, struct image *image, unsigned depth)
{
	const char *file = group_take(g, "file"), *below = group_take(g, "file.driver");

	if (!image->format)
		image->format = driver;
	if (group_take(g, "backing"))
		log_warning("%s %s: the backing file is the one that the image names", g->option, g->text);
	if (file)
		return follow(q, g, file, image, depth);
	return below ? take_file(q, g, "file.", below, image)
		     : refuse(q, "%s %s: there is no file", g->option, g->text);
}

static int take_node(struct qemu *q, struct group *g, struct image *image, unsigned depth)
{
	const char *driver = group_take(g, "driver"), *discard = group_take(g, "discard"), *file = NULL;
	int rc;

	image->readonly |= group_switch(g, "read-only", false);
	image->direct |= group_switch(g, "cache.direct", false);
	image->no_flush |= group_switch(g, "cache.no-flush", false);
	image->discard |= discard && (!strcmp(discard, "unmap") || !strcmp(discard, "on"));
	driver = driver ? driver : "";
	if (!strcmp(driver, "raw") || !strcmp(driver, "qcow2")) {
		rc = take_format_node(q, g, driver, image, depth);
	} else if (!strcmp(driver, "throttle") || !strcmp(driver, "copy-on-read") || !strcmp(driver, "preallocate")) {
		log_warning("%s: driver %s has no effect", g->option, driver);
		file = group_take(g, "file");
		rc = file ? follow(q, g, file, image, depth) : refuse(q, "%s %s: there is no file", g->option, g->text);
	} else {
		rc = take_file(q, g, "", driver, image);
	}
	if (!rc)
		group_leftovers(q, g, driver);
	return rc;
}

/* ---- -drive ---- */

static int take_drive(struct qemu *q, struct group *g, struct image *image)
{
	const char *driver = group_take(g, "file.driver"), *discard = group_take(g, "discard");
	const char *locking = group_take(g, "file.locking");
	int rc = 0;

	image->file = group_take(g, "file");
	image->file = image->file ? image->file : group_take(g, "file.filename");
	if (driver && strcmp(driver, "file") != 0)
		rc = take_file(q, g, "file.", driver, image);
	image->format = group_take(g, "format");
	image->format = image->format ? image->format : group_take(g, "driver");
	image->cache = group_take(g, "cache");
	image->direct = group_switch(g, "cache.direct", false);
	image->no_flush = group_switch(g, "cache.no-flush", false);
	image->on_error = group_take(g, "werror");
	image->serial = group_take(g, "serial");
	image->readonly = group_switch(g, "readonly", false);
	image->readonly = group_switch(g, "read-only", image->readonly);
	image->snapshot = group_switch(g, "snapshot", q->snapshot);
	image->discard = discard && (!strcmp(discard, "unmap") || !strcmp(discard, "on"));
	if (locking && !strcmp(locking, "off"))
		log_warning("-drive: file.locking=off has no effect: doppel locks images");
	return rc;
}

/* QEMU's caches: what they add to these three is flushing without being asked, which guests do by themselves. */
static const struct {
	const char *name, *cache;
} caches[] = {
	{ "none", "none" },	  { "directsync", "none" }, { "writeback", NULL },
	{ "writethrough", NULL }, { "unsafe", "unsafe" },
};

static const char *cache_of(const struct image *image)
{
	for (size_t n = 0; image->cache && n < ARRAY_SIZE(caches); n++)
		if (!strcmp(caches[n].name, image->cache))
			return caches[n].cache;
	return image->no_flush ? "unsafe" : image->direct ? "none" : NULL;
}

/* Options that every disk has; discs have file and format alone. */
static void add_image(struct qemu *q, struct spec *s, const struct image *image, bool disc)
{
	const char *format = doppel_format(image->format);

	spec_add(q, s, "file", image->file);
	spec_add(q, s, "format", format);
	if (disc)
		return;
	spec_add(q, s, "cache", cache_of(image));
	/* QEMU opens what images name. */
	spec_add(q, s, "backing", format && !strcmp(format, "raw") ? NULL : "any");
	spec_add(q, s, "readonly", image->readonly ? "on" : NULL);
	spec_add(q, s, "snapshot", image->snapshot ? "on" : NULL);
	spec_add(q, s, "discard", image->discard ? "on" : NULL);
	spec_add(q, s, "serial", image->serial);
	if (image->on_error && (!strcmp(image->on_error, "stop") || !strcmp(image->on_error, "enospc")))
		spec_add(q, s, "on-error", image->on_error);
}

int drive_describe(struct qemu *q, struct spec *s, const char *option, const char *id, bool disc)
{
	struct item *item = item_find(q, BIT(DRIVE) | BIT(BLOCKDEV), id);
	struct image image = { 0 };
	int rc;

	if (!item)
		return refuse(q, "%s: there is no '-drive ...,id=%.64s' and no '-blockdev ...,node-name=%.64s'", option,
			      id, id);
	item->taken = true;
	rc = item->kind == DRIVE ? take_drive(q, &item->group, &image) : take_node(q, &item->group, &image, 0);
	rc = rc ? rc : check_file(q, &item->group, &image);
	rc = rc ? rc : check_format(q, &item->group, image.format);
	if (!rc && !disc && !image.file)
		rc = refuse(q, "%s %s: there is no file", item->group.option, item->group.text);
	if (rc)
		return rc;
	if (item->kind == DRIVE) {
		(void)group_take(&item->group, "if");
		(void)group_take(&item->group, "media");
		(void)group_take(&item->group, "index");
		group_leftovers(q, &item->group, id);
	}
	add_image(q, s, &image, disc);
	return 0;
}

/* ---- drives that are devices by themselves ---- */

static int emit_flash(struct qemu *q, const struct image *image, unsigned unit)
{
	if (unit > 1 || !image->file)
		return refuse(q, "-drive if=pflash: expected a file for unit 0, the firmware, and one for unit 1, its "
				 "variables");
	if (unit)
		q->nvram = image->file;
	else
		q->firmware = image->file;
	return 0;
}

/* Interfaces of -drive. */
enum place { VIRTIO, IDE, SCSI, FLOPPY };
static const struct {
	const char *name;
	enum place place;
	const char *disk, *disc; /* doppel's devices; disc NULL: there is none */
} places[] = {
	{ "virtio", VIRTIO, "virtio-blk", NULL },
	{ "ide", IDE, "ide-disk", "ide-cd" },
	{ "scsi", SCSI, "scsi-disk", "scsi-cd" },
	{ "floppy", FLOPPY, "floppy", NULL },
};

/* A drive's number, by its index, or bus and unit; -1: in turn. */
static int number_of(struct group *g)
{
	const char *index = group_take(g, "index"), *bus = group_take(g, "bus"), *unit = group_take(g, "unit");

	if (index)
		return atoi(index);
	return unit ? 2 * (bus ? atoi(bus) : 0) + atoi(unit) : -1;
}

static int emit_drive(struct qemu *q, struct group *g)
{
	const char *interface = group_take(g, "if"), *media = group_take(g, "media");
	bool disc = media && !strcmp(media, "cdrom"), flash = interface && !strcmp(interface, "pflash");
	struct image image = { 0 };
	struct spec s;
	int number = number_of(g), rc = take_drive(q, g, &image);
	size_t n = 0;

	/* The PC's interface, which a q35 has as AHCI. */
	interface = interface ? interface : "ide";
	while (n < ARRAY_SIZE(places) && strcmp(places[n].name, interface) != 0)
		n++;
	if (n == ARRAY_SIZE(places) && !flash)
		return refuse(q, "-drive if=%.32s: expected virtio, ide, scsi, floppy, pflash or none", interface);
	rc = rc ? rc : check_file(q, g, &image);
	rc = rc ? rc : check_format(q, g, image.format);
	if (rc)
		return rc;
	group_leftovers(q, g, g->text);
	if (flash)
		return emit_flash(q, &image, number < 0 ? q->firmware != NULL : (unsigned)number);
	if (!image.file && !disc)
		return 0; /* an empty drive, which only discs have here */
	if (disc && !places[n].disc)
		n = IDE;
	spec_begin(q, &s, disc ? places[n].disc : places[n].disk);
	add_image(q, &s, &image, disc);
	if (places[n].place == IDE && number >= 0 && number < 4)
		spec_add(q, &s, "unit", text_print(q, "%d", number));
	spec_emit(q, &s, "--device");
	return 0;
}

int drives_finish(struct qemu *q)
{
	int rc = 0;

	for (unsigned n = 0; !rc && n < q->item_count; n++) {
		struct item *item = &q->items[n];
		const char *interface = NULL;

		for (unsigned p = 0; p < item->group.count; p++)
			if (!strcmp(item->group.pairs[p].name, "if"))
				interface = item->group.pairs[p].value;
		if (item->kind != DRIVE || item->taken || (interface && !strcmp(interface, "none")))
			continue;
		rc = emit_drive(q, &item->group);
	}
	return rc;
}

/* ---- short forms ---- */

/* A file's name as a value of a list: its commas are doubled. */
static const char *doubled(struct qemu *q, const char *file)
{
	char *to = text_room(q, 2 * strlen(file) + 1), *at = to;

	for (; to && *file; file++) {
		*at++ = *file;
		if (*file == ',')
			*at++ = ',';
	}
	return to ? to : "";
}

static int add_short(struct qemu *q, const char *rest, const char *file)
{
	return item_add(q, DRIVE, "-drive", NULL, text_print(q, "file=%s,%s", doubled(q, file), rest));
}

int option_hard_disk(struct qemu *q, const char *file, unsigned index)
{
	return add_short(q, text_print(q, "if=ide,index=%u", index), file);
}

int option_cdrom(struct qemu *q, const char *value) { return add_short(q, "if=ide,index=2,media=cdrom", value); }

int option_floppy(struct qemu *q, const char *value, unsigned index)
{
	return add_short(q, text_print(q, "if=floppy,index=%u", index), value);
}

int option_pflash(struct qemu *q, const char *value) { return add_short(q, "if=pflash", value); }
