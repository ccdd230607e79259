/*
 * oracle [--engine NAME] [--bits 16|32|64] [--seed N] [--seconds N] [--cases N] [--table] [--form NAME [--case N]]
 *
 * Round after round, a few cases of every form, until the time is over or every form had its number of cases; no limit: until
 * interrupted. 64-bit code, then 32-bit code, then 16-bit code. Results are TAP lines, one for each
 * kind of instruction. A failure says what repeats it.
 */
#include "oracle.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PASS_SECONDS  120 /* for a round of one mode: an instruction that does not end is not to hang the tests */
#define BATCH	      4	  /* cases of a form in a round */
#define BATCH_LARGE   400 /* of sequences and of "(bad)", which is most of the encoding space */
#define TRIES	      8	  /* times the cases that --cases asks for: some cannot be made, or are another form's */
#define TRIES_X87     4	  /* that a difference has to come in a row: run_case() */
#define SHOWN_OF_FORM 6	  /* failures printed of a form */
#define SHOWN	      400 /* and in all */
#define REASONS_MAX   32  /* of what is not compared: compare.c */

#define KINDS(_)                                                                                                       \
	_(INTEGER, "integer and branches")                                                                             \
	_(STRING, "string instructions")                                                                               \
	_(SYSTEM, "system instructions, faults of privileged ones")                                                    \
	_(X87, "x87")                                                                                                  \
	_(MMX, "MMX")                                                                                                  \
	_(SSE, "SSE")                                                                                                  \
	_(AVX, "AVX")                                                                                                  \
	_(SEQUENCE, "sequences of instructions")                                                                       \
	_(UNDEFINED, "undefined encodings")

enum kind {
#define _(id, what) KIND_##id,
	KINDS(_)
#undef _
		KIND_COUNT
};

static const char *const kind_names[] = {
#define _(id, what) what,
	KINDS(_)
#undef _
};

struct options {
	const char *engine, *form;
	uint64_t seed, cases, number;
	double seconds;
	bool one_case, table;
	unsigned bits; /* 0: all */
};

/* One mode's instructions. */
struct pass {
	enum code_mode mode;
	unsigned bits;
	struct forms forms;
	struct cases *cases;
	uint64_t faults[32]; /* the host's, by vector */
};

