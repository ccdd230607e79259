/*
 * The options of QEMU's command line: one row each. What refers to others waits until all are known.
 */
#include "qemu/private.h"

#include <errno.h>
#include <stdlib.h>

/* ---- those that are a function ---- */

#define KEEP(function, kind, option, first)                                                                            \
	static int function(struct qemu *q, const char *value) { return item_add(q, kind, option, first, value); }
KEEP(keep_drive, DRIVE, "-drive", NULL)
KEEP(keep_blockdev, BLOCKDEV, "-blockdev", NULL)
KEEP(keep_chardev, CHARDEV, "-chardev", "backend")
KEEP(keep_netdev, NETDEV, "-netdev", "type")
KEEP(keep_fsdev, FSDEV, "-fsdev", "fsdriver")
KEEP(keep_device, DEVICE, "-device", "driver")
KEEP(keep_serial, SERIAL, "-serial", "backend")
KEEP(keep_parallel, PARALLEL, "-parallel", "backend")
KEEP(keep_monitor, MONITOR, "-monitor", "backend")
KEEP(keep_mon, MONITOR, "-mon", "chardev")
KEEP(keep_qmp, QMP, "-qmp", "backend")

#define STRING(function, field)                                                                                        \
	static int function(struct qemu *q, const char *value)                                                         \
	{                                                                                                              \
		q->field = value;                                                                                      \
		return 0;                                                                                              \
	}
STRING(set_kernel, kernel)
STRING(set_firmware, firmware)
STRING(set_vga, vga)

#define SWITCH(function, field)                                                                                        \
	static int function(struct qemu *q, const char *value)                                                         \
	{                                                                                                              \
		(void)value;                                                                                           \
		q->field = true;                                                                                       \
		return 0;                                                                                              \
	}
SWITCH(set_no_defaults, no_defaults)
SWITCH(set_no_graphic, no_graphic)
SWITCH(set_snapshot, snapshot)
SWITCH(set_prints, line->prints)

static int hda(struct qemu *q, const char *value) { return option_hard_disk(q, value, 0); }
static int hdb(struct qemu *q, const char *value) { return option_hard_disk(q, value, 1); }
static int hdc(struct qemu *q, const char *value) { return option_hard_disk(q, value, 2); }
static int hdd(struct qemu *q, const char *value) { return option_hard_disk(q, value, 3); }
static int fda(struct qemu *q, const char *value) { return option_floppy(q, value, 0); }
static int fdb(struct qemu *q, const char *value) { return option_floppy(q, value, 1); }

static int set_no_reboot(struct qemu *q, const char *value)
{
	(void)value;
	word_add(q, "--no-reboot", NULL);
	word_add(q, "--on-triple-fault", "reset");
	return 0;
}

/* Doppel's names are of machines that are found by them: what is none is left out. */
static int set_name(struct qemu *q, const char *value)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	struct group g;
	const char *name;
	int rc = group_parse(q, &g, "-name", "guest", value);

	if (rc)
		return rc;
	name = group_take(&g, "guest");
	if (name && *name && !strchr("._-", *name) && strlen(name) < 64 && strspn(name, letters) == strlen(name))
		word_add(q, "--name", name);
	else if (name && *name)
		log_warning(
			"-name %.80s: 'doppel list' does not show it: a name is of letters, digits, dots, hyphens and "
			"underscores, 63 at most",
			name);
	return 0;
}

/* "HOST:N" is port 5900 + N. */
static int set_vnc(struct qemu *q, const char *value)
{
	struct group g;
	const char *where, *colon;
	int rc = group_parse(q, &g, "-vnc", "where", value);

	if (rc)
		return rc;
	where = group_take(&g, "where");
	if (group_switch(&g, "password", false) || group_take(&g, "password-secret") || group_take(&g, "tls-creds") ||
	    group_switch(&g, "sasl", false))
		return refuse(
			q,
			"-vnc %.64s: doppel has no passwords by a monitor; expected 127.0.0.1:N without, or doppel run "
			"--display vnc:PORT,password-file=FILE",
			value);
	if (!where || !strcmp(where, "none"))
		return 0;
	q->displayed = true;
	if (!strncmp(where, "unix:", 5)) {
		word_add(q, "--display", text_print(q, "vnc:%s", where));
		return 0;
	}
	colon = strrchr(where, ':');
	if (!colon || colon[1] < '0' || colon[1] > '9')
		return refuse(q, "-vnc %.64s: expected [HOST]:N or unix:PATH", value);
	word_add(q, "--display",
		 text_print(q, "vnc:%.*s:%d", colon > where ? (int)(colon - where) : 7,
			    colon > where ? where : "0.0.0.0", 5900 + atoi(colon + 1)));
	return 0;
}

