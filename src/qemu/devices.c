/*
 * -device: each of QEMU's devices that tools ask for, and what it is here.
 */
#define _GNU_SOURCE /* memmem */
#include "devices/devices.h"

#include "qemu/private.h"

#include <errno.h>
#include <stdlib.h>

/* ---- what a device's properties become ---- */

/* Those of many devices. */
static void add_virtio(struct qemu *q, struct spec *s, struct group *g, const char *name)
{
	size_t length = strlen(name);
	const char *legacy = group_take(g, "disable-legacy");
	bool modern = length > 17 && !strcmp(name + length - 17, "-non-transitional");

	if (length > 7 && !strcmp(name + length - 7, "-device"))
		spec_add(q, s, "transport", "mmio");
	if (modern || (legacy && (!strcmp(legacy, "on") || !strcmp(legacy, "true"))))
		spec_add(q, s, "legacy", "off");
	if (group_switch(g, "packed", false))
		spec_add(q, s, "packed", "on");
}

static void add_boot(struct qemu *q, struct spec *s, struct group *g)
{
	const char *index = group_take(g, "bootindex");

	if (index && atoi(index) >= 0 && atoi(index) < 99)
		spec_add(q, s, "boot", text_print(q, "%d", atoi(index) + 1));
}

static int fill_virtio(struct qemu *q, struct spec *s, struct group *g)
{
	(void)q, (void)s, (void)g;
	return 0;
}

static int fill_image(struct qemu *q, struct spec *s, struct group *g, bool disc)
{
	const char *drive = group_take(g, "drive"), *serial = group_take(g, "serial");
	int rc = 0;

	if (drive)
		rc = drive_describe(q, s, g->option, drive, disc);
	else if (!disc)
		rc = refuse(q, "%s %s: expected drive=ID", g->option, g->text);
	if (rc)
		return rc;
	/* A disk with the interface "none" has its number here. */
	if (!disc && serial && !memmem(s->text.data, s->text.size, ",serial=", 8))
		spec_add(q, s, "serial", serial);
	(void)group_take(g, "wwn");
	(void)group_take(g, "discard");
	add_boot(q, s, g);
	return 0;
}

static int fill_disk(struct qemu *q, struct spec *s, struct group *g) { return fill_image(q, s, g, false); }

static void add_target(struct qemu *q, struct spec *s, struct group *g)
{
	const char *target = group_take(g, "scsi-id");

	if (target && atoi(target) >= 0)
		spec_add(q, s, "target", text_print(q, "%d", atoi(target) + 1));
}

static int fill_scsi_disk(struct qemu *q, struct spec *s, struct group *g)
{
	add_target(q, s, g);
	return fill_image(q, s, g, false);
}

static int fill_scsi_cd(struct qemu *q, struct spec *s, struct group *g)
{
	spec_add(q, s, "bus", "scsi");
	add_target(q, s, g);
	return fill_image(q, s, g, true);
}

/* "ide.1" and unit 0 are the third place. */
static void add_unit(struct qemu *q, struct spec *s, struct group *g)
{
	const char *bus = group_take(g, "bus"), *unit = group_take(g, "unit");
	const char *dot = bus ? strrchr(bus, '.') : NULL;
	int number = 2 * (dot && !strncmp(bus, "ide.", 4) ? atoi(dot + 1) : 0) + (unit ? atoi(unit) : 0);

	if (unit && number >= 0 && number < 4)
		spec_add(q, s, "unit", text_print(q, "%d", number));
}

static int fill_ide_disk(struct qemu *q, struct spec *s, struct group *g)
{
	add_unit(q, s, g);
	return fill_image(q, s, g, false);
}

static int fill_ide_cd(struct qemu *q, struct spec *s, struct group *g)
{
	add_unit(q, s, g);
	return fill_image(q, s, g, true);
}

static int fill_vhost_disk(struct qemu *q, struct spec *s, struct group *g)
{
	const char *path = chardev_path(q, g->option, group_take(g, "chardev"));

	if (!path)
		return -EINVAL;
	spec_add(q, s, "file", text_print(q, "vhost-user:%s", path));
	add_boot(q, s, g);
	return 0;
}