struct oracle {
	struct options options;
	struct native *native;
	struct guest *guest;
	struct pass pass[3];
	const struct areas *sides[2];
	double end; /* 0: none */
	uint64_t run, skipped;
	unsigned shown;
	uint64_t undefined_by_op[OP_COUNT];
	struct {
		const char *why;
		uint64_t cases;
	} left_open[REASONS_MAX];
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Interrupts are blocked, because they would meet the instruction's registers, and asked for here. */
static bool interrupted(void)
{
	const struct timespec none = { 0, 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	return sigtimedwait(&set, NULL, &none) > 0;
}

static void block_interrupts(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* ---- kinds ---- */

static enum kind kind_of(const struct insn_form *f)
{
	if (f->undefined)
		return KIND_UNDEFINED;
	if (f->sequence)
		return KIND_SEQUENCE;
	if (f->name[0] == 'v' && (f->host || f->op == OP_GATHER || f->op == OP_MASKMOV || f->op == OP_VZERO ||
				  f->op == OP_VLDMXCSR || f->op == OP_VSTMXCSR))
		return KIND_AVX;
	if (f->op == OP_MASKMOV)
		return strstr(f->name, "xmm") ? KIND_SSE : KIND_MMX;
	if (f->host)
		return f->name[0] == 'f'	? KIND_X87
		       : strstr(f->name, "xmm") ? KIND_SSE
		       : strstr(f->name, "mm")	? KIND_MMX
						: KIND_SSE;
	if ((f->op >= OP_MOVSB && f->op <= OP_SCASQ) || f->op == OP_MOVSD_STRING || f->op == OP_CMPSD_STRING)
		return KIND_STRING;
	return f->op <= OP_RET_FAR || cpu_system_ops[f->op] ? KIND_SYSTEM : KIND_INTEGER;
}

/* ---- one case ---- */

static void show_state(const struct user_state *s)
{
	for (unsigned n = 0; n < 16; n++)
		fprintf(stderr, "%s%16llx%s", n % 4 ? " " : "#   general registers: ", (unsigned long long)s->gpr[n],
			n % 4 == 3 ? "\n" : "");
	for (unsigned n = 0; n < 6; n++) {
		struct segment d = segment_of(s->sel[n]);

		fprintf(stderr, "#   %cS %04x base %08x limit %08x attributes %04x\n", "ecsdfg"[n], s -> sel[n], d.base,
			d.limit, d.attr);
	}
	fprintf(stderr, "#   FS base %llx, GS base %llx, RFLAGS %llx, MXCSR %x, FCW %x, FSW %x, tags %x\n",
		(unsigned long long)s->fs_base, (unsigned long long)s->gs_base, (unsigned long long)s->rflags, s->mxcsr,
		s->fcw, s->fsw, s->tags);
}

static void show(struct oracle *o, const struct pass *p, const struct test_case *t, uint64_t number,
		 const struct difference *d)
{
	static const char *const modes[] = { "one instruction", "a block", "single step" };
	char text[128];

	if (t->form->failures > SHOWN_OF_FORM || o->shown++ >= SHOWN)
		return;
	for (unsigned at = 0, len; at < t->len && !t->form->undefined; at += len) {
		struct insn i;

		len = cpu_decode(guest_model(o->guest), p->mode, t->bytes + at, 15, 0, &i, NULL);
		cpu_disassemble(p->mode, t->bytes + at, len, t->before.rip + at, text, sizeof(text));
		fprintf(stderr, "# %s\n", text);
	}
	fprintf(stderr, "#   --bits %u --seed %llu --form '%s' --case %llu (%s), at %#llx:", p->bits,
		(unsigned long long)o->options.seed, t->made_for->name, (unsigned long long)number, modes[t->mode],
		(unsigned long long)t->before.rip);
	for (unsigned n = 0; n < t->len; n++)
		fprintf(stderr, " %02x", t->bytes[n]);
	fprintf(stderr, "\n%s", d->text);
	if (o->options.one_case)
		show_state(&t->before);
}

static void count_left_open(struct oracle *o, const char *why)
{
	unsigned n = 0;

	while (n < REASONS_MAX && o->left_open[n].why && o->left_open[n].why != why)
		n++;
	BUG_ON(n == REASONS_MAX);
	o->left_open[n].why = why;
	o->left_open[n].cases++;
}

static void count(struct oracle *o, struct pass *p, struct test_case *t, uint64_t number, const struct outcome *native,
		  const struct outcome *guest, const struct difference *d)
{
	struct insn_form *form = t->form;

	o->run++;
	form->cases++;
	form->faults += native->vector != -1;
	if (native->vector >= 0 && native->vector < 32)
		p->faults[native->vector]++;
	if (d->left_open)
		count_left_open(o, d->left_open);
	if (d->undefined_flags) {
		form->undefined_flags++;
		o->undefined_by_op[t->insn.op]++;
	}
	if (!d->found)
		return;
	/* Known to the disassembler, executed here, not offered by doppel: said in the list of what is not covered. */
	if (form->undefined && strcmp(form->name, "(bad)") && guest->vector == EXC_UD) {
		form->host_has = true;
		return;
	}
	form->failures++;
	show(o, p, t, number, d);
}

/*
 * A sequence of x87 instructions that differs is tried again: when the host's kernel gives the processor to another in the middle of
 * it, AMD's lose the pointers, which XSAVE does not store while no exception is pending.
 */
static int run_case(struct oracle *o, struct pass *p, struct insn_form *form, uint64_t number, struct error *err)
{
	struct outcome native, guest;
	struct difference d;
	struct test_case t;
	unsigned tries = 0;

	do {
		if (!cases_make(p->cases, form, number, &t, o->sides)) {
			o->skipped++;
			return 0;
		}
		guest_code_changed(o->guest);
		native_run(o->native, &t.before, &native);
		if (guest_run(o->guest, &t.before, t.len, t.mode, &guest, err))
			return error_prefix(err, "--seed %llu --form '%s' --case %llu",
					    (unsigned long long)o->options.seed, form->name,
					    (unsigned long long)number);
		compare(&t, &native, &guest, o->sides, &d);
	} while (d.found && form->x87 && ++tries < TRIES_X87);
	count(o, p, &t, number, &native, &guest, &d);
	return 0;
}

/* ---- all of them ---- */

static bool selected(const struct oracle *o, const struct insn_form *form)
{
	return !form->reason && (!o->options.form || !strcmp(o->options.form, form->name));
}

/* With --cases: it has had them, or none come any more of so many tries. */
static bool enough(const struct oracle *o, const struct insn_form *form)
{
	return o->options.cases && (form->cases >= o->options.cases || form->attempts >= TRIES * o->options.cases);
}

/* A few cases of every form of a mode. 1 when it is time to stop. */
static int run_pass(struct oracle *o, struct pass *p, bool *more, struct error *err)
{
	alarm(PASS_SECONDS);
	if (p->forms.count)
		cases_begin(p->cases);
	for (unsigned n = 0; n < p->forms.count; n++) {
		struct insn_form *form = &p->forms.form[n];
		unsigned batch = form->name[0] == '(' ? BATCH_LARGE : BATCH;

		if (!selected(o, form) || enough(o, form))
			continue;
		*more = true;
		for (unsigned k = 0; k < batch; k++) {
			int ret = run_case(o, p, form, form->attempts++, err);

			if (ret)
				return ret;
		}
		if (interrupted() || (o->end != 0 && now() > o->end))
			return 1;
	}
	return 0;
}

static int run_one(struct oracle *o, struct error *err)
{
	int ret = 0;

	for (struct pass *p = o->pass; p < o->pass + ARRAY_SIZE(o->pass); p++)
		for (unsigned n = 0; n < p->forms.count && !ret; n++) {
			if (!selected(o, &p->forms.form[n]))
				continue;
			cases_begin(p->cases);
			ret = run_case(o, p, &p->forms.form[n], o->options.number, err);
		}
	return ret;
}

static int run_all(struct oracle *o, struct error *err)
{
	int ret = 0;
	bool more = true;

	if (o->options.one_case)
		return run_one(o, err);
	o->end = o->options.seconds > 0 ? now() + o->options.seconds : 0;
	while (!ret && more) {
		more = false;
		for (struct pass *p = o->pass; p < o->pass + ARRAY_SIZE(o->pass) && !ret; p++)
			ret = run_pass(o, p, &more, err);
	}
	return ret < 0 ? ret : 0;
}

/* ---- the report ---- */

static bool report_kind(const struct pass *p, enum kind kind, unsigned line)
{
	uint64_t forms = 0, cases = 0, faults = 0, failures = 0, failing = 0;

	for (unsigned n = 0; n < p->forms.count; n++) {
		const struct insn_form *f = &p->forms.form[n];

		if (!f->cases || kind_of(f) != kind)
			continue;
		forms++;
		cases += f->cases;
		faults += f->faults;
		failures += f->failures;
		failing += f->failures != 0;
		if (f->failures)
			fprintf(stderr, "# %u-bit code, %s: %llu of %llu cases differ\n", p->bits, f->name,
				(unsigned long long)f->failures, (unsigned long long)f->cases);
	}
	printf("%sok %u - %u-bit code, %s: %llu forms, %llu cases, %llu of them faults", failures ? "not " : "", line,
	       p->bits, kind_names[kind], (unsigned long long)forms, (unsigned long long)cases,
	       (unsigned long long)faults);
	if (failures)
		printf("; %llu cases of %llu forms differ", (unsigned long long)failures, (unsigned long long)failing);
	printf("\n");
	return !failures;
}

static bool report_kinds(const struct oracle *o)
{
	unsigned line = 0;
	bool good = true;

	for (const struct pass *p = o->pass; p < o->pass + ARRAY_SIZE(o->pass); p++)
		for (enum kind kind = 0; kind < KIND_COUNT && p->forms.count; kind++)
			good &= report_kind(p, kind, ++line);
	printf("1..%u\n", line);
	return good;
}

static void report_undefined_flags(const struct oracle *o)
{
	bool any = false;

	for (unsigned op = 0; op < OP_COUNT; op++) {
		if (!o->undefined_by_op[op])
			continue;
		printf("%s %s %llu", any ? "," : "# undefined flags other than this host's:", cpu_op_name(op),
		       (unsigned long long)o->undefined_by_op[op]);
		any = true;
	}
	printf(any ? "\n" : "# undefined flags are this host's in every case\n");
}

static void report_left_open(const struct oracle *o)
{
	for (unsigned n = 0; n < REASONS_MAX && o->left_open[n].why; n++)
		printf("# left to the processor in %llu cases: %s\n", (unsigned long long)o->left_open[n].cases,
		       o->left_open[n].why);
}

static void report_not_covered(const struct oracle *o, const struct pass *p)
{
	unsigned not_had = 0, host_has = 0;

	for (unsigned n = 0; n < p->forms.count; n++) {
		const struct insn_form *f = &p->forms.form[n];

		if (f->undefined) {
			not_had += strcmp(f->name, "(bad)") != 0;
			host_has += f->host_has;
		}
		if (f->host_has)
			printf("# not covered: %.*s: no model offers it, though this host has it\n",
			       (int)strlen(f->name) - 2, f->name);
		else if (f->reason)
			printf("# not covered: %s: %s\n", f->name, f->reason);
		else if (!f->cases && selected(o, f))
			printf("# not covered: %s: the time was over before its turn, or no case could be made\n",
			       f->name);
	}
	printf("# %u more forms are known to the disassembler and not offered: undefined here, too, but for %u\n",
	       not_had, host_has);
}

static void report_covered(const struct oracle *o, const struct pass *p)
{
	uint64_t forms = 0, covered = 0, cases = 0;

	for (unsigned n = 0; n < p->forms.count; n++) {
		if (p->forms.form[n].undefined || p->forms.form[n].sequence)
			continue;
		forms++;
		covered += p->forms.form[n].cases != 0;
		cases += p->forms.form[n].cases;
	}
	printf("# %u-bit code: %llu of %llu forms covered with %llu cases, seed %llu\n", p->bits,
	       (unsigned long long)covered, (unsigned long long)forms, (unsigned long long)cases,
	       (unsigned long long)o->options.seed);
}

static void report_faults(const struct pass *p)
{
	static const char *const names[32] = { "DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "9",
					       "TS", "NP", "SS",  "GP", "PF", "15", "MF", "AC", "MC", "XM" };

	printf("# %u-bit code, faults of the host:", p->bits);
	for (unsigned n = 0; n < ARRAY_SIZE(names); n++)
		if (p->faults[n])
			printf(" #%s %llu", names[n] ? names[n] : "?", (unsigned long long)p->faults[n]);
	printf("\n");
}

static void report_table(const struct pass *p)
{
	for (unsigned n = 0; n < p->forms.count; n++) {
		const struct insn_form *f = &p->forms.form[n];

		if (!f->reason)
			printf("# %2u %-48s %7llu cases %7llu faults %4llu differences\n", p->bits, f->name,
			       (unsigned long long)f->cases, (unsigned long long)f->faults,
			       (unsigned long long)f->failures);
	}
}

/* The smallest count is that of the forms that had any case: those without are listed as not covered. */
static void report_sum(const struct oracle *o)
{
	uint64_t forms = 0, cases = 0, differences = 0, least = UINT64_MAX;

	for (const struct pass *p = o->pass; p < o->pass + ARRAY_SIZE(o->pass); p++)
		for (unsigned n = 0; n < p->forms.count; n++) {
			const struct insn_form *f = &p->forms.form[n];

			if (!f->cases)
				continue;
			forms++;
			cases += f->cases;
			differences += f->failures;
			least = MIN(least, f->cases);
		}
	printf("# engine %s: %llu forms, %llu cases, %llu differences, at least %llu cases of every form\n",
	       o->options.engine, (unsigned long long)forms, (unsigned long long)cases, (unsigned long long)differences,
	       (unsigned long long)least);
}

static bool report(const struct oracle *o)
{
	bool good = report_kinds(o);

	for (const struct pass *p = o->pass; p < o->pass + ARRAY_SIZE(o->pass); p++) {
		if (!p->forms.count)
			continue;
		printf("# %u-bit code:\n", p->bits);
		report_not_covered(o, p);
		report_covered(o, p);
		report_faults(p);
		if (o->options.table)
			report_table(p);
	}
	report_undefined_flags(o);
	report_left_open(o);
	good &= guest_report_translation(o->guest);
	report_sum(o);
	return good;
}

/* ---- set-up ---- */

static int parse(struct options *o, int argc, char **argv)
{
	static const struct option options[] = { { "engine", required_argument, NULL, 'e' },
						 { "seed", required_argument, NULL, 's' },
						 { "seconds", required_argument, NULL, 't' },
						 { "cases", required_argument, NULL, 'n' },
						 { "bits", required_argument, NULL, 'b' },
						 { "form", required_argument, NULL, 'f' },
						 { "case", required_argument, NULL, 'c' },
						 { "table", no_argument, NULL, 'T' },
						 { 0 } };
	int c;

	*o = (struct options){ .engine = "interp", .seed = (uint64_t)time(NULL) };
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'e': o->engine = optarg; break;
		case 's': o->seed = strtoull(optarg, NULL, 0); break;
		case 't': o->seconds = strtod(optarg, NULL); break;
		case 'n': o->cases = strtoull(optarg, NULL, 0); break;
		case 'b': o->bits = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'f': o->form = optarg; break;
		case 'T': o->table = true; break;
		case 'c':
			o->number = strtoull(optarg, NULL, 0);
			o->one_case = true;
			break;
		default: return -EINVAL;
		}
	}
	return optind == argc && (!o->bits || o->bits == 16 || o->bits == 32 || o->bits == 64) ? 0 : -EINVAL;
}

static int prepare_pass(struct oracle *o, struct pass *p, enum code_mode mode, struct error *err)
{
	struct user_state start;

	p->mode = mode;
	p->bits = 16u << mode;
	if (o->options.bits && o->options.bits != p->bits)
		return 0;
	if (!segments_of_mode(mode)) {
		printf("# %u-bit code: this host has no such segments\n", p->bits);
		return 0;
	}
	if (forms_find(&p->forms, guest_model(o->guest), mode, err))
		return -err->code;
	native_start_state(o->native, mode, &start);
	p->cases = cases_create(&p->forms, guest_model(o->guest), &start, native_traits(o->native), o->options.seed);
	return p->cases ? 0 : error_set(err, ENOMEM, "no memory for cases");
}

static int prepare(struct oracle *o, struct error *err)
{
	int ret;

	block_interrupts();
	segments_install();
	o->guest = guest_create(o->options.engine, err);
	if (!o->guest)
		return -err->code;
	o->native = native_create(err);
	if (!o->native)
		return -err->code;
	o->sides[0] = native_areas(o->native);
	o->sides[1] = guest_areas(o->guest);
	for (enum code_mode mode = MODE_16; mode <= MODE_64; mode++) {
		ret = prepare_pass(o, &o->pass[MODE_64 - mode], mode, err);
		if (ret)
			return ret;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct oracle *o = calloc(1, sizeof(*o));
	struct error err = { 0 };
	bool good;

	if (!o || parse(&o->options, argc, argv)) {
		fprintf(stderr, "usage: oracle [--engine NAME] [--bits 16|32|64] [--seed N] [--seconds N] [--cases N] "
				"[--table] "
				"[--form NAME [--case N]]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (prepare(o, &err)) {
		printf("Bail out! %s\n", err.text);
		return 1;
	}
	printf("# engine %s against %s: seed %llu\n", o->options.engine, guest_model(o->guest)->brand,
	       (unsigned long long)o->options.seed);
	if (run_all(o, &err)) {
		printf("Bail out! %s\n", err.text);
		return 1;
	}
	good = report(o);
	for (struct pass *p = o->pass; p < o->pass + ARRAY_SIZE(o->pass); p++) {
		cases_destroy(p->cases);
		forms_free(&p->forms);
	}
	free(o);
	return !good;
}
