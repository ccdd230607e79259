/*
 * A debugger's packets and their answers. All vCPUs stand still while it is not told otherwise; while they run it may only interrupt, let go and kill. Whatever it
 * sends gets an answer: an error's number, or nothing for what is not known, as the protocol has it.
 */
#include "gdb/private.h"

#include <errno.h>
#include <stdlib.h>

#define SIGNAL_INTERRUPT 2
#define SIGNAL_TRAP	 5

/* ---- answers ---- */

void session_send(struct session *s, const void *data, size_t size)
{
	s->last.size = 0;
	/* Out of memory, or nobody reads: the end of it. */
	if (s->out.size > OUTPUT_MOST || !packet_add(&s->last, data, size) ||
	    !bytes_add(&s->out, s->last.data, s->last.size))
		s->detached = true;
}

static void send_text(struct session *s, const char *text) { session_send(s, text, strlen(text)); }

static void send_error(struct session *s, int code)
{
	char text[8];

	snprintf(text, sizeof(text), "E%02x", (unsigned)code & 0xff);
	send_text(s, text);
}

static void send_result(struct session *s, int rc)
{
	if (rc)
		send_error(s, -rc);
	else
		send_text(s, "OK");
}

/* ---- threads: vCPU n is thread n + 1 ---- */

static unsigned cpu_count(const struct session *s) { return machine_config(s->machine)->cpus; }

static struct vcpu *cpu_at(const struct session *s) { return machine_vcpu(s->machine, s->cpu); }

/* Of "N", "0" (any) or "-1" (all): false: none of them. *all: it was one of the last two. */
static bool parse_thread(const struct session *s, const char **at, unsigned *cpu, bool *all)
{
	uint64_t value;

	*all = true;
	if (!strncmp(*at, "-1", 2)) {
		*at += 2;
		return true;
	}
	if (!parse_hex(at, &value) || value > cpu_count(s))
		return false;
	if (value) {
		*cpu = (unsigned)value - 1;
		*all = false;
	}
	return true;
}

static void set_thread(struct session *s, const char *text)
{
	unsigned cpu = s->cpu;
	char what = *text;
	bool all;

	text += what != 0;
	if ((what != 'g' && what != 'c') || !parse_thread(s, &text, &cpu, &all) || *text) {
		send_error(s, EINVAL);
		return;
	}
	*(what == 'g' ? &s->cpu : &s->cpu_to_step) = cpu;
	send_text(s, "OK");
}

static void thread_lives(struct session *s, const char *text)
{
	unsigned cpu;
	bool all;

	send_result(s, parse_thread(s, &text, &cpu, &all) && !all && !*text ? 0 : -EINVAL);
}

static void thread_list(struct session *s, const char *text)
{
	struct reply reply = { .size = 0 };

	(void)text;
	for (unsigned n = 0; n < cpu_count(s); n++)
		reply_text(&reply, "%c%x", n ? ',' : 'm', n + 1);
	session_send(s, reply.data, reply.size);
}

static void thread_list_end(struct session *s, const char *text)
{
	(void)text;
	send_text(s, "l");
}

static void thread_info(struct session *s, const char *text)
{
	static const char *const states[] = { "running", "halted", "waits for SIPI", "shut down" };
	struct reply reply = { .size = 0 };
	char words[64];
	unsigned cpu;
	bool all;

	if (!parse_thread(s, &text, &cpu, &all) || all || *text) {
		send_error(s, EINVAL);
		return;
	}
	snprintf(words, sizeof(words), "CPU %u [%s]", cpu, states[machine_vcpu(s->machine, cpu)->s.activity]);
	reply_hex(&reply, words, strlen(words));
	session_send(s, reply.data, reply.size);
}

static void thread_now(struct session *s, const char *text)
{
	struct reply reply = { .size = 0 };

	if (!*text) /* not qCRC */
		reply_text(&reply, "QC%x", s->cpu + 1);
	session_send(s, reply.data, reply.size);
}

/* ---- registers ---- */

static bool has_avx(const struct session *s) { return has_feature(cpu_at(s), FEATURE_AVX); }

static unsigned count_of(const struct session *s) { return register_count(s->view, has_avx(s)); }