static int set_display(struct qemu *q, const char *value)
{
	if (!strncmp(value, "vnc=", 4))
		return set_vnc(q, value + 4);
	if (!strcmp(value, "none")) {
		q->displayed = true;
		return 0;
	}
	if (!strncmp(value, "egl-headless", 12) || !strncmp(value, "dbus", 4))
		return refuse(q, "-display %.32s: expected none or vnc=HOST:N", value);
	log_warning("-display %.32s: there are no windows; -vnc :N or doppel run --display web:PORT show the screen",
		    value);
	return 0;
}

/* QEMU's layouts of the languages that doppel has. */
static int set_keyboard(struct qemu *q, const char *value)
{
	static const char *const names[][2] = { { "en-us", "us" }, { "en-gb", "uk" }, { "de-ch", "ch" },
						{ "fr-ch", "ch" }, { "da", "dk" },    { "sv", "se" },
						{ "cs", "cz" },	   { "pt-br", "br" } };
	const char *name = value;

	for (size_t n = 0; n < ARRAY_SIZE(names); n++)
		if (!strcmp(names[n][0], value))
			name = names[n][1];
	word_add(q, "--keyboard", name);
	return 0;
}

static int set_uuid(struct qemu *q, const char *value)
{
	word_add(q, "--smbios", text_print(q, "type=1,uuid=%s", value));
	return 0;
}

/* Doppel's is made after QEMU's, and says itself what it does not have. */
static int add_smbios(struct qemu *q, const char *value)
{
	word_add(q, "--smbios", value);
	return 0;
}

static int add_fw_cfg(struct qemu *q, const char *value)
{
	struct group g;
	const char *name, *file, *string;
	struct spec s;
	int rc = group_parse(q, &g, "-fw_cfg", "name", value);

	if (rc)
		return rc;
	name = group_take(&g, "name");
	file = group_take(&g, "file");
	string = group_take(&g, "string");
	if (!name || (!file && !string))
		return refuse(q, "-fw_cfg %.64s: expected name=NAME with file=FILE or string=TEXT", value);
	spec_begin(q, &s, "fw-cfg-file");
	spec_add(q, &s, "name", name);
	spec_add(q, &s, "file", file);
	spec_add(q, &s, "string", string);
	spec_emit(q, &s, "--device");
	return 0;
}

/* "local,path=P,mount_tag=T,..." is a -fsdev and its device. */
static int add_virtfs(struct qemu *q, const char *value)
{
	const char *tag, *id = text_print(q, "virtfs%u", q->item_count);
	struct item *item;
	int rc = item_add(q, FSDEV, "-fsdev", "fsdriver", text_print(q, "%s,id=%s", value, id));

	if (rc)
		return rc;
	item = &q->items[q->item_count - 1];
	tag = group_take(&item->group, "mount_tag");
	if (!tag)
		return refuse(q, "-virtfs %.64s: expected local,path=FOLDER,mount_tag=TAG", value);
	return item_add(q, DEVICE, "-device", "driver", text_print(q, "virtio-9p-pci,fsdev=%s,mount_tag=%s", id, tag));
}

static int keep_object(struct qemu *q, const char *value)
{
	static const char *const known[] = { "rng-random",     "rng-builtin",	  "iothread",
					     "throttle-group", "memory-backend-", "secret" };
	const char *type;

	if (item_add(q, OBJECT, "-object", "qom-type", value))
		return -EINVAL;
	type = group_take(&q->items[q->item_count - 1].group, "qom-type");
	for (size_t n = 0; type && n < ARRAY_SIZE(known); n++)
		if (!strncmp(type, known[n], strlen(known[n])))
			return 0;
	return refuse(q,
		      "-object %.64s: doppel has no such object; expected rng-random, iothread or memory-backend-file",
		      type ? type : value);
}

