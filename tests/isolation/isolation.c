/* The driver with a seed: sessions one after the other, each reproducible by its own number. */
#define _GNU_SOURCE
#include "isolation.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 40 /* in a session */

/* The same addresses every time, where the host allows it: some of what is chosen depends on them. */
static void fix_addresses(char **argv)
{
	int now = personality(0xffffffff);

	if (now == -1 || now & ADDR_NO_RANDOMIZE || personality((unsigned)now | ADDR_NO_RANDOMIZE) == -1)
		return;
	execv("/proc/self/exe", argv);
}

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },     { "seconds", required_argument, NULL, 't' },
		{ "sessions", required_argument, NULL, 'n' }, { "step", required_argument, NULL, 'p' },
		{ "trace", required_argument, NULL, 'r' },    { "engine", required_argument, NULL, 'e' },
		{ "interp", required_argument, NULL, 'i' },   { 0 }
	};
	uint64_t seed = (uint64_t)time(NULL), sessions = UINT64_MAX, done = 0;
	struct session_counts counts = { 0 };
	struct watch_counts watched;
	struct session_options o = { .rounds = ROUNDS, .step = 10 };
	double end = 0;
	char name[512];
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 't': end = seconds_now() + strtod(optarg, NULL); break;
		case 'n': sessions = strtoull(optarg, NULL, 0); break;
		case 'r': o.trace = optarg; break;
		case 'e': o.engine = optarg; break;
		case 'i': o.interp = optarg; break;
		case 'p': o.step = (unsigned)strtoul(optarg, NULL, 0); break;
		default:
			fprintf(stderr, "usage: isolation [--seed N] [--seconds N] [--sessions N] [--step PERCENT] "
					"[--trace FILE] [--engine ENGINE] [--interp ENGINE]\n");
			return 2;
		}
	}
	fix_addresses(argv);
	while (done < sessions && (end == 0 || seconds_now() < end)) {
		struct choices number = { .state = seed + done }, choices = { .state = choose(&number) };

		snprintf(name, sizeof(name), "--seed %llu --sessions 1 --step %u%s%s%s%s",
			 (unsigned long long)(seed + done), o.step, o.engine ? " --engine " : "",
			 o.engine ? o.engine : "", o.interp ? " --interp " : "", o.interp ? o.interp : "");
		session_run(&choices, name, &o, &counts);
		done++;
	}
	watched = watch_counts();
	printf("ok 1 - %llu sessions of %u rounds from seed %llu: %llu compared, %llu halted, %llu shut down, %llu "
	       "without an end\n",
	       (unsigned long long)done, ROUNDS, (unsigned long long)seed, (unsigned long long)counts.compared,
	       (unsigned long long)counts.halted, (unsigned long long)counts.shut_down,
	       (unsigned long long)counts.endless);
	printf("# %llu instructions translated, entered %llu times, %llu faults; looked at %llu host instructions with "
	       "%llu accesses\n1..1\n",
	       (unsigned long long)watched.translated, (unsigned long long)watched.entered,
	       (unsigned long long)watched.faults, (unsigned long long)watched.instructions,
	       (unsigned long long)watched.accesses);
	return 0;
}