static struct cpu_state state_of(struct vcpu *v)
{
	struct cpu_state state;

	v->engine->ops->pull(v, &state);
	return state;
}

/* What no processor could be in is refused. */
static int take_state(struct vcpu *v, struct cpu_state *state)
{
	struct cpu_pending pending;
	uint64_t rip = v->s.rip;
	struct error err = { 0 };

	state->rflags |= BIT(1);
	if (cpu_state_desc->loaded(state, cpu_state_desc->version, &err) || cpu_state_offered(v, state, &err))
		return -EINVAL;
	if (state->rip != rip)
		state->shadow = SHADOW_NONE;
	cpu_pending_pull(v, &pending);
	v->engine->ops->push(v, state);
	pending.repeating &= state->rip == rip;
	cpu_pending_push(v, &pending);
	v->stop.seen &= state->rip == rip;
	return 0;
}

static void read_registers(struct session *s, const char *text)
{
	struct cpu_state state = state_of(cpu_at(s));
	struct reply reply = { .size = 0 };
	uint8_t bytes[REGISTER_SIZE_MOST];

	(void)text;
	for (unsigned n = 0; n < count_of(s); n++) {
		register_read(&state, s->view, n, bytes);
		reply_hex(&reply, bytes, register_size(s->view, n));
	}
	session_send(s, reply.data, reply.size);
}

static int write_registers(struct session *s, const char *text)
{
	struct cpu_state state = state_of(cpu_at(s));
	size_t left = strlen(text);
	uint8_t bytes[REGISTER_SIZE_MOST];

	for (unsigned n = 0; n < count_of(s); n++) {
		unsigned size = register_size(s->view, n);

		if (left < 2 * size || !parse_hex_bytes(text, 2 * size, bytes, size) ||
		    !register_write(&state, s->view, n, bytes))
			return -EINVAL;
		text += 2 * size;
		left -= 2 * size;
	}
	return left ? -EINVAL : take_state(cpu_at(s), &state);
}

static void set_registers(struct session *s, const char *text) { send_result(s, write_registers(s, text)); }

static void read_register(struct session *s, const char *text)
{
	struct cpu_state state = state_of(cpu_at(s));
	struct reply reply = { .size = 0 };
	uint8_t bytes[REGISTER_SIZE_MOST];
	uint64_t number;

	if (!parse_hex(&text, &number) || *text || number >= count_of(s)) {
		send_error(s, EINVAL);
		return;
	}
	register_read(&state, s->view, (unsigned)number, bytes);
	reply_hex(&reply, bytes, register_size(s->view, (unsigned)number));
	session_send(s, reply.data, reply.size);
}

static int write_register(struct session *s, const char *text)
{
	struct cpu_state state = state_of(cpu_at(s));
	uint8_t bytes[REGISTER_SIZE_MOST];
	uint64_t number;

	if (!parse_hex(&text, &number) || *text++ != '=' || number >= count_of(s))
		return -EINVAL;
	if (!parse_hex_bytes(text, strlen(text), bytes, register_size(s->view, (unsigned)number)))
		return -EINVAL;
	return register_write(&state, s->view, (unsigned)number, bytes) ? take_state(cpu_at(s), &state) : -EPERM;
}

static void set_register(struct session *s, const char *text) { send_result(s, write_register(s, text)); }

/* ---- memory ---- */

/* The physical address of the first byte, and how many of them are there together. 0: nothing is mapped. */
static size_t find_piece(const struct session *s, uint64_t address, size_t size, gpa_t *at)
{
	*at = gpa(address);
	if (!s->physical && cpu_translate_debug(cpu_at(s), gva(address), at))
		return 0;
	return MIN(size, PAGE_SIZE - (address & ~PAGE_MASK));
}

/* How many could be read. */
static size_t read_bytes(const struct session *s, uint64_t address, uint8_t *bytes, size_t size)
{
	size_t done = 0, piece;
	gpa_t at;

	while (done < size && (piece = find_piece(s, address + done, size - done, &at))) {
		if (mem_read(cpu_at(s)->mem, at, bytes + done, piece))
			break;
		done += piece;
	}
	return done;
}

