/*
 * doppel audit: the table of what sensitive instructions show a guest under an engine.
 */
#include "cli/cli.h"

#include "audit/audit.h"

#include <errno.h>
#include <stdlib.h>

struct audit_arguments {
	const char *engine, *cpu_model;
	bool json, naive;
};

static const char *const verdict_names[] = {
	[AUDIT_OK] = "ok",
	[AUDIT_NOT_OK] = "not ok",
	[AUDIT_NOT_EXECUTED] = "-",
};

static void print_text(const struct audit_run *run, const struct audit_arguments *args, unsigned count[])
{
	struct audit_row row, before = { 0 };
	bool same;

	if (args->naive)
		printf("no engine: user mode's instructions are executed by this host's processor as they are\n");
	else
		printf("engine %s, CPU model %s\n", run->engine, args->cpu_model);
	printf("\n%-6s  %-13s %-36s %-58s %s\n", "", "instruction", "executed in", "a monitor that waits for traps",
	       "the guest saw");
	for (unsigned n = 0; n < run->count; n++) {
		audit_judge(run, n, &row);
		if (args->naive && row.verdict == AUDIT_NOT_EXECUTED)
			continue;
		/* An instruction, and what goes wrong with it, is said once. */
		same = before.instruction && !strcmp(row.instruction, before.instruction) &&
		       !strcmp(row.naive, before.naive);
		printf("%-6s  %-13s %-36s %-58s %s\n", verdict_names[row.verdict], same ? "" : row.instruction,
		       row.where, same ? "" : row.naive, row.shown);
		if (*row.expected)
			printf("%-6s  %-13s %-36s %-58s instead of: %s\n", "", "", "", "", row.expected);
		before = row;
	}
	printf("\n%u ok, %u not ok", count[AUDIT_OK], count[AUDIT_NOT_OK]);
	if (count[AUDIT_NOT_EXECUTED])
		printf(", %u not executed", count[AUDIT_NOT_EXECUTED]);
	printf("\n");
}

static void print_json(const struct audit_run *run, const struct audit_arguments *args, unsigned count[])
{
	struct audit_row row;

	printf("{\"ok\": %s, ", count[AUDIT_NOT_OK] ? "false" : "true");
	cli_json_member("engine", run->engine, ", ");
	cli_json_member("cpu", args->cpu_model, ", \"checks\": [\n");
	for (unsigned n = 0; n < run->count; n++) {
		audit_judge(run, n, &row);
		printf("  {");
		cli_json_member("instruction", row.instruction, ", ");
		cli_json_member("where", row.where, ", ");
		cli_json_member("naive", row.naive, ", ");
		cli_json_member("shown", row.shown, ", ");
		if (*row.expected)
			cli_json_member("expected", row.expected, ", ");
		cli_json_member("verdict",
				row.verdict == AUDIT_NOT_EXECUTED ? "not executed" : verdict_names[row.verdict],
				n + 1 < run->count ? "},\n" : "}\n");
	}
	printf("]}\n");
}

/* ---- the command ---- */

static int set_engine(void *target, const char *value, struct error *err)
{
	(void)err;
	((struct audit_arguments *)target)->engine = value;
	return 0;
}

static int set_cpu(void *target, const char *value, struct error *err)
{
	(void)err;
	((struct audit_arguments *)target)->cpu_model = value;
	return 0;
}

static int set_json(void *target, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	((struct audit_arguments *)target)->json = true;
	return 0;
}

static int set_naive(void *target, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	((struct audit_arguments *)target)->naive = true;
	return 0;
}

const struct cli_option audit_options[] = {
	{ "--engine", "NAME[,...]", "what executes the guest (default auto)", set_engine, cli_engine_word, false },
	{ "--cpu", "MODEL[,...]", "CPU that the guest sees, with +FLAG, -FLAG (default host)", set_cpu, cli_cpu_word,
	  false },
	{ "--naive", NULL, "no engine: let this host's processor execute user mode, and see what fails", set_naive,
	  NULL, false },
	{ "--json", NULL, "for programs: one JSON object", set_json, NULL, false },
	{ NULL, NULL, NULL, NULL, NULL, false },
};

static void count_verdicts(const struct audit_run *run, unsigned count[])
{
	struct audit_row row;

	for (unsigned n = 0; n < run->count; n++) {
		audit_judge(run, n, &row);
		count[row.verdict]++;
	}
}

/* Runs the guest and prints what came of it. */
static int audit(const struct audit_arguments *args, struct audit_run *run)
{
	unsigned count[ARRAY_SIZE(verdict_names)] = { 0 };
	struct error err = { 0 };
	int rc = args->naive ? audit_execute_naively(run, &err)
			     : audit_execute(args->engine, args->cpu_model, run, &err);
	int status;

	if (rc) {
		cli_complain("audit", &err);
		return rc == -EINVAL ? EXIT_USAGE : EXIT_FAILED;
	}
	count_verdicts(run, count);
	if (args->json)
		print_json(run, args, count);
	else
		print_text(run, args, count);
	status = cli_finish_output("audit");
	return status ? status : count[AUDIT_NOT_OK] ? EXIT_FAILED : 0;
}

int command_audit(int argc, char **argv)
{
	struct audit_arguments args = { .engine = "auto", .cpu_model = "host" };
	int status = cli_parse(cli_find("audit"), argc, argv, &args);
	struct error err = { 0 };
	struct audit_run *run;

	if (status)
		return status;
	run = calloc(1, sizeof(*run));
	if (!run) {
		error_set_errno(&err, ENOMEM, "make room for the records");
		cli_complain("audit", &err);
		return EXIT_FAILED;
	}
	status = audit(&args, run);
	free(run);
	return status;
}
