/*
 * The machine, its processors, memory, firmware.
 */
#include "cpu/cpu.h"

#include "qemu/private.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

/* ---- -machine ---- */

static int take_accel(struct qemu *q, const char *list)
{
	q->kvm |= strstr(list, "kvm") != NULL;
	q->tcg |= strstr(list, "tcg") != NULL;
	if (!strstr(list, "kvm") && !strstr(list, "tcg"))
		return refuse(q, "-accel %.32s: expected tcg or kvm, in either of which doppel's own engine runs",
			      list);
	return 0;
}

static int take_type(struct qemu *q, const char *type)
{
	if (!strcmp(type, "none"))
		q->no_machine = true;
	else if (!strcmp(type, "q35") || !strncmp(type, "pc-q35-", 7) || !strcmp(type, "microvm"))
		q->q35 = true;
	else if (strcmp(type, "pc") != 0 && strncmp(type, "pc-i440fx-", 10) && strcmp(type, "isapc") != 0)
		return refuse(q, "-machine %.32s: expected pc, or q35, microvm or isapc, which are taken as pc", type);
	if (q->q35)
		log_info("-machine %s: the machine is a PC with an i440FX", type);
	return 0;
}

/* "pflash0=NODE" */
static void take_flash(struct group *g, const char *name, const char **file)
{
	const char *node = group_take(g, name);

	if (node)
		*file = node;
}

int option_machine(struct qemu *q, const char *value)
{
	struct group g;
	const char *type, *accel, *file;
	int rc = group_parse(q, &g, "-machine", "type", value);

	if (rc)
		return rc;
	type = group_take(&g, "type");
	accel = group_take(&g, "accel");
	rc = type ? take_type(q, type) : 0;
	rc = rc || !accel ? rc : take_accel(q, accel);
	if (rc)
		return rc;
	if (group_switch(&g, "smm", false))
		return refuse(q, "-machine smm=on: doppel has no SMM; expected smm=off, and a firmware that needs none "
				 "(OVMF_CODE_4M.fd)");
	if (!group_switch(&g, "graphics", true))
		q->no_graphic = true;
	file = group_take(&g, "kernel");
	if (file)
		q->kernel = file;
	take_flash(&g, "pflash0", &q->firmware);
	take_flash(&g, "pflash1", &q->nvram);
	group_leftovers(q, &g, "");
	return 0;
}

int option_accel(struct qemu *q, const char *value)
{
	struct group g;
	const char *accel;
	int rc = group_parse(q, &g, "-accel", "accel", value);

	if (rc)
		return rc;
	accel = group_take(&g, "accel");
	group_leftovers(q, &g, value);
	return take_accel(q, accel ? accel : "");
}

int option_kvm(struct qemu *q, const char *value)
{
	(void)value;
	return take_accel(q, "kvm");
}

/* ---- -cpu ---- */

/* Models with AVX2 and what else v3 has; all others of QEMU's are v2's. */
static const char *const with_avx2[] = { "Haswell",	"Broadwell", "Skylake",	       "Cascadelake",
					 "Cooperlake",	"Icelake",   "SapphireRapids", "Snowridge",
					 "KnightsMill", "EPYC",	     "Dhyana" };

/* Where QEMU's name of a feature, without its dots, hyphens and underscores, is another than the manual's that doppel has. */
static const struct {
	const char *qemu, *doppel;
} flags[] = {
	{ "pni", "SSE3" },	     { "cx16", "CX16" },     { "lahflm", "LAHF64" }, { "3dnowprefetch", "PREFETCHW" },
	{ "specctrl", "SPEC_CTRL" }, { "clflush", "CLFSH" }, { "mca", "MCA" },
};

