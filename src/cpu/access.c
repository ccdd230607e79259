/*
 * Guest memory accesses by linear address, where the inline ones of access.h find no TLB entry: fills the TLB, splits accesses at
 * page boundaries, reaches devices, notices writes to decoded code. See struct mem_page for the invariant with decoding.
 */
#include "cpu/private.h"

#include <errno.h>

/* One page of an access, ready for it. */
struct target {
	gpa_t gpa;	       /* of the first byte */
	uint8_t *host;	       /* NULL: a device */
	struct mem_page *code; /* a write must be noted with this page; NULL: not */
	bool rom;	       /* writes are dropped */
};

static _Noreturn void raise_walk_fault(struct vcpu *v, struct fault fault, bool ss)
{
	if (fault.vector == EXC_GP && ss)
		fault.vector = EXC_SS;
	cpu_raise_fault(v, fault);
}

/* Outside long mode linear addresses wrap at 4 GiB, in 64-bit mode at 2^64. */
static uint64_t linear(const struct vcpu *v, uint64_t lin) { return in_long_mode(v) ? lin : (uint32_t)lin; }

/*
 * The last address that an access may go on to before it wraps. In compatibility mode: operands as outside long mode (found so on
 * the host's processor), but what the processor itself reads has 64 bits.
 */
static uint64_t last_of_data(const struct vcpu *v) { return v->code_mode == MODE_64 ? UINT64_MAX : UINT32_MAX; }
static uint64_t last_of_system(const struct vcpu *v) { return in_long_mode(v) ? UINT64_MAX : UINT32_MAX; }

static uint64_t next_page(uint64_t lin, uint64_t last) { return ((lin & PAGE_MASK) + PAGE_SIZE) & last; }

static bool crosses_page(uint64_t lin, unsigned size) { return (lin & ~PAGE_MASK) + size > PAGE_SIZE; }

/* A global translation is good for the current address space as well. */
static void renew(const struct vcpu *v, struct tlb_entry *e, uint64_t lin)
{
	uint64_t page = lin & PAGE_MASK;

	if ((e->gpa & ~PAGE_MASK) != v->global_tag || (e->read_tag & PAGE_MASK) != page)
		return;
	e->read_tag = page | v->asid;
	if (e->write_tag)
		e->write_tag = page | v->asid;
}

/* Enter RAM and ROM into the TLB: for reading always, for writing if the page is dirty and holds no code. */
static struct target enter_tlb(struct vcpu *v, uint64_t lin, const struct page_walk *walk, enum tlb_view view)
{
	uint64_t offset = lin & ~PAGE_MASK, tag = (lin & PAGE_MASK) | v->asid;
	struct tlb_entry *e = &v->tlbs[view][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
	const struct mem_region *region = mem_find(v->mem, walk->page);
	struct target t = { .gpa = gpa(walk->page.v | offset) };

	if (!region || !region->host)
		return t;

	uint8_t *page = region->host + (walk->page.v - region->start);
	bool writable = walk->dirty && (walk->writable || (view != TLB_USER && !(v->s.cr0 & CR0_WP)));

	t.host = page + offset;
	t.rom = !region->writable;
	*e = (struct tlb_entry){ .read_tag = tag,
				 .addend = (uint64_t)page - (lin & PAGE_MASK),
				 .gpa = walk->page.v | cpu_global_tag(v, lin, walk) };
	if (t.rom)
		return t;
	struct mem_page *record = &region->pages[(walk->page.v - region->start) >> PAGE_SHIFT];
	if (writable && mem_allow_direct(v->mem, record, DIRECT_TLB(e - v->tlbs[view])))
		e->write_tag = tag;
	else
		t.code = record;
	if (writable && v->hooks->tlb_writable)
		v->hooks->tlb_writable(v, walk->page);
	return t;
}

/* What is written where something else is read: never by the TLB. */
static struct target write_behind(const struct mem_region *region, const struct page_walk *walk, uint64_t offset)
{
	uint64_t page = walk->page.v - region->start;

	return (struct target){ .gpa = gpa(walk->page.v | offset),
				.host = region->write_host + page + offset,
				.code = &region->write_pages[page >> PAGE_SHIFT] };
}

static struct target enter(struct vcpu *v, uint64_t lin, const struct page_walk *walk, enum tlb_view view,
			   enum access access)
{
	const struct mem_region *region = mem_find(v->mem, walk->page);