static int check_global(struct qemu *q, const char *value)
{
	const char *equals = strchr(value, '=');

	if (!equals || !key_is_harmless("-global", text_print(q, "%.*s", (int)(equals - value), value), equals + 1))
		log_warning("-global %s has no effect", value);
	return 0;
}

static int check_clock(struct qemu *q, const char *value)
{
	(void)q;
	if (strstr(value, "base=") && !strstr(value, "base=utc"))
		log_warning("-rtc %s: the clock shows the host's time in UTC", value);
	return 0;
}

/* ---- the table ---- */

enum how {
	WORD,	 /* is an option of doppel's: to */
	CALL,	 /* function */
	NOTHING, /* does no harm: why */
	SAID,	 /* a line says why it has no effect */
	REFUSED, /* why, and what would work */
	TEXT,	 /* -help, -version */
};

static const struct option {
	const char *name, *argument;
	enum how how;
	const char *to; /* WORD: doppel's; NOTHING, SAID, REFUSED: why */
	int (*call)(struct qemu *, const char *value);
} options[] = {
	{ "help", NULL, TEXT, NULL, NULL },
	{ "h", NULL, TEXT, NULL, NULL },
	{ "version", NULL, TEXT, NULL, NULL },
	{ "doppel-print", NULL, CALL, NULL, set_prints },
	/* the machine */
	{ "machine", "[type=]name[,prop[=value][,...]]", CALL, NULL, option_machine },
	{ "M", "[type=]name[,prop[=value][,...]]", CALL, NULL, option_machine },
	{ "accel", "[accel=]accelerator[,prop[=value][,...]]", CALL, NULL, option_accel },
	{ "enable-kvm", NULL, CALL, NULL, option_kvm },
	{ "cpu", "cpu", CALL, NULL, option_cpu },
	{ "smp", "[[cpus=]n][,sockets=sockets][,cores=cores][,threads=threads]", CALL, NULL, option_smp },
	{ "m", "[size=]megs", CALL, NULL, option_memory },
	{ "name", "string1[,process=string2][,debug-threads=on|off]", CALL, NULL, set_name },
	{ "uuid", "uuid", CALL, NULL, set_uuid },
	{ "smbios", "type=t[,field=value]", CALL, NULL, add_smbios },
	{ "rtc", "[base=utc|localtime|<datetime>][,clock=host|rt|vm][,driftfix=none|slew]", CALL, NULL, check_clock },
	{ "global", "driver.property=value", CALL, NULL, check_global },
	{ "nodefaults", NULL, CALL, NULL, set_no_defaults },
	{ "no-user-config", NULL, NOTHING, "there are no files of configuration", NULL },
	{ "no-hpet", NULL, NOTHING, "there is none", NULL },
	{ "no-acpi", NULL, SAID, "the machine has ACPI; acpi=off on the kernel's command line leaves it alone", NULL },
	{ "no-fd-bootchk", NULL, NOTHING, "SeaBIOS decides", NULL },
	{ "win2k-hack", NULL, NOTHING, "disks say when they are done", NULL },
	{ "numa", "node[,memdev=id]", SAID, "all memory is one node", NULL },
	{ "mem-path", "FILE", SAID, "memory is a file of doppel's own", NULL },
	{ "mem-prealloc", NULL, NOTHING, "memory is had when it is touched", NULL },
	{ "overcommit", "[mem-lock=on|off][cpu-pm=on|off]", NOTHING, "hints", NULL },
	{ "watchdog", "model", SAID, "there is no watchdog", NULL },
	{ "watchdog-action", "action", NOTHING, "there is no watchdog", NULL },
	{ "action", "event=action", SAID, "doppel run --on-triple-fault, --no-reboot say what happens", NULL },
	{ "icount", "[shift=N|auto]", SAID, "doppel run --clock virtual counts instructions", NULL },
	{ "tpmdev", "id", REFUSED, "doppel has no TPM", NULL },
	/* what starts */
	{ "kernel", "bzImage", CALL, NULL, set_kernel },
	{ "append", "cmdline", WORD, "--append", NULL },
	{ "initrd", "file", WORD, "--initrd", NULL },
	{ "bios", "file", CALL, NULL, set_firmware },
	{ "pflash", "file", CALL, NULL, option_pflash },
	{ "boot", "[order=drives][,once=drives][,menu=on|off]", CALL, NULL, option_boot },
	{ "fw_cfg", "[name=]<name>,file=<file>|string=<str>", CALL, NULL, add_fw_cfg },
	{ "option-rom", "rom", REFUSED, "doppel's cards have no ROM; expected a boot from disk, CD or floppy", NULL },
	{ "L", "path", NOTHING, "firmware is Debian's", NULL },
	{ "dtb", "file", REFUSED, "a PC has no device tree", NULL },
	/* disks */
	{ "drive", "[file=file][,if=type][,bus=n][,unit=m][,media=d][,index=i]", CALL, NULL, keep_drive },
	{ "blockdev", "[driver=]driver[,node-name=N][,discard=ignore|unmap]", CALL, NULL, keep_blockdev },
	{ "hda", "file", CALL, NULL, hda },
	{ "hdb", "file", CALL, NULL, hdb },
	{ "hdc", "file", CALL, NULL, hdc },
	{ "hdd", "file", CALL, NULL, hdd },
	{ "cdrom", "file", CALL, NULL, option_cdrom },
	{ "fda", "file", CALL, NULL, fda },
	{ "fdb", "file", CALL, NULL, fdb },
	{ "sd", "file", REFUSED, "doppel has no SD cards; expected -drive if=virtio", NULL },
	{ "mtdblock", "file", REFUSED, "doppel has no on-board flash; expected -drive if=virtio", NULL },
	{ "snapshot", NULL, CALL, NULL, set_snapshot },
	{ "virtfs", "local,path=path,mount_tag=tag,security_model=model", CALL, NULL, add_virtfs },
	{ "fsdev", "fsdriver,id=id[,path=path,][security_model=model]", CALL, NULL, keep_fsdev },
	/* devices */
	{ "device", "driver[,prop[=value][,...]]", CALL, NULL, keep_device },
	{ "object", "TYPENAME[,PROP1=VALUE1,...]", CALL, NULL, keep_object },
	{ "usb", NULL, NOTHING, "there is no USB", NULL },
	{ "usbdevice", "name", SAID, "keyboard and mouse are of PS/2", NULL },
	{ "audiodev", "[driver=]driver,id=id", NOTHING, "devices say that there is no sound", NULL },
	{ "audio", "[driver=]driver", SAID, "there is no sound", NULL },
	{ "soundhw", "c1", SAID, "there is no sound", NULL },
	{ "set", "group.id.arg=value", REFUSED, "expected the value at its option", NULL },
	/* networks */
	{ "netdev", "user,id=str[,hostfwd=rule]", CALL, NULL, keep_netdev },
	{ "nic", "[tap|user|socket|none][,option][,...][mac=macaddr]", CALL, NULL, option_nic },
	{ "net", "nic[,macaddr=mac][,model=type]|user|none", CALL, NULL, option_net },
	/* screens and streams */
	{ "display", "none|vnc=<display>", CALL, NULL, set_display },
	{ "vnc", "<display>", CALL, NULL, set_vnc },
	{ "nographic", NULL, CALL, NULL, set_no_graphic },
	{ "vga", "[std|none]", CALL, NULL, set_vga },
	{ "k", "language", CALL, NULL, set_keyboard },
	{ "full-screen", NULL, NOTHING, "there are no windows", NULL },
	{ "g", "WxH[xDEPTH]", NOTHING, "a sparc's", NULL },
	{ "spice", "[port=port]", REFUSED, "doppel has no SPICE; expected -vnc HOST:N", NULL },
	{ "chardev", "socket,id=id[,path=path][,server=on|off]", CALL, NULL, keep_chardev },
	{ "serial", "dev", CALL, NULL, keep_serial },
	{ "parallel", "dev", CALL, NULL, keep_parallel },
	{ "debugcon", "dev", REFUSED, "expected -chardev and -device isa-debugcon,chardev=ID", NULL },
	{ "monitor", "dev", CALL, NULL, keep_monitor },
	{ "mon", "[chardev=]name[,mode=readline|control]", CALL, NULL, keep_mon },
	{ "qmp", "dev", CALL, NULL, keep_qmp },
	{ "qmp-pretty", "dev", CALL, NULL, keep_qmp },
	{ "echr", "chr", NOTHING, "Ctrl-A it is", NULL },
	/* the process */
	{ "S", NULL, WORD, "--paused", NULL },
	{ "no-reboot", NULL, CALL, NULL, set_no_reboot },
	{ "no-shutdown", NULL, SAID, "a guest that powers off ends doppel", NULL },
	{ "daemonize", NULL, WORD, "--detach", NULL },
	{ "pidfile", "file", WORD, "--pid-file", NULL },
	{ "D", "logfile", NOTHING, "what -d would log is not logged", NULL },
	{ "d", "item1,...", SAID, "doppel run --trace help lists what can be traced", NULL },
	{ "trace", "[[enable=]<pattern>]", SAID, "doppel run --trace help lists what can be traced", NULL },
	{ "msg", "[timestamp=on|off]", NOTHING, "errors are one line", NULL },
	{ "sandbox", "on[,obsolete=allow|deny]", NOTHING, "what needs walls has its own", NULL },
	{ "enable-fips", NULL, NOTHING, "there are no passwords of VNC without being asked for", NULL },
	{ "gdb", "dev", REFUSED, "doppel has no GDB server", NULL },
	{ "s", NULL, REFUSED, "doppel has no GDB server", NULL },
	{ "runas", "user", REFUSED, "doppel needs no root: expected to be started as that user", NULL },
	{ "chroot", "dir", REFUSED, "doppel needs no root: expected to be started by chroot(8)", NULL },
	{ "incoming", "uri", REFUSED, "doppel has no migration", NULL },
	{ "loadvm", "tag", REFUSED, "doppel has no internal snapshots", NULL },
	{ "readconfig", "file", REFUSED, "expected what is in it on the command line", NULL },
	{ "add-fd", "fd=fd,set=set", REFUSED, "expected the file's name", NULL },
	{ "plugin", "file", REFUSED, "doppel has no plug-ins", NULL },
	{ "compat", "[deprecated-input=accept|reject]", NOTHING, "policies of QEMU's", NULL },
	{ "seed", "number", NOTHING, "doppel run --clock virtual repeats a run", NULL },
};