/* All or nothing, as far as page tables go. */
static int write_bytes(const struct session *s, uint64_t address, const uint8_t *bytes, size_t size)
{
	size_t piece;
	gpa_t at;

	for (size_t done = 0; done < size; done += piece) {
		piece = find_piece(s, address + done, size - done, &at);
		if (!piece || !mem_map(cpu_at(s)->mem, at, piece, true))
			return -EFAULT;
	}
	for (size_t done = 0; done < size; done += piece) {
		piece = find_piece(s, address + done, size - done, &at);
		if (!piece || mem_write(cpu_at(s)->mem, at, bytes + done, piece))
			return -EFAULT;
	}
	return 0;
}

static bool parse_range(const char **text, uint64_t *address, uint64_t *size)
{
	return parse_hex(text, address) && *(*text)++ == ',' && parse_hex(text, size);
}

static void read_memory(struct session *s, const char *text)
{
	struct reply reply = { .size = 0 };
	uint8_t bytes[sizeof(reply.data) / 2];
	uint64_t address, size;
	size_t done;

	if (!parse_range(&text, &address, &size) || *text) {
		send_error(s, EINVAL);
		return;
	}
	done = read_bytes(s, address, bytes, MIN(size, sizeof(bytes)));
	if (!done && size) {
		send_error(s, EFAULT);
		return;
	}
	reply_hex(&reply, bytes, done);
	session_send(s, reply.data, reply.size);
}

static void write_memory(struct session *s, const char *text)
{
	uint8_t bytes[PACKET_MOST / 2];
	uint64_t address, size;

	if (!parse_range(&text, &address, &size) || *text++ != ':' || size > sizeof(bytes) ||
	    !parse_hex_bytes(text, strlen(text), bytes, size))
		send_error(s, EINVAL);
	else
		send_result(s, write_bytes(s, address, bytes, size));
}

/* Its data may have any bytes. */
static void write_binary(struct session *s, const char *text)
{
	const char *end = (const char *)s->reader.data + s->reader.size;
	uint64_t address, size;

	if (!parse_range(&text, &address, &size) || *text++ != ':' || size != (size_t)(end - text))
		send_error(s, EINVAL);
	else
		send_result(s, write_bytes(s, address, (const uint8_t *)text, size));
}

/* ---- breakpoints and watches ---- */

enum { POINT_SOFTWARE, POINT_HARDWARE, POINT_WRITE, POINT_READ, POINT_ACCESS, POINT_COUNT };

static int change_point(struct session *s, const char *text, bool set)
{
	struct point p = { 0 };
	uint64_t kind;
	unsigned n = 0;

	if (!parse_hex(&text, &kind) || kind >= POINT_COUNT || *text++ != ',' ||
	    !parse_range(&text, &p.address, &p.size) || (*text && *text != ';'))
		return -EINVAL;
	if (kind >= POINT_WRITE && (!p.size || p.address + (p.size - 1) < p.address))
		return -EINVAL;
	p.kind = (unsigned)kind;
	while (n < s->point_count &&
	       (s->points[n].kind != p.kind || s->points[n].address != p.address || s->points[n].size != p.size))
		n++;
	if (!set && n < s->point_count)
		s->points[n] = s->points[--s->point_count];
	if (set && n == STOPS_MOST)
		return -ENOSPC;
	if (set && n == s->point_count)
		s->points[s->point_count++] = p;
	return 0;
}

static void set_point(struct session *s, const char *text) { send_result(s, change_point(s, text, true)); }
static void clear_point(struct session *s, const char *text) { send_result(s, change_point(s, text, false)); }

static void plan_stops(const struct session *s, struct stops *stops)
{
	static const unsigned kinds[POINT_COUNT] = {
		[POINT_WRITE] = WATCH_WRITE, [POINT_READ] = WATCH_READ, [POINT_ACCESS] = WATCH_READ | WATCH_WRITE
	};

	for (unsigned n = 0; n < s->point_count; n++) {
		const struct point *p = &s->points[n];

		if (kinds[p->kind])
			stops->watches[stops->watch_count++] =
				(struct watchpoint){ p->address, p->size, kinds[p->kind] };
		else
			stops->breakpoints[stops->breakpoint_count++] = p->address;
	}
}