	if (unlikely(access == ACCESS_WRITE && region && !region->writable)) {
		if (region->write_host)
			return write_behind(region, walk, lin & ~PAGE_MASK);
		if (region->write_bus)
			return (struct target){ .gpa = gpa(walk->page.v | (lin & ~PAGE_MASK)) };
	}
	return enter_tlb(v, lin, walk, view);
}

/* Translate for one access within a page, raising its faults; dirty is the page then if it is written. */
static struct target reach(struct vcpu *v, uint64_t lin, enum access access, enum tlb_view view, bool ss)
{
	uint64_t offset = lin & ~PAGE_MASK, tag = (lin & PAGE_MASK) | v->asid;
	struct tlb_entry *e = &v->tlbs[view][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
	struct page_walk walk;
	struct target target;
	struct fault fault;
	int failed;

	renew(v, e, lin);
	if ((access == ACCESS_WRITE ? e->write_tag : e->read_tag) == tag)
		return (struct target){ .gpa = gpa((e->gpa & PAGE_MASK) | offset),
					.host = (uint8_t *)(lin + e->addend) };
	v->count[COUNT_TLB_MISSES]++;
	failed = cpu_walk(v, gva(lin), access, view == TLB_USER, view == TLB_KERNEL_AC, &walk, &fault);
	if (!failed)
		target = enter(v, lin, &walk, view, access);
	cpu_check_memory(v);
	if (failed)
		raise_walk_fault(v, fault, ss);
	return target;
}

/* ---- what a reached page does with bytes ---- */

static void note_events(struct vcpu *v)
{
	if (unlikely(atomic_load_explicit(&v->events, memory_order_relaxed)) && v->hooks->events_posted)
		v->hooks->events_posted(v);
}

static uint64_t mmio_read(struct vcpu *v, gpa_t address, unsigned size)
{
	uint64_t value;

	v->count[COUNT_MMIO_READS]++;
	value = v->env->mmio_read(v, address, size);
	note_events(v);
	return size == 8 ? value : value & (BIT(8 * size) - 1);
}

static void mmio_write(struct vcpu *v, gpa_t address, unsigned size, uint64_t value)
{
	v->count[COUNT_MMIO_WRITES]++;
	v->env->mmio_write(v, address, size, value);
	note_events(v);
}

/* Largest aligned piece of a device access that is not a whole 1, 2, 4 or 8 bytes. */
static unsigned device_piece(uint64_t address, unsigned left)
{
	unsigned piece = 8;

	while (piece > left || (address & (piece - 1)))
		piece /= 2;
	return piece;
}

static void device_read(struct vcpu *v, gpa_t address, uint8_t *to, unsigned len)
{
	for (unsigned done = 0; done < len;) {
		unsigned piece = device_piece(address.v + done, len - done);
		uint64_t value = mmio_read(v, gpa(address.v + done), piece);

		memcpy(to + done, &value, piece);
		done += piece;
	}
}

static void device_write(struct vcpu *v, gpa_t address, const uint8_t *from, unsigned len)
{
	for (unsigned done = 0; done < len;) {
		unsigned piece = device_piece(address.v + done, len - done);
		uint64_t value = 0;

		memcpy(&value, from + done, piece);
		mmio_write(v, gpa(address.v + done), piece, value);
		done += piece;
	}
}

static void note_code_write(struct vcpu *v, struct mem_page *record, gpa_t address, unsigned size)
{
	if (!mem_note_page(v->mem, record, address, size))
		return;
	v->count[COUNT_CODE_WRITES]++;
	TRACE(v->trace, CODE, "cpu%u write to code at physical %#lx, rip %#lx", v->index, address.v, v->s.rip);
	vcpu_post(v, EVENT_CODE);
}

void cpu_note_write(struct vcpu *v, gpa_t address, unsigned size)
{
	struct mem_page *record = mem_page(v->mem, address);

	if (record)
		note_code_write(v, record, address, size);
}

int cpu_write_physical(struct vcpu *v, gpa_t address, const void *from, unsigned size)
{
	while (size) {
		unsigned here = MIN(size, PAGE_SIZE - (unsigned)(address.v & ~PAGE_MASK));
		uint8_t *host = mem_map(v->mem, address, here, true);

		if (!host)
			return -EFAULT;
		memcpy(host, from, here);
		cpu_note_write(v, address, here);
		address.v += here;
		from = (const char *)from + here;
		size -= here;
	}
	return 0;
}

static void target_read(struct vcpu *v, const struct target *t, uint8_t *to, unsigned len)
{
	if (t->host)
		memcpy(to, t->host, len);
	else
		device_read(v, t->gpa, to, len);
}

static void target_write(struct vcpu *v, const struct target *t, const uint8_t *from, unsigned len)
{
	if (!t->host) {
		device_write(v, t->gpa, from, len);
	} else if (!t->rom) {
		memcpy(t->host, from, len);
		if (t->code)
			note_code_write(v, t->code, t->gpa, len);
	}
}

static bool is_direct(const struct target *t) { return t->host && !t->rom && !t->code; }

static void note_direct(struct vcpu *v, const struct target *t, unsigned len)
{
	if (is_direct(t))
		cpu_note_write(v, t->gpa, len);
}

/* ---- accesses in a given view ---- */

static uint64_t load_in_view(struct vcpu *v, uint64_t lin, unsigned size, uint64_t last, enum tlb_view view, bool ss)
{
	uint64_t value = 0;

	lin = linear(v, lin);
	if (likely(!crosses_page(lin, size))) {
		struct target t = reach(v, lin, ACCESS_READ, view, ss);

		if (likely(t.host))
			return host_load(t.host, size);
		return mmio_read(v, t.gpa, size);
	}

	unsigned head = PAGE_SIZE - (lin & ~PAGE_MASK);
	struct target first = reach(v, lin, ACCESS_READ, view, ss);
	struct target second = reach(v, next_page(lin, last), ACCESS_READ, view, ss);

	target_read(v, &first, (uint8_t *)&value, head);
	target_read(v, &second, (uint8_t *)&value + head, size - head);
	return value;
}

static void store_in_view(struct vcpu *v, uint64_t lin, uint64_t value, unsigned size, uint64_t last,
			  enum tlb_view view, bool ss)
{
	lin = linear(v, lin);
	if (likely(!crosses_page(lin, size))) {
		struct target t = reach(v, lin, ACCESS_WRITE, view, ss);

		if (!t.host) {
			if (size < 8)
				value &= BIT(8 * size) - 1;
			mmio_write(v, t.gpa, size, value);
		} else if (!t.rom) {
			host_store(t.host, value, size);
			if (t.code)
				note_code_write(v, t.code, t.gpa, size);
		}
		return;
	}