/* ---- help ---- */

const char *help_version(struct qemu *q)
{
	return text_print(q, "QEMU emulator version %d.%d.0 (doppel %s)\n", QEMU_MAJOR, QEMU_MINOR, DOPPEL_VERSION);
}

/* QEMU's form, which tools look into: each option at the beginning of a line. */
static const char *print_help(struct qemu *q)
{
	struct bytes text = { 0 };
	const char *all;

	for (size_t n = 0; n < ARRAY_SIZE(options); n++) {
		const struct option *o = &options[n];
		const char *line;

		if (o->how == REFUSED)
			continue;
		line = text_print(q, "-%s%s%s%s%s\n", o->name, o->argument ? " " : "", o->argument ? o->argument : "",
				  o->how == WORD			? "  as doppel run "
				  : o->how == NOTHING || o->how == SAID ? "  no effect: "
									: "",
				  o->to ? o->to : "");
		q->no_memory |= !bytes_add(&text, line, strlen(line));
	}
	all = text_print(q, "%susage: qemu-system-x86_64 [options] [disk_image]\n\n%.*s", help_version(q),
			 (int)text.size, (const char *)text.data);
	free(text.data);
	return all;
}

/* What "help" as the argument of an option prints, where that is not made of a table. */
static const struct {
	const char *option, *text;
} lists[] = {
	{ "machine", "Supported machines are:\n"
		     "pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)\n"
		     "pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)\n"
		     "q35                  taken as pc (alias of pc-q35-7.2)\n"
		     "pc-q35-7.2           taken as pc\n"
		     "none                 empty machine\n" },
	{ "accel", "Accelerators supported in QEMU binary:\ntcg\n" },
	{ "netdev", "Available netdev backend types:\nsocket\nstream\ntap\nuser\nvhost-user\n" },
	{ "chardev", "Available chardev backend types:\n  file\n  null\n  pty\n  socket\n  stdio\n" },
	{ "vga", "none                 no graphic card\nstd                  standard VGA (default)\n" },
	{ "display", "Available display backend types:\nnone\nvnc\n" },
	{ "object", "List of user creatable objects:\n  iothread\n  memory-backend-file\n  memory-backend-memfd\n  "
		    "memory-backend-ram\n  rng-random\n" },
	{ "cpu", "Available CPUs:\n"
		 "x86 Haswell               AVX2 and what else x86-64-v3 has (alias of many of later years)\n"
		 "x86 base                  x86-64-v2\n"
		 "x86 host                  all that doppel can have of this host's processor\n"
		 "x86 max                   the same\n"
		 "x86 qemu64                x86-64-v2\n" },
};