static int fill_net(struct qemu *q, struct spec *s, struct group *g)
{
	const char *id = group_take(g, "netdev"), *mac = group_take(g, "mac"), *mtu = group_take(g, "host_mtu");
	const char *spec = net_spec_of(q, g->option, id, mac, mtu);

	if (!spec)
		return -EINVAL;
	(void)group_take(g, "bootindex"); /* doppel's cards start nothing */
	spec_add(q, s, "net", spec);
	return 0;
}

static int fill_chardev(struct qemu *q, struct spec *s, struct group *g)
{
	const char *id = group_take(g, "chardev"), *spec = id ? chardev_spec(q, g->option, id) : "";

	if (!spec)
		return -EINVAL;
	(void)group_take(g, "name");
	spec_add(q, s, "chardev", *spec ? spec : NULL);
	return 0;
}

static int fill_port(struct qemu *q, struct spec *s, struct group *g)
{
	const char *name = group_take(g, "name");

	spec_add(q, s, "name", name ? name : text_print(q, "port%u", q->item_count));
	return fill_chardev(q, s, g);
}

static int fill_uart(struct qemu *q, struct spec *s, struct group *g)
{
	const char *index = group_take(g, "index");

	if (index && atoi(index) >= 0 && atoi(index) < UART_COUNT)
		spec_add(q, s, "port", text_print(q, "%d", atoi(index) + 1));
	(void)group_take(g, "iobase");
	(void)group_take(g, "irq");
	q->uarts++;
	return fill_chardev(q, s, g);
}

static int fill_debug_console(struct qemu *q, struct spec *s, struct group *g)
{
	(void)group_take(g, "iobase"); /* both of 0xe9 and 0x402 are there */
	return fill_chardev(q, s, g);
}

static int fill_debug_exit(struct qemu *q, struct spec *s, struct group *g)
{
	const char *base = group_take(g, "iobase");

	(void)s;
	(void)group_take(g, "iosize");
	if (!base || strtoul(base, NULL, 0) != 0xf4)
		return refuse(q, "%s isa-debug-exit: iobase=%s; expected iobase=0xf4", g->option,
			      base ? base : "0x501");
	return 0;
}

static int fill_balloon(struct qemu *q, struct spec *s, struct group *g)
{
	(void)q, (void)s, (void)g;
	return 0;
}

static int fill_share(struct qemu *q, struct spec *s, struct group *g)
{
	const char *id = group_take(g, "fsdev"), *tag = group_take(g, "mount_tag"), *security, *driver, *path;
	struct item *item = id ? item_find(q, BIT(FSDEV), id) : NULL;

	if (!item)
		return refuse(q, "%s virtio-9p: there is no '-fsdev ...,id=%.64s'", g->option, id ? id : "");
	driver = group_take(&item->group, "fsdriver");
	path = group_take(&item->group, "path");
	if (!driver || strcmp(driver, "local") != 0 || !path)
		return refuse(q, "-fsdev %s: expected local,path=FOLDER", item->group.text);
	security = group_take(&item->group, "security_model");
	security = security ? security : "none";
	if (!strcmp(security, "mapped-file"))
		return refuse(q, "-fsdev: security_model=mapped-file: expected none, passthrough or mapped-xattr");
	spec_add(q, s, "folder", path);
	spec_add(q, s, "tag", tag);
	if (group_switch(&item->group, "readonly", false))
		spec_add(q, s, "readonly", "on");
	if (!strncmp(security, "mapped", 6))
		spec_add(q, s, "security", "mapped");
	item->taken = true;
	group_leftovers(q, &item->group, id);
	return 0;
}

static int fill_file_share(struct qemu *q, struct spec *s, struct group *g)
{
	const char *path = chardev_path(q, g->option, group_take(g, "chardev"));

	if (!path)
		return -EINVAL;
	spec_add(q, s, "folder", text_print(q, "vhost-user:%s", path));
	spec_add(q, s, "tag", group_take(g, "tag"));
	return 0;
}