/* The name by which cpu_model_init() knows it, or NULL. */
static const char *doppel_flag(struct qemu *q, const char *name)
{
	char plain[32];
	size_t used = 0;

	for (; *name && used < sizeof(plain) - 1; name++)
		if (isalnum((unsigned char)*name))
			plain[used++] = *name;
	plain[used] = 0;
	for (size_t n = 0; n < ARRAY_SIZE(flags); n++)
		if (!strcasecmp(flags[n].qemu, plain))
			return flags[n].doppel;
	for (unsigned f = 0; f < FEATURE_COUNT; f++) {
		char other[32];

		used = 0;
		for (const char *c = cpu_feature_name(f); *c && used < sizeof(other) - 1; c++)
			if (isalnum((unsigned char)*c))
				other[used++] = *c;
		other[used] = 0;
		if (!strcasecmp(other, plain))
			return text_print(q, "%s", cpu_feature_name(f));
	}
	return NULL;
}

static bool is_possible(const char *spec)
{
	struct cpu_model model;

	return !cpu_model_init(&model, spec, false, 1, NULL);
}

/* A model is made of what can be had: none of this fails. */
static void add_flag(struct qemu *q, const char **spec, const char *name, bool on)
{
	const char *flag = doppel_flag(q, name);
	const char *more = flag ? text_print(q, "%s,%c%s", *spec, on ? '+' : '-', flag) : NULL;

	if (!strcmp(name, "hypervisor") || !strcmp(name, "kvm")) {
		q->pure |= !on;
		return;
	}
	if (more && is_possible(more))
		*spec = more;
	else if (on ? !key_is_harmless("-cpu", name, "on") : more != NULL)
		log_warning("-cpu: %s=%s is left out: doppel %s", name, on ? "on" : "off",
			    on ? "does not have it here" : "cannot be without");
}

static const char *base_model(const char *name)
{
	if (!strcmp(name, "host") || !strcmp(name, "max"))
		return "host";
	for (size_t n = 0; n < ARRAY_SIZE(with_avx2); n++)
		if (!strncmp(name, with_avx2[n], strlen(with_avx2[n])) && is_possible("v3"))
			return "v3";
	return is_possible("v2") ? "v2" : "host";
}

int option_cpu(struct qemu *q, const char *value)
{
	struct group g;
	const char *spec = NULL;
	int rc = group_parse(q, &g, "-cpu", NULL, value);

	if (rc)
		return rc;
	for (unsigned n = 0; n < g.count; n++) {
		const char *name = g.pairs[n].name, *setting = g.pairs[n].value;
		bool on = !strcmp(setting, "on") || !strcmp(setting, "true") || !strcmp(setting, "yes");

		if (!spec)
			spec = base_model(name);
		else if (*name == '+' || *name == '-')
			add_flag(q, &spec, name + 1, *name == '+');
		else if (on || !strcmp(setting, "off") || !strcmp(setting, "false") || !strcmp(setting, "no"))
			add_flag(q, &spec, name, on);
		else if (!key_is_harmless("-cpu", name, setting))
			log_warning("-cpu: %s=%s has no effect", name, setting);
	}
	q->cpu = spec;
	return 0;
}

/* ---- -smp, -m, -boot ---- */

int option_smp(struct qemu *q, const char *value)
{
	static const char *const parts[] = { "sockets", "cores", "threads" };
	struct group g;
	const char *cpus;
	unsigned product = 1;
	int rc = group_parse(q, &g, "-smp", "cpus", value);

	if (rc)
		return rc;
	cpus = group_take(&g, "cpus");
	for (size_t n = 0; n < ARRAY_SIZE(parts); n++) {
		const char *count = group_take(&g, parts[n]);

		product *= count ? (unsigned)MIN(strtoul(count, NULL, 10), 1024ul) : 1;
	}
	q->cpus = cpus ? (unsigned)strtoul(cpus, NULL, 10) : product;
	group_leftovers(q, &g, value);
	return q->cpus ? 0 : refuse(q, "-smp %.64s: expected a number of processors", value);
}