	unsigned head = PAGE_SIZE - (lin & ~PAGE_MASK);
	struct target first = reach(v, lin, ACCESS_WRITE, view, ss);
	struct target second = reach(v, next_page(lin, last), ACCESS_WRITE, view, ss);

	/*
	 * The vCPU may have waited since the first was reached, and before the second is written where the first is a device: what could be written
	 * directly may hold code by now, or be logged.
	 */
	target_write(v, &first, (const uint8_t *)&value, head);
	note_direct(v, &first, head);
	target_write(v, &second, (const uint8_t *)&value + head, size - head);
	note_direct(v, &second, size - head);
}

/* Reach every page of a range for nothing but the faults. */
static void probe_data(struct vcpu *v, uint64_t lin, unsigned len, enum access access, bool ss)
{
	lin = linear(v, lin);
	for (;;) {
		unsigned here = PAGE_SIZE - (lin & ~PAGE_MASK);

		reach(v, lin, access, v->tlb_view, ss);
		if (len <= here)
			return;
		len -= here;
		lin = next_page(lin, last_of_data(v));
	}
}

/* ---- what is looked at while v->tlb is tlb_never ---- */

uint64_t cpu_matching_breakpoints(const struct vcpu *v, uint64_t address, unsigned size, unsigned kinds)
{
	static const uint8_t lengths[4] = { 1, 2, 8, 4 };
	uint64_t hit = 0;

	for (unsigned n = 0; n < 4; n++) {
		unsigned kind = bits(v->s.dr[7], 17 + 4 * n, 16 + 4 * n);
		unsigned len = lengths[bits(v->s.dr[7], 19 + 4 * n, 18 + 4 * n)];
		uint64_t start = v->s.dr[n] & ~(uint64_t)(len - 1);

		if (!bits(v->s.dr[7], 2 * n + 1, 2 * n) || !(kinds & BIT(kind)))
			continue;
		if (address <= start + len - 1 && start <= address + size - 1)
			hit |= BIT(n);
	}
	return hit;
}

static bool accesses_are_checked(const struct vcpu *v) { return unlikely(v->tlb == v->tlb_never); }

/* The access does not wrap. */
static void note_range(struct vcpu *v, uint64_t lin, unsigned size, enum access access)
{
	bool write = access == ACCESS_WRITE;

	v->s.pending_debug |=
		cpu_matching_breakpoints(v, lin, size, BIT(BREAK_ACCESS) | (write ? BIT(BREAK_WRITE) : 0));
	if (unlikely(v->stops))
		cpu_note_watches(v, lin, size, write ? WATCH_WRITE : WATCH_READ);
}

/* After the access, which did not fault: debug traps come when the instruction is done. */
static void note_breakpoints(struct vcpu *v, uint64_t lin, unsigned size, enum access access)
{
	uint64_t left = last_of_data(v) - lin; /* bytes behind the first one, before it wraps */
	unsigned beyond = size - 1 > left ? size - 1 - (unsigned)left : 0;

	note_range(v, linear(v, lin), size - beyond, access);
	if (beyond)
		note_range(v, 0, beyond, access);
}

/* ---- the public accesses: in the current view ---- */

/* Neither is it there, nor does it need to be looked at each time. */
static bool may_fill(const struct vcpu *v, const struct tlb_entry *e, uint64_t lin, bool write)
{
	return !accesses_are_checked(v) && is_canonical(lin) &&
	       (write ? e->write_tag : e->read_tag) != ((lin & PAGE_MASK) | v->asid);
}

bool cpu_tlb_fill(struct vcpu *v, uint64_t lin, bool write)
{
	struct tlb_entry *e = tlb_slot(v, lin);

	if (!may_fill(v, e, lin, write))
		return false;
	reach(v, lin, write ? ACCESS_WRITE : ACCESS_READ, v->tlb_view, false);
	return (write ? e->write_tag : e->read_tag) == ((lin & PAGE_MASK) | v->asid);
}

bool cpu_tlb_fill_marked(struct vcpu *v, uint64_t lin, bool write)
{
	struct tlb_entry *e = tlb_slot(v, lin);
	uint64_t tag = (lin & PAGE_MASK) | v->asid;
	struct page_walk walk;

	if (!may_fill(v, e, lin, write))
		return false;
	renew(v, e, lin);
	if ((write ? e->write_tag : e->read_tag) == tag)
		return true;
	if (!cpu_walk_marked(v, gva(lin), write ? ACCESS_WRITE : ACCESS_READ, v->tlb_view == TLB_USER,
			     v->tlb_view == TLB_KERNEL_AC, &walk))
		return false;
	enter_tlb(v, lin, &walk, v->tlb_view);
	return (write ? e->write_tag : e->read_tag) == tag;
}

uint64_t cpu_load_slow(struct vcpu *v, uint64_t lin, unsigned size, bool ss)
{
	uint64_t value;

	if (likely(!accesses_are_checked(v)))
		return load_in_view(v, lin, size, last_of_data(v), v->tlb_view, ss);
	cpu_check_alignment(v, lin, size);
	value = load_in_view(v, lin, size, last_of_data(v), v->tlb_view, ss);
	note_breakpoints(v, lin, size, ACCESS_READ);
	return value;
}

void cpu_store_slow(struct vcpu *v, uint64_t lin, uint64_t value, unsigned size, bool ss)
{
	if (accesses_are_checked(v))
		cpu_check_alignment(v, lin, size);
	store_in_view(v, lin, value, size, last_of_data(v), v->tlb_view, ss);
	if (accesses_are_checked(v))
		note_breakpoints(v, lin, size, ACCESS_WRITE);
}

void cpu_probe_write(struct vcpu *v, uint64_t lin, unsigned size, bool ss)
{
	if (accesses_are_checked(v))
		cpu_check_alignment(v, lin, size);
	probe_data(v, lin, size, ACCESS_WRITE, ss);
}

/* Both pages of an operand that crosses; NULL unless both may be written directly. */
static void *map_crossing(struct vcpu *v, uint64_t lin, bool ss)
{
	const struct tlb_entry *e = &v->tlbs[v->tlb_view][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
	struct target first = reach(v, lin, ACCESS_WRITE, v->tlb_view, ss);
	struct target second = reach(v, next_page(lin, last_of_data(v)), ACCESS_WRITE, v->tlb_view, ss);
	uint64_t offset = lin & ~PAGE_MASK;
	uint8_t *view;

	/* Reaching the second may have waited for others, who decoded code in the first. */
	if (!is_direct(&first) || !is_direct(&second) || e->write_tag != ((lin & PAGE_MASK) | v->asid))
		return NULL;
	view = mem_pair(v->mem, v->pairs, first.host - offset, second.host);
	return view ? view + offset : NULL;
}

static void *map_inside(struct vcpu *v, uint64_t lin, bool ss)
{
	struct target t = reach(v, lin, ACCESS_WRITE, v->tlb_view, ss);

	return is_direct(&t) ? t.host : NULL;
}

void *cpu_rmw_map(struct vcpu *v, uint64_t lin, unsigned size, bool ss)
{
	void *host;

	cpu_probe_write(v, lin, size, ss);
	lin = linear(v, lin);
	host = crosses_page(lin, size) ? map_crossing(v, lin, ss) : map_inside(v, lin, ss);
	if (host && accesses_are_checked(v)) {
		note_breakpoints(v, lin, size, ACCESS_READ);
		note_breakpoints(v, lin, size, ACCESS_WRITE);
	}
	return host;
}

void cpu_load_bytes(struct vcpu *v, uint64_t lin, void *to, unsigned len, bool ss)
{
	uint8_t *out = to;

	if (!len)
		return;
	if (accesses_are_checked(v))
		note_breakpoints(v, lin, len, ACCESS_READ);
	for (lin = linear(v, lin); len;) {
		unsigned here = MIN(len, PAGE_SIZE - (unsigned)(lin & ~PAGE_MASK));
		struct target t = reach(v, lin, ACCESS_READ, v->tlb_view, ss);

		target_read(v, &t, out, here);
		out += here;
		len -= here;
		lin = next_page(lin, last_of_data(v));
	}
}

void cpu_store_bytes(struct vcpu *v, uint64_t lin, const void *from, unsigned len, bool ss)
{
	const uint8_t *in = from;

	if (!len)
		return;
	lin = linear(v, lin);
	if (crosses_page(lin, len))
		probe_data(v, lin, len, ACCESS_WRITE, ss);
	if (accesses_are_checked(v))
		note_breakpoints(v, lin, len, ACCESS_WRITE);
	while (len) {
		unsigned here = MIN(len, PAGE_SIZE - (unsigned)(lin & ~PAGE_MASK));
		struct target t = reach(v, lin, ACCESS_WRITE, v->tlb_view, ss);

		target_write(v, &t, in, here);
		in += here;
		len -= here;
		lin = next_page(lin, last_of_data(v));
	}
}

uint64_t cpu_system_load(struct vcpu *v, uint64_t lin, unsigned size)
{
	return load_in_view(v, lin, size, last_of_system(v), TLB_KERNEL, false);
}

void cpu_system_store(struct vcpu *v, uint64_t lin, uint64_t value, unsigned size)
{
	store_in_view(v, lin, value, size, last_of_system(v), TLB_KERNEL, false);
}

/* ---- with every other vCPU stopped ---- */

struct guarded {
	void (*fn)(struct vcpu *, void *);
	void *arg;
	bool faulted;
};

/* To be raised out of the section would leave the others stopped. */
static void run_guarded(struct vcpu *v, void *arg)
{
	struct guarded *g = arg;
	struct landing outer;

	landing_put_aside(v, &outer);
	if (setjmp(v->fault_jmp))
		g->faulted = true;
	else
		g->fn(v, g->arg);
	landing_put_back(v, &outer);
}

void cpu_exclusive(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg)
{
	struct guarded g = { fn, arg, false };

	if (v->env->devices_lock)
		v->env->devices_lock(v, true);
	v->env->exclusive(v, run_guarded, &g);
	if (v->env->devices_lock)
		v->env->devices_lock(v, false);
	if (g.faulted)
		cpu_raise_again(v);
}

/* ---- decoding ---- */

static void protect_everywhere(struct vcpu *v, void *arg)
{
	const gpa_t *page = arg;
	struct mem_page *record = mem_page(v->mem, *page);
	uint16_t direct = atomic_load(&record->direct);

	if (!direct) /* another vCPU was faster */
		return;
	if (!v->peer_count)
		cpu_tlb_protect(v, *page, direct);
	for (unsigned n = 0; n < v->peer_count; n++)
		cpu_tlb_protect(v->peers[n], *page, direct);
	mem_direct_dropped(record);
}

uint32_t cpu_code_begin(struct vcpu *v, struct mem_page *record, gpa_t addr, size_t len)
{
	gpa_t page = gpa(addr.v & PAGE_MASK);
	uint32_t generation;
	uint16_t direct;

	/* A write that came between marking and protecting unmarks the page again: then begin anew. */
	for (;;) {
		generation = mem_code_begin(record, addr, len, &direct);
		/* What is shown here may be another page since it was looked up: then what it holds is of the past already. */
		if (!direct)
			return mem_page(v->mem, addr) == record ? generation : generation - 1;
		v->env->exclusive(v, protect_everywhere, &page);
	}
}