static int fill_pmem(struct qemu *q, struct spec *s, struct group *g)
{
	const char *id = group_take(g, "memdev"), *path;
	struct item *item = id ? item_find(q, BIT(OBJECT), id) : NULL;

	path = item ? group_take(&item->group, "mem-path") : NULL;
	if (!path)
		return refuse(q, "%s %s: expected memdev=ID of '-object memory-backend-file,mem-path=FILE'", g->option,
			      g->text);
	(void)group_take(&item->group, "size");
	spec_add(q, s, "file", path);
	if (!group_switch(&item->group, "share", false) || group_switch(&item->group, "readonly", false))
		spec_add(q, s, "readonly", "on");
	return 0;
}

static int fill_vga(struct qemu *q, struct spec *s, struct group *g)
{
	spec_add(q, s, "width", group_take(g, "xres"));
	spec_add(q, s, "height", group_take(g, "yres"));
	q->vga = "device";
	return 0;
}

/* ---- the table ---- */

enum how {
	MAKES,	  /* doppel's device */
	IS_THERE, /* already, or comes with others */
	HAS_NOT,  /* a line says so, and the guest goes without */
	REFUSES,  /* so that something would be missing */
};
#define NAMES 5
static const struct row {
	const char *section, *names[NAMES];
	enum how how;
	const char *to; /* doppel's device; or why */
	int (*fill)(struct qemu *, struct spec *, struct group *);
} rows[] = {
	{ "Controller/Bridge/Hub",
	  { "pcie-root-port", "ioh3420", "pci-bridge", "pcie-pci-bridge", "pxb" },
	  IS_THERE,
	  "there is one PCI bus",
	  NULL },
	{ "Controller/Bridge/Hub",
	  { "dmi-to-pci-bridge", "i82801b11-bridge", "pcie-root-port-base" },
	  IS_THERE,
	  "there is one PCI bus",
	  NULL },
	{ "USB",
	  { "qemu-xhci", "nec-usb-xhci", "piix3-usb-uhci", "piix4-usb-uhci", "usb-ehci" },
	  HAS_NOT,
	  "there is no USB; keyboard and mouse are of PS/2",
	  NULL },
	{ "USB",
	  { "ich9-usb-ehci1", "ich9-usb-uhci1", "ich9-usb-uhci2", "ich9-usb-uhci3", "pci-ohci" },
	  HAS_NOT,
	  "there is no USB; keyboard and mouse are of PS/2",
	  NULL },
	{ "Storage",
	  { "virtio-blk-pci", "virtio-blk", "virtio-blk-pci-non-transitional", "virtio-blk-pci-transitional",
	    "virtio-blk-device" },
	  MAKES,
	  "virtio-blk",
	  fill_disk },
	{ "Storage",
	  { "virtio-scsi-pci", "virtio-scsi", "virtio-scsi-pci-non-transitional", "virtio-scsi-pci-transitional",
	    "virtio-scsi-device" },
	  MAKES,
	  "virtio-scsi",
	  fill_virtio },
	{ "Storage", { "scsi-hd", "scsi-disk", "scsi-block" }, MAKES, "scsi-disk", fill_scsi_disk },
	{ "Storage", { "scsi-cd" }, MAKES, "scsi-cd", fill_scsi_cd },
	{ "Storage", { "ide-hd", "ide-drive" }, MAKES, "ide-disk", fill_ide_disk },
	{ "Storage", { "ide-cd" }, MAKES, "ide-cd", fill_ide_cd },
	{ "Storage",
	  { "piix3-ide", "piix4-ide", "ahci", "ich9-ahci" },
	  IS_THERE,
	  "comes with its first drive, as IDE",
	  NULL },
	{ "Storage", { "isa-fdc" }, IS_THERE, "comes with its first drive", NULL },
	{ "Storage", { "floppy" }, MAKES, "floppy", fill_disk },
	{ "Storage", { "vhost-user-blk-pci", "vhost-user-blk" }, MAKES, "virtio-blk", fill_vhost_disk },
	{ "Storage", { "virtio-9p-pci", "virtio-9p", "virtio-9p-device" }, MAKES, "virtio-9p", fill_share },
	{ "Storage", { "vhost-user-fs-pci", "vhost-user-fs" }, MAKES, "virtio-9p", fill_file_share },
	{ "Storage",
	  { "nvme", "usb-storage", "sd-card", "megasas", "lsi53c895a" },
	  REFUSES,
	  "expected virtio-blk-pci, virtio-scsi-pci with scsi-hd, or ide-hd",
	  NULL },
	{ "Network",
	  { "virtio-net-pci", "virtio-net", "virtio-net-pci-non-transitional", "virtio-net-pci-transitional",
	    "virtio-net-device" },
	  MAKES,
	  "virtio-net",
	  fill_net },
	{ "Network", { "e1000", "e1000-82540em" }, MAKES, "e1000", fill_net },
	{ "Network", { "rtl8139" }, MAKES, "rtl8139", fill_net },
	{ "Network", { "ne2k_pci", "ne2k_isa" }, MAKES, "ne2000", fill_net },
	{ "Network", { "e1000e", "pcnet", "i82551", "vmxnet3", "usb-net" }, REFUSES, "expected virtio-net-pci", NULL },
	{ "Input",
	  { "virtio-serial-pci", "virtio-serial", "virtio-serial-pci-non-transitional", "virtio-serial-device",
	    "virtio-serial-pci-transitional" },
	  IS_THERE,
	  "comes with its ports",
	  NULL },
	{ "Input", { "virtserialport" }, MAKES, "virtio-port", fill_port },
	{ "Input", { "virtconsole" }, MAKES, "virtio-console", fill_chardev },
	{ "Input", { "isa-serial" }, MAKES, "uart", fill_uart },
	{ "Input",
	  { "usb-tablet", "usb-kbd", "usb-mouse", "virtio-keyboard-pci", "virtio-tablet-pci" },
	  HAS_NOT,
	  "keyboard and mouse are of PS/2",
	  NULL },
	{ "Input",
	  { "virtio-mouse-pci", "usb-redir", "usb-ccid", "pci-serial", "isa-parallel" },
	  HAS_NOT,
	  "there is none",
	  NULL },
	{ "Display", { "VGA" }, MAKES, "vga", fill_vga },
	{ "Display",
	  { "bochs-display", "cirrus-vga", "qxl-vga", "virtio-vga", "vmware-svga" },
	  MAKES,
	  "vga",
	  fill_vga },
	{ "Display",
	  { "qxl", "virtio-gpu-pci", "secondary-vga", "ramfb", "virtio-vga-gl" },
	  HAS_NOT,
	  "there is the standard VGA",
	  NULL },
	{ "Sound",
	  { "intel-hda", "ich9-intel-hda", "hda-duplex", "hda-micro", "hda-output" },
	  HAS_NOT,
	  "there is no sound",
	  NULL },
	{ "Sound", { "AC97", "ES1370", "sb16", "adlib", "gus" }, HAS_NOT, "there is no sound", NULL },
	{ "Misc",
	  { "virtio-rng-pci", "virtio-rng", "virtio-rng-pci-non-transitional", "virtio-rng-pci-transitional",
	    "virtio-rng-device" },
	  MAKES,
	  "virtio-rng",
	  fill_virtio },
	{ "Misc",
	  { "virtio-balloon-pci", "virtio-balloon", "virtio-balloon-pci-non-transitional",
	    "virtio-balloon-pci-transitional", "virtio-balloon-device" },
	  MAKES,
	  "virtio-balloon",
	  fill_balloon },
	{ "Misc", { "virtio-pmem-pci", "nvdimm" }, MAKES, "virtio-pmem", fill_pmem },
	{ "Misc", { "isa-debugcon" }, MAKES, "debug-console", fill_debug_console },
	{ "Misc", { "isa-debug-exit" }, MAKES, "debug-exit", fill_debug_exit },
	{ "Misc", { "pc-testdev" }, MAKES, "pc-testdev", fill_virtio },
	{ "Misc", { "i6300esb", "ib700", "pvpanic", "pvpanic-pci", "vmcoreinfo" }, HAS_NOT, "there is none", NULL },
	{ "Misc",
	  { "intel-iommu", "virtio-iommu-pci", "amd-iommu", "vmgenid", "hyperv-testdev" },
	  HAS_NOT,
	  "there is none",
	  NULL },
	{ "Misc",
	  { "vhost-vsock-pci", "vhost-vsock-pci-non-transitional", "vhost-user-vsock-pci" },
	  REFUSES,
	  "expected no such device: doppel run --vsock unix:PATH has sockets without the host's kernel",
	  NULL },
	{ "Misc",
	  { "tpm-tis", "tpm-crb", "ivshmem-plain", "ivshmem-doorbell", "virtio-crypto-pci" },
	  REFUSES,
	  "expected no such device",
	  NULL },
	{ "Misc",
	  { "vfio-pci", "pc-dimm", "virtio-mem-pci", "loader", "guest-loader" },
	  REFUSES,
	  "expected no such device",
	  NULL },
};