/* ---- stops ---- */

static bool has_point(const struct session *s, unsigned kind, uint64_t address)
{
	for (unsigned n = 0; n < s->point_count; n++)
		if (s->points[n].kind == kind && s->points[n].address == address)
			return true;
	return false;
}

/* The reason, where the debugger understands it. A breakpoint of a segment whose base is not 0 is known to it by another address than RIP. */
static void add_reason(const struct session *s, const struct vcpu *v, struct reply *reply)
{
	static const char *const watches[] = {
		[WATCH_WRITE] = "watch", [WATCH_READ] = "rwatch", [WATCH_READ | WATCH_WRITE] = "awatch"
	};

	if (v->stop.kind == STOP_WATCH)
		reply_text(reply, "%s:%llx;", watches[v->stop.watch_kinds], (unsigned long long)v->stop.watch_address);
	else if (v->stop.kind == STOP_BREAKPOINT && s->swbreak && has_point(s, POINT_SOFTWARE, v->s.rip))
		reply_text(reply, "swbreak:;");
	else if (v->stop.kind == STOP_BREAKPOINT && s->hwbreak && has_point(s, POINT_HARDWARE, v->s.rip))
		reply_text(reply, "hwbreak:;");
}

static void send_stop(struct session *s, unsigned signal)
{
	struct reply reply = { .size = 0 };

	reply_text(&reply, "T%02xthread:%x;", signal, s->cpu + 1);
	if (signal == SIGNAL_TRAP)
		add_reason(s, cpu_at(s), &reply);
	session_send(s, reply.data, reply.size);
}

/* A stop of which the debugger has not heard: first of a vCPU that it steps. False: there is none. */
static bool report_stop(struct session *s, bool watches_alone)
{
	for (unsigned n = 0; n < cpu_count(s); n++) {
		unsigned cpu = (s->cpu_to_step + n) % cpu_count(s);
		struct vcpu *v = machine_vcpu(s->machine, cpu);

		if (!v->stop.kind || v->stop.seen || (watches_alone && v->stop.kind != STOP_WATCH))
			continue;
		v->stop.seen = true;
		s->cpu = s->cpu_to_step = cpu;
		s->runs = false;
		send_stop(s, SIGNAL_TRAP);
		return true;
	}
	return false;
}

void session_stopped(struct session *s)
{
	if (s->runs)
		report_stop(s, false);
}

static void interrupt(struct session *s)
{
	if (!s->runs)
		return;
	machine_debug_stop(s->machine);
	if (report_stop(s, false))
		return;
	s->runs = false;
	send_stop(s, SIGNAL_INTERRUPT);
}

static void why_stopped(struct session *s, const char *text)
{
	(void)text;
	send_stop(s, SIGNAL_TRAP);
}

/* ---- going on ---- */

static void go_on(struct session *s, struct debug_plan *plan)
{
	s->runs = true;
	/* Of accesses that were made nothing can be made again. */
	if (report_stop(s, true))
		return;
	plan->quiet = !s->loud;
	plan_stops(s, &plan->stops);
	machine_debug_go_on(s->machine, plan);
}

static void go_on_all(struct session *s, unsigned stepping, bool step)
{
	struct debug_plan plan = { .quiet = false };

	memset(plan.actions, DEBUG_GO_ON, sizeof(plan.actions));
	if (step)
		plan.actions[stepping] = DEBUG_STEP;
	go_on(s, &plan);
}

/* Of "[ADDRESS]": where to. */
static bool parse_goal(struct session *s, const char *text)
{
	struct vcpu *v = machine_vcpu(s->machine, s->cpu_to_step);
	struct cpu_state state = state_of(v);

	return !*text || (parse_hex(&text, &state.rip) && !*text && !take_state(v, &state));
}

static void run_or_step(struct session *s, const char *text, bool step)
{
	if (parse_goal(s, text))
		go_on_all(s, s->cpu_to_step, step);
	else
		send_error(s, EINVAL);
}

static void run(struct session *s, const char *text) { run_or_step(s, text, false); }
static void step(struct session *s, const char *text) { run_or_step(s, text, true); }

