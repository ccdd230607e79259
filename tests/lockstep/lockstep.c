/* The command line: which guest, how it is compared. Exit status: 0 no difference, 1 there is one, 2 wrong usage. */
#include "random.h"

#include "machine/machine.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

/* A boot of a minute or two; blocks of translated code are a few instructions, and only the last of a step may be the interpreter's. */
#define STEP	     2000
#define WHOLE_EVERY  20000000
#define RANDOM_STEP  300
#define RANDOM_WHOLE 2000
#define ROUNDS	     40 /* of random code, in a session */

static const struct option options[] = {
	{ "kernel", required_argument, NULL, 'k' },
	{ "initrd", required_argument, NULL, 'i' },
	{ "append", required_argument, NULL, 'a' },
	{ "memory", required_argument, NULL, 'm' },
	{ "cpus", required_argument, NULL, 'c' },
	{ "cpu", required_argument, NULL, 'C' },
	{ "engine", required_argument, NULL, 'e' },
	{ "reference", required_argument, NULL, 'r' },
	{ "step", required_argument, NULL, 's' },
	{ "whole", required_argument, NULL, 'w' },
	{ "end", required_argument, NULL, 'E' },
	{ "inject", required_argument, NULL, 'I' },
	{ "serial", required_argument, NULL, 'o' },
	{ "debug-exit", no_argument, NULL, 'd' },
	{ "random", required_argument, NULL, 'R' },
	{ "sessions", required_argument, NULL, 'S' },
	{ 0 },
};

static int usage(void)
{
	fprintf(stderr,
		"usage: lockstep --random SEED [--sessions N] | --kernel FILE [--initrd FILE] [--append STRING] "
		"[--memory MEGABYTES] [--cpus N] "
		"[--cpu MODEL]\n"
		"  [--engine SPEC]       the engine that is tested (bt)\n"
		"  [--reference SPEC]    what it is compared with (interp)\n"
		"  [--step N]            instructions between comparisons (%d)\n"
		"  [--whole N]           instructions between comparisons of all memory (%d)\n"
		"  [--end N]             end after so many instructions\n"
		"  [--serial PATH]       where the guests' output goes, with .0 and .1 behind (nowhere)\n"
		"  [--debug-exit]        as doppel's\n"
		"  [--inject N]          make a difference at instruction N, to see it found\n",
		STEP, WHOLE_EVERY);
	return 2;
}

/* Each session can be had again by its own seed. */
static bool run_random(const struct plan *guests, const char *reference, uint64_t seed, uint64_t sessions)
{
	struct random_code random = { .reference = reference, .rounds = ROUNDS };
	struct comparison_counts total = { 0 }, one;
	struct plan plan = *guests;

	random_code_init(&random);
	random_code_plan(&plan);
	plan.quiet = true;
	plan.step = MIN(plan.step, RANDOM_STEP);
	plan.whole_every = MIN(plan.whole_every, RANDOM_WHOLE);
	for (uint64_t n = 0; n < sessions; n++) {
		random.seed = seed + n;
		if (!search(&random.subject, &plan, &one)) {
			printf("# --random %llu --sessions 1\n", (unsigned long long)random.seed);
			return false;
		}
		total.instructions += one.instructions;
		total.steps += one.steps;
	}
	printf("# %llu sessions from seed %llu: %llu instructions in %llu steps\n", (unsigned long long)sessions,
	       (unsigned long long)seed, (unsigned long long)total.instructions, (unsigned long long)total.steps);
	return true;
}

int main(int argc, char **argv)
{
	struct machine_config config = { .memory = 128ull << 20, .cpus = 1, .cpu_model = "host" };
	struct plan plan = {
		.engine = "bt", .step = STEP, .fine_from = UINT64_MAX, .end = UINT64_MAX, .whole_every = WHOLE_EVERY
	};
	uint64_t seed = 0, sessions = 100;
	struct comparison_counts counts;
	bool random = false;
	struct pair pair = { .config = &config, .reference = "interp" };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'k': config.kernel = optarg; break;
		case 'i': config.initrd = optarg; break;
		case 'a': config.append = optarg; break;
		case 'm': config.memory = strtoull(optarg, NULL, 0) << 20; break;
		case 'c': config.cpus = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'C': config.cpu_model = optarg; break;
		case 'e': plan.engine = optarg; break;
		case 'r': pair.reference = optarg; break;
		case 's': plan.step = strtoull(optarg, NULL, 0); break;
		case 'w': plan.whole_every = strtoull(optarg, NULL, 0); break;
		case 'E': plan.end = strtoull(optarg, NULL, 0); break;
		case 'I': plan.inject_at = strtoull(optarg, NULL, 0); break;
		case 'o': pair.serial = optarg; break;
		case 'd': config.devices[config.device_count++].spec = "debug-exit"; break;
		case 'R':
			random = true;
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'S': sessions = strtoull(optarg, NULL, 0); break;
		default: return usage();
		}
	}
	if (optind < argc || !(random || config.kernel) || !plan.step)
		return usage();
	if (random)
		return !run_random(&plan, pair.reference, seed, sessions);
	pair_init(&pair);
	return !search(&pair.subject, &plan, &counts);
}