int option_memory(struct qemu *q, const char *value)
{
	struct group g;
	const char *size;
	size_t length;
	int rc = group_parse(q, &g, "-m", "size", value);

	if (rc)
		return rc;
	size = group_take(&g, "size");
	group_leftovers(q, &g, value);
	if (!size)
		return 0;
	length = strlen(size);
	if (!length || !isdigit((unsigned char)*size))
		return refuse(q, "-m %.64s: expected a size, of MiB or with M or G", value);
	q->memory_given = true;
	word_add(q, "--memory", text_print(q, "%s%s", size, isdigit((unsigned char)size[length - 1]) ? "M" : ""));
	return 0;
}

/* Where doppel's words are others, or have other values. */
int option_boot(struct qemu *q, const char *value)
{
	static const char *const same[] = { "order", "once", "menu", "splash", "splash-time" };
	const char *retry, *found;
	struct group g;
	int rc = group_parse(q, &g, "-boot", "order", value);

	if (rc)
		return rc;
	for (size_t n = 0; n < ARRAY_SIZE(same); n++) {
		found = group_take(&g, same[n]);
		if (!found)
			continue;
		found = text_print(q, "%s%s=%s", q->boot.size ? "," : "", same[n], found);
		q->no_memory |= !bytes_add(&q->boot, found, strlen(found));
	}
	retry = group_take(&g, "reboot-timeout");
	if (retry && atoi(retry) > 0) {
		found = text_print(q, "%sretry=%s", q->boot.size ? "," : "", retry);
		q->no_memory |= !bytes_add(&q->boot, found, strlen(found));
	}
	group_leftovers(q, &g, value);
	return 0;
}

/* ---- at the end ---- */

/* A node of -blockdev, as -machine pflash0= names it, or a file. */
static int flash_file(struct qemu *q, const char **file)
{
	struct spec s;
	const char *text, *end;
	int rc;

	if (!*file || !item_find(q, BIT(BLOCKDEV), *file))
		return 0;
	spec_begin(q, &s, "");
	rc = drive_describe(q, &s, "-machine", *file, true);
	text = text_print(q, "%.*s", (int)s.text.size, (const char *)s.text.data);
	free(s.text.data);
	text += strlen(",file=");
	end = strrchr(text, ','); /* in front of the format */
	*file = text_print(q, "%.*s", end ? (int)(end - text) : (int)strlen(text), text);
	return rc;
}

/* Firmware that QEMU finds in its own folder is doppel's of that kind. */
static const char *firmware_name(const char *file)
{
	const char *base = strrchr(file, '/');

	base = base ? base + 1 : file;
	return base == file && !strncmp(base, "bios", 4) ? "bios" : file;
}

int board_finish(struct qemu *q)
{
	struct spec s;
	int rc = flash_file(q, &q->firmware);

	rc = rc ? rc : flash_file(q, &q->nvram);
	if (rc)
		return rc;
	if (q->kvm && !q->tcg)
		log_warning("KVM is not used: doppel's own engine runs the guest");
	word_add(q, "--cpu", q->cpu ? q->cpu : "host");
	if (q->cpus > 1)
		word_add(q, "--cpus", text_print(q, "%u", q->cpus));
	if (!q->memory_given)
		word_add(q, "--memory", "128M");
	if (q->pure)
		word_add(q, "--pure", NULL);
	if (q->kernel)
		word_add(q, "--kernel", q->kernel);
	else
		word_add(q, "--firmware", q->firmware ? firmware_name(q->firmware) : "bios");
	if (q->nvram && !q->kernel) {
		spec_begin(q, &s, "pflash");
		spec_add(q, &s, "file", q->nvram);
		spec_emit(q, &s, "--device");
	}
	if (q->boot.size && !q->kernel)
		word_add(q, "--boot", text_print(q, "%.*s", (int)q->boot.size, (const char *)q->boot.data));
	if (q->vga && !strcmp(q->vga, "device"))
		return 0;
	if (q->vga ? !strcmp(q->vga, "none") : q->no_defaults || q->no_machine)
		word_add(q, "--vga", "none");
	else if (q->vga || !q->kernel)
		word_add(q, "--vga", "std");
	return 0;
}