/* "SIGNAL[;ADDRESS]": processors have no signals. */
static const char *behind_signal(const char *text)
{
	uint64_t signal;

	(void)parse_hex(&text, &signal);
	return *text == ';' ? text + 1 : text;
}

static void run_signal(struct session *s, const char *text) { run_or_step(s, behind_signal(text), false); }
static void step_signal(struct session *s, const char *text) { run_or_step(s, behind_signal(text), true); }

/* ";ACTION[:THREAD]"...: of several that fit a thread the first one counts. */
static bool parse_actions(struct session *s, const char *text, struct debug_plan *plan)
{
	bool named[MACHINE_MAX_CPUS] = { false }, all;
	unsigned cpu = 0;
	uint64_t signal;

	while (*text++ == ';') {
		char what = *text ? *text++ : 0;
		uint8_t action = what == 's' || what == 'S' ? DEBUG_STEP : DEBUG_GO_ON;

		if (!what || !strchr("cCsS", what) || ((what == 'C' || what == 'S') && !parse_hex(&text, &signal)))
			return false;
		all = true;
		if (*text == ':' && (text++, !parse_thread(s, &text, &cpu, &all)))
			return false;
		for (unsigned n = 0; n < cpu_count(s); n++) {
			if (named[n] || (!all && n != cpu))
				continue;
			named[n] = true;
			plan->actions[n] = action;
			if (action == DEBUG_STEP)
				s->cpu_to_step = n;
		}
	}
	return !text[-1] && memchr(named, true, sizeof(named));
}

static void run_actions(struct session *s, const char *text)
{
	struct debug_plan plan = { .quiet = false };

	if (parse_actions(s, text, &plan))
		go_on(s, &plan);
	else
		send_error(s, EINVAL);
}

static void show_actions(struct session *s, const char *text)
{
	(void)text;
	send_text(s, "vCont;c;C;s;S");
}

/* ---- coming and going ---- */

static void detach(struct session *s, const char *text)
{
	(void)text;
	send_text(s, "OK");
	s->detached = true;
}

static void kill_machine(struct session *s, const char *text)
{
	(void)text;
	s->detached = s->over = true;
	machine_quit(s->machine);
}

static void kill_politely(struct session *s, const char *text)
{
	send_text(s, "OK");
	kill_machine(s, text);
}

static void agree(struct session *s, const char *text)
{
	struct reply reply = { .size = 0 };

	s->swbreak = strstr(text, "swbreak+") != NULL;
	s->hwbreak = strstr(text, "hwbreak+") != NULL;
	reply_text(&reply,
		   "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+;"
		   "qqemu.PhyMemMode+",
		   PACKET_MOST);
	session_send(s, reply.data, reply.size);
}

static void stop_acknowledging(struct session *s, const char *text)
{
	(void)text;
	send_text(s, "OK");
	s->no_ack = true;
}

static void is_attached(struct session *s, const char *text)
{
	(void)text;
	send_text(s, "1");
}

static void no_symbols(struct session *s, const char *text)
{
	(void)text;
	send_text(s, "OK");
}

/* "target.xml:OFFSET,SIZE" */
static void describe(struct session *s, const char *text)
{
	static const char annex[] = "target.xml:";
	struct reply reply = { .size = 0 };
	uint64_t offset, size;

	if (strncmp(text, annex, sizeof(annex) - 1) != 0) {
		send_error(s, ENOENT);
		return;
	}
	text += sizeof(annex) - 1;
	if (!parse_range(&text, &offset, &size) || *text || !register_describe(s->view, has_avx(s), &s->description)) {
		send_error(s, EINVAL);
		return;
	}
	offset = MIN(offset, s->description.size);
	size = MIN(size, MIN(s->description.size - offset, sizeof(reply.data) - 1));
	reply_text(&reply, "%c", offset + size == s->description.size ? 'l' : 'm');
	reply_bytes(&reply, s->description.data + offset, size);
	session_send(s, reply.data, reply.size);
}

static void is_physical(struct session *s, const char *text)
{
	(void)text;
	send_text(s, s->physical ? "1" : "0");
}

static void set_physical(struct session *s, const char *text)
{
	if ((*text != '0' && *text != '1') || text[1]) {
		send_error(s, EINVAL);
		return;
	}
	s->physical = *text == '1';
	send_text(s, "OK");
}