const char *help_of(struct qemu *q, const char *option)
{
	if (!strcmp(option, "device"))
		return device_list(q);
	if (!strcmp(option, "M"))
		option = "machine";
	for (size_t n = 0; n < ARRAY_SIZE(lists); n++)
		if (!strcmp(lists[n].option, option))
			return lists[n].text;
	return NULL;
}

/* True: that was all; line->help is what is printed. */
static bool asks_for_help(struct qemu *q, const struct option *o, const char *value)
{
	const char *comma;

	if (!strcmp(value, "help") || !strcmp(value, "?")) {
		q->line->help = help_of(q, o->name);
	} else if (!strcmp(o->name, "device") && (comma = strchr(value, ',')) &&
		   (!strcmp(comma, ",help") || !strcmp(comma, ",?"))) {
		q->line->help = device_properties(q, text_print(q, "%.*s", (int)(comma - value), value));
	}
	return q->line->help != NULL;
}

/* ---- the command line ---- */

static const struct option *find_option(const char *name)
{
	for (size_t n = 0; n < ARRAY_SIZE(options); n++)
		if (!strcmp(options[n].name, name))
			return &options[n];
	return NULL;
}

static int take(struct qemu *q, const struct option *o, const char *value)
{
	switch (o->how) {
	case WORD: word_add(q, o->to, value); break;
	case CALL: return o->call(q, value);
	case NOTHING: break;
	case SAID: log_warning("-%s has no effect: %s", o->name, o->to); break;
	case REFUSED: return refuse(q, "-%s: %s", o->name, o->to);
	case TEXT: q->line->help = *o->name == 'v' ? help_version(q) : print_help(q); break;
	}
	return 0;
}