static const struct row *find_row(const char *name)
{
	for (size_t n = 0; n < ARRAY_SIZE(rows); n++)
		for (unsigned i = 0; i < NAMES && rows[n].names[i]; i++)
			if (!strcmp(rows[n].names[i], name))
				return &rows[n];
	return NULL;
}

/* Has doppel the device already? Some rows are ahead of it. */
static bool doppel_has(const char *name)
{
	for (const struct device_type *const *t = device_types; *t; t++)
		if (!strcmp((*t)->name, name))
			return true;
	return false;
}

static bool usable(const struct row *row) { return row->how == MAKES && doppel_has(row->to); }

/* ---- help ---- */

static void list_row(struct qemu *q, struct bytes *text, const struct row *row, const char **section)
{
	const char *line;

	if (*section != row->section) {
		line = text_print(q, "%s%s devices:\n", *section ? "\n" : "", row->section);
		q->no_memory |= !bytes_add(text, line, strlen(line));
		*section = row->section;
	}
	for (unsigned i = 0; i < NAMES && row->names[i]; i++) {
		line = text_print(q, "name \"%s\"%s\n", row->names[i],
				  strstr(row->names[i], "-pci") ? ", bus PCI" : "");
		q->no_memory |= !bytes_add(text, line, strlen(line));
	}
}