static void monitor(struct session *s, const char *text)
{
	size_t size = strlen(text) / 2;
	char line[256];

	if (size >= sizeof(line) || !parse_hex_bytes(text, strlen(text), (uint8_t *)line, size)) {
		send_error(s, EINVAL);
		return;
	}
	line[size] = 0;
	monitor_execute(s, line);
	send_text(s, "OK");
}

/* ---- packets ---- */

/* Of several that a packet begins with the first one counts. while_running: it needs no vCPU to stand still. */
static const struct {
	const char *name;
	void (*fn)(struct session *, const char *text);
	bool while_running;
} packets[] = {
	{ "?", why_stopped, false },
	{ "g", read_registers, false },
	{ "G", set_registers, false },
	{ "p", read_register, false },
	{ "P", set_register, false },
	{ "m", read_memory, false },
	{ "M", write_memory, false },
	{ "X", write_binary, false },
	{ "Z", set_point, false },
	{ "z", clear_point, false },
	{ "c", run, false },
	{ "C", run_signal, false },
	{ "s", step, false },
	{ "S", step_signal, false },
	{ "H", set_thread, false },
	{ "T", thread_lives, false },
	{ "D", detach, true },
	{ "k", kill_machine, true },
	{ "vCont?", show_actions, false },
	{ "vCont", run_actions, false },
	{ "vKill", kill_politely, true },
	{ "qSupported", agree, false },
	{ "QStartNoAckMode", stop_acknowledging, false },
	{ "qXfer:features:read:", describe, false },
	{ "qAttached", is_attached, false },
	{ "qSymbol:", no_symbols, false },
	{ "qC", thread_now, false },
	{ "qfThreadInfo", thread_list, false },
	{ "qsThreadInfo", thread_list_end, false },
	{ "qThreadExtraInfo,", thread_info, false },
	{ "qRcmd,", monitor, false },
	{ "qqemu.PhyMemMode", is_physical, false },
	{ "Qqemu.PhyMemMode:", set_physical, false },
};

static void serve(struct session *s)
{
	const char *text = (const char *)s->reader.data;

	for (unsigned n = 0; n < ARRAY_SIZE(packets); n++) {
		size_t length = strlen(packets[n].name);

		if (strncmp(text, packets[n].name, length) != 0)
			continue;
		if (s->runs && !packets[n].while_running)
			send_error(s, EBUSY);
		else
			packets[n].fn(s, text + length);
		return;
	}
	send_text(s, "");
}

static void acknowledge(struct session *s, char byte)
{
	if (!s->no_ack && !bytes_add(&s->out, &byte, 1))
		s->detached = true;
}

bool session_input(struct session *s, const uint8_t *bytes, size_t size)
{
	size_t used = 0;

	while (used < size && !s->detached) {
		switch (packet_next(&s->reader, bytes, size, &used)) {
		case PACKET_WHOLE:
			acknowledge(s, '+');
			serve(s);
			break;
		case PACKET_BAD: acknowledge(s, '-'); break;
		case PACKET_INTERRUPT: interrupt(s); break;
		case PACKET_NAK:
			if (s->out.size <= OUTPUT_MOST)
				(void)bytes_add(&s->out, s->last.data, s->last.size);
			break;
		case PACKET_TOO_LONG: s->detached = true; break;
		case PACKET_MORE: break;
		}
	}
	return !s->detached;
}

/* ---- life ---- */

int session_begin(struct session *s, struct machine *machine, enum view view, void (*stopped)(void *), void *opaque,
		  struct error *err)
{
	int rc;

	s->machine = machine;
	s->view = s->next_view = view;
	rc = machine_debug_attach(machine, stopped, opaque, err);
	if (!rc)
		machine_debug_stop(machine);
	return rc;
}

void session_end(struct session *s)
{
	machine_debug_detach(s->machine);
	free(s->description.data);
	free(s->last.data);
	free(s->out.data);
}

void session_machine_ended(struct session *s, int status)
{
	char text[8];

	if (!s->runs || s->detached)
		return;
	snprintf(text, sizeof(text), "W%02x", (unsigned)status & 0xff);
	send_text(s, text);
}