/* Options begin with one hyphen or two. */
static int take_words(struct qemu *q, int argc, char *const *argv)
{
	int rc = 0;

	for (int n = 1; !rc && !q->line->help && n < argc; n++) {
		const char *word = argv[n], *value = NULL;
		const struct option *o;

		if (*word != '-' || !word[1]) {
			rc = option_hard_disk(q, word, 0);
			continue;
		}
		o = find_option(word + 1 + (word[1] == '-'));
		if (!o)
			return refuse(q, "%.64s: doppel has no such option; '-help' lists those that it has", word);
		if (o->argument && ++n == argc)
			return refuse(q, "%s: expected %s", word, o->argument);
		value = o->argument ? argv[n] : NULL;
		if (!value || !asks_for_help(q, o, value))
			rc = take(q, o, value);
	}
	return rc;
}

static int finish(struct qemu *q)
{
	static int (*const steps[])(struct qemu *) = { nets_finish, devices_finish, drives_finish, chardevs_finish,
						       board_finish };
	int rc = 0;

	for (size_t n = 0; !rc && n < ARRAY_SIZE(steps); n++)
		rc = steps[n](q);
	/* A signal is an orderly end for QEMU's users. */
	word_add(q, "--signal-status", "0");
	return rc;
}

int qemu_translate(struct qemu_line *line, int argc, char *const *argv, struct error *err)
{
	struct qemu *q = calloc(1, sizeof(*q));
	struct error ignored = { 0 };
	int rc;

	*line = (struct qemu_line){ 0 };
	if (!q)
		return error_set_errno(err, ENOMEM, "the command line");
	q->line = line;
	q->err = err ? err : &ignored;
	rc = take_words(q, argc, argv);
	if (!rc && !line->help)
		rc = finish(q);
	if (!rc && q->no_memory)
		rc = error_set_errno(err, ENOMEM, "the command line");
	free(q->boot.data);
	free(q);
	return rc;
}