const char *device_list(struct qemu *q)
{
	const char *section = NULL, *all;
	struct bytes text = { 0 };

	for (size_t n = 0; n < ARRAY_SIZE(rows); n++)
		if (usable(&rows[n]) || rows[n].how == IS_THERE)
			list_row(q, &text, &rows[n], &section);
	all = text_print(q, "%.*s", (int)text.size, (const char *)text.data);
	free(text.data);
	return all;
}

const char *device_properties(struct qemu *q, const char *name)
{
	const struct row *row = find_row(name);

	if (!row || (row->how != IS_THERE && !usable(row)))
		return NULL;
	return text_print(q, "%s options:\n  id=<str>\n  bus=<str>\n  addr=<int32>\n%s%s", name,
			  row->fill == fill_disk || row->fill == fill_scsi_disk || row->fill == fill_ide_disk
				  ? "  drive=<str>\n  serial=<str>\n  bootindex=<int32>\n"
				  : "",
			  row->fill == fill_net ? "  netdev=<str>\n  mac=<str>\n" : "");
}

/* ---- devices ---- */

static int make(struct qemu *q, struct group *g, const struct row *row, const char *name)
{
	struct spec s;
	int rc;

	if (!doppel_has(row->to))
		return refuse(q, "-device %s: doppel has no such device%s", name,
			      row->fill == fill_net ? "; expected virtio-net-pci" : "");
	spec_begin(q, &s, row->to);
	if (!strncmp(row->to, "virtio-", 7))
		add_virtio(q, &s, g, name);
	rc = row->fill(q, &s, g);
	if (rc) {
		free(s.text.data);
		return rc;
	}
	spec_emit(q, &s, "--device");
	group_leftovers(q, g, name);
	return 0;
}

static int finish(struct qemu *q, struct group *g)
{
	const char *name = group_take(g, "driver");
	const struct row *row = name ? find_row(name) : NULL;

	if (!row)
		return refuse(q, "-device %.64s: doppel has no such device; '-device help' lists those that it has",
			      name ? name : g->text);
	switch (row->how) {
	case MAKES: return make(q, g, row, name);
	case IS_THERE: break;
	case HAS_NOT: log_warning("-device %s: %s", name, row->to); break;
	case REFUSES: return refuse(q, "-device %s: doppel has no such device; %s", name, row->to);
	}
	return 0;
}

int devices_finish(struct qemu *q)
{
	int rc = 0;

	for (unsigned n = 0; !rc && n < q->item_count; n++)
		if (q->items[n].kind == DEVICE)
			rc = finish(q, &q->items[n].group);
	return rc;
}
