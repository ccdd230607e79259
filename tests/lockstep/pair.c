/*
 * Two machines, each as it always runs: a thread a vCPU, an event loop. They meet before each step, where the one that comes second
 * compares both.
 */
#include "lockstep.h"

#include "machine/machine.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct side {
	struct meeting *meeting;
	struct machine *machine;
	struct machine_observer observer;
	pthread_t thread;
	struct vcpu *waiting; /* about to run */
	uint64_t target;      /* position of the next meeting */
	bool ended;
	int status;
};

struct meeting {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct side side[SIDES];
	struct comparison *comparison;
	uint64_t number; /* of steps decided */
	uint64_t step;	 /* the last one's size */
	bool over;	 /* nobody runs on */
};

/* ---- meeting ---- */

static void decide(struct meeting *m)
{
	struct vcpu *const v[SIDES] = { m->side[REFERENCE].waiting, m->side[TESTED].waiting };

	m->step = comparison_step(m->comparison, v);
	m->over = !m->step;
	m->side[REFERENCE].waiting = m->side[TESTED].waiting = NULL;
	m->number++;
	pthread_cond_broadcast(&m->changed);
}

static uint64_t position_of(const struct vcpu *v) { return machine_position(v->peers, v->peer_count); }

static uint64_t before_run(void *opaque, struct vcpu *v)
{
	struct side *s = opaque, *other;
	struct meeting *m = s->meeting;
	uint64_t number, step;

	pthread_mutex_lock(&m->lock);
	other = &m->side[s == &m->side[REFERENCE] ? TESTED : REFERENCE];
	if (position_of(v) < s->target && !m->over) {
		step = s->target - position_of(v);
		goto out;
	}
	s->waiting = v;
	number = m->number;
	if (other->waiting && !m->over)
		decide(m);
	/* The other's end is looked at by comparison_end(). */
	m->over |= other->ended;
	while (!m->over && m->number == number)
		pthread_cond_wait(&m->changed, &m->lock);
	step = m->step;
	s->target = position_of(v) + step;
out:
	if (m->over)
		machine_quit(s->machine);
	pthread_mutex_unlock(&m->lock);
	return MAX(step, 1);
}

static void *run_side(void *opaque)
{
	struct side *s = opaque;
	struct meeting *m = s->meeting;
	int status = machine_run(s->machine);

	pthread_mutex_lock(&m->lock);
	s->status = status;
	s->ended = !m->over;
	if (s->ended && m->side[s == &m->side[REFERENCE] ? TESTED : REFERENCE].waiting)
		m->over = true;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

/* ---- life ---- */

static bool create_side(struct pair *p, struct meeting *m, unsigned n, const char *engine)
{
	struct side *s = &m->side[n];
	struct machine_config config = *p->config;
	struct error err = { 0 };
	char serial[512] = "null";

	s->meeting = m;
	s->observer = (struct machine_observer){ before_run, s };
	if (p->serial)
		snprintf(serial, sizeof(serial), "file:%s.%u", p->serial, n);
	config.clock = CLOCK_VIRTUAL;
	config.engine = engine;
	config.devices[config.device_count++] = (struct device_request){ "uart", "chardev", serial, NULL };
	config.observer = &s->observer;
	if (!machine_create(&s->machine, &config, &err))
		return true;
	fprintf(stderr, "lockstep: engine %s: %s\n", engine, err.text);
	return false;
}

static void run_both(struct meeting *m)
{
	bool ended[SIDES];
	int status[SIDES];

	for (unsigned n = 0; n < SIDES; n++)
		BUG_ON(pthread_create(&m->side[n].thread, NULL, run_side, &m->side[n]));
	for (unsigned n = 0; n < SIDES; n++)
		pthread_join(m->side[n].thread, NULL);
	for (unsigned n = 0; n < SIDES; n++) {
		ended[n] = m->side[n].ended;
		status[n] = m->side[n].status;
	}
	if (ended[REFERENCE] || ended[TESTED])
		comparison_end(m->comparison, ended, status);
}

static bool run(struct subject *subject, const struct plan *plan, struct difference *d,
		struct comparison_counts *counts)
{
	struct pair *p = container_of(subject, struct pair, subject);
	struct meeting m = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	bool good = create_side(p, &m, REFERENCE, p->reference) && create_side(p, &m, TESTED, plan->engine);

	m.comparison = comparison_create(plan, d);
	if (good)
		run_both(&m);
	*counts = comparison_counts(m.comparison);
	for (unsigned n = 0; n < SIDES; n++)
		machine_destroy(m.side[n].machine);
	comparison_destroy(m.comparison);
	return good;
}

void pair_init(struct pair *p) { p->subject.run = run; }
