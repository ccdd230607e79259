/*
 * Cases from seeds, one after the other. A finding names the seed, with which it comes again: --seed N --cases 1, the other options the same.
 * --other ENGINE runs each case by that engine, too.
 */
#include "step.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static char name[64];

/* The monitor's own mistakes have a seed, too. */
static void say_case(int signal)
{
	static const char text[] = "# the case: ";
	ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);

	ignored = write(STDERR_FILENO, name, strlen(name));
	ignored = write(STDERR_FILENO, "\n", 1);
	(void)ignored;
	raise(signal);
}

static void report(const struct case_counts *n, uint64_t seed)
{
	printf("ok 1 - %llu cases from seed %llu: %llu steps, %llu instructions, %llu exceptions, %llu interrupts, "
	       "%llu "
	       "ended in shutdown, %llu steps compared\n1..1\n",
	       (unsigned long long)n->cases, (unsigned long long)seed, (unsigned long long)n->steps,
	       (unsigned long long)n->instructions, (unsigned long long)n->faults, (unsigned long long)n->interrupts,
	       (unsigned long long)n->shutdowns, (unsigned long long)n->compared);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", required_argument, NULL, 's' },
						 { "seconds", required_argument, NULL, 't' },
						 { "cases", required_argument, NULL, 'n' },
						 { "other", required_argument, NULL, 'o' },
						 { "trace", required_argument, NULL, 'r' },
						 { "first", required_argument, NULL, 'f' },
						 { 0 } };
	uint64_t seed = (uint64_t)time(NULL), cases = UINT64_MAX;
	struct case_options o = { .name = name, .first = "interp" };
	struct case_counts counts = { 0 };
	time_t end = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 't': end = time(NULL) + strtol(optarg, NULL, 0); break;
		case 'n': cases = strtoull(optarg, NULL, 0); break;
		case 'f': o.first = optarg; break;
		case 'o': o.other = optarg; break;
		case 'r': o.trace = optarg; break;
		default:
			fprintf(stderr,
				"usage: step [--seed N] [--seconds N] [--cases N] [--first ENGINE] [--other ENGINE] "
				"[--trace FILE]\n");
			return 2;
		}
	}
	struct sigaction action = { .sa_handler = say_case, .sa_flags = (int)SA_RESETHAND | SA_NODEFER };
	const int signals[] = { SIGABRT, SIGFPE, SIGILL };

	for (unsigned n = 0; n < ARRAY_SIZE(signals); n++)
		sigaction(signals[n], &action, NULL);
	while (counts.cases < cases && (!end || time(NULL) < end)) {
		struct choices number = { .state = seed + counts.cases }, choices = { .state = choose(&number) };

		snprintf(name, sizeof(name), "--seed %llu --cases 1", (unsigned long long)(seed + counts.cases));
		case_run(&choices, &o, &counts);
	}
	report(&counts, seed);
	return 0;
}
