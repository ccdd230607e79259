/* Changing mappings: what is where is also kept in a table here, and every access must agree with it. */
#define _GNU_SOURCE
#include "torture.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- mmap, munmap, mprotect, mremap, madvise at random ---- */

#define ARENA_PAGES 256

struct model {
	uint8_t *base;
	struct {
		int protection; /* -1: not mapped */
		uint8_t value;	/* of the page's marked byte */
	} page[ARENA_PAGES];
};

/* Where a page keeps its value: not always at its start. */
static volatile uint8_t *mark(const struct model *m, unsigned page) { return m->base + page * PAGE + page * 13 % PAGE; }

static void check_page(struct model *m, unsigned page, uint64_t *random)
{
	int protection = m->page[page].protection, number;
	uint8_t value;

	value = try_read(mark(m, page), &number);
	if (protection > 0)
		expect(!number && value == m->page[page].value, "page %u: signal %d, value %u, not %u", page, number,
		       value, m->page[page].value);
	else
		expect(number == SIGSEGV, "page %u can be read, though it may not", page);
	if (!random_below(random, 2))
		return;
	value = (uint8_t)random_next(random);
	try_write(mark(m, page), value, &number);
	expect(!number == (protection > 0 && (protection & PROT_WRITE)),
	       "page %u with rights %d: a write gives signal %d", page, protection, number);
	if (!number)
		m->page[page].value = value;
}

static void change(struct model *m, uint64_t *random)
{
	static const int protections[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE };
	unsigned first = random_below(random, ARENA_PAGES), count = 1 + random_below(random, 12), to;
	int protection = protections[random_below(random, 4)];
	uint8_t *at = m->base + first * PAGE;
	bool all = true;

	count = first + count > ARENA_PAGES ? ARENA_PAGES - first : count;
	for (unsigned n = first; n < first + count; n++)
		all &= m->page[n].protection >= 0;
	switch (random_below(random, 6)) {
	case 0:
		need(mmap(at, count * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at, "mmap");
		for (unsigned n = first; n < first + count; n++) {
			m->page[n].protection = protection;
			m->page[n].value = 0;
		}
		break;
	case 1:
		need(!munmap(at, count * PAGE), "munmap");
		for (unsigned n = first; n < first + count; n++)
			m->page[n].protection = -1;
		break;
	case 2:
	case 3:
		if (!all)
			break;
		need(!mprotect(at, count * PAGE, protection), "mprotect");
		for (unsigned n = first; n < first + count; n++)
			m->page[n].protection = protection;
		break;
	case 4:
		if (!all)
			break;
		need(!madvise(at, count * PAGE, MADV_DONTNEED), "madvise");
		for (unsigned n = first; n < first + count; n++)
			m->page[n].value = 0;
		break;
	default: /* one page, whose value's place depends on its number: so to where it is the same modulo a page */
		to = random_below(random, ARENA_PAGES);
		if (to == first || m->page[first].protection < 0)
			break;
		uint8_t value = m->page[first].value;
		bool readable = m->page[first].protection > 0;
		need(mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, m->base + to * PAGE) != MAP_FAILED,
		     "mremap");
		m->page[to] = m->page[first];
		m->page[first].protection = -1;
		if (readable) {
			expect(m->base[to * PAGE + first * 13 % PAGE] == value, "mremap: page %u lost its value",
			       first);
			m->page[to].value = *mark(m, to);
		} else {
			need(!munmap(m->base + to * PAGE, PAGE), "munmap");
			m->page[to].protection = -1;
		}
	}
}

void test_mappings(uint64_t *random)
{
	struct model *m = calloc(1, sizeof(*m));

	need(m, "calloc");
	m->base = map_memory(ARENA_PAGES * PAGE, PROT_READ | PROT_WRITE);
	for (unsigned n = 0; n < ARENA_PAGES; n++)
		m->page[n].protection = PROT_READ | PROT_WRITE;
	for (unsigned n = 0; n < 300; n++) {
		change(m, random);
		for (unsigned k = 0; k < 8; k++)
			check_page(m, random_below(random, ARENA_PAGES), random);
	}
	for (unsigned n = 0; n < ARENA_PAGES; n++)
		check_page(m, n, random);
	munmap(m->base, ARENA_PAGES * PAGE);
	free(m);
}

/* ---- copy on write, through several generations; large pages where the kernel gives some ---- */

#define LARGE (2ul << 20)

void test_copy_on_write(uint64_t *random)
{
	uint8_t *memory = map_memory(3 * LARGE, PROT_READ | PROT_WRITE);
	uint64_t *words = (uint64_t *)(((uintptr_t)memory + LARGE - 1) & -LARGE);
	size_t count = LARGE / 8, step = PAGE / 8;
	int status;

	madvise(memory, 3 * LARGE, MADV_HUGEPAGE);
	for (size_t n = 0; n < count; n += step)
		words[n + n / step % step] = n;
	for (unsigned generation = 0; generation < 4; generation++) {
		pid_t pid = fork();

		need(pid >= 0, "fork");
		if (!pid) {
			size_t skip = step * (1 + random_below(random, 7));

			for (size_t n = 0; n < count; n += skip)
				words[n + n / step % step] = ~n;
			for (size_t n = 0; n < count; n += step)
				if (words[n + n / step % step] != (n % skip ? n : ~n))
					_exit(1);
			_exit(0);
		}
		/* The parent's rights to the pages come back one by one, or all at once when the child has ended. */
		for (size_t n = 0; n < count; n += step * 64)
			words[n + n / step % step] = n;
		need(waitpid(pid, &status, 0) == pid, "waitpid");
		expect(!status, "generation %u: the child has wrong memory", generation);
		for (size_t n = 0; n < count; n += step)
			expect(words[n + n / step % step] == n, "generation %u: the parent's word %zu is %lx",
			       generation, n, words[n + n / step % step]);
	}
	munmap(memory, 3 * LARGE);
}

/* ---- a file's pages mapped twice, written through either and by system calls, cut short ---- */

#define FILE_PAGES 32

void test_shared_mappings(uint64_t *random)
{
	int fd = memfd_create("torture", 0), number;
	uint8_t *one, *two, buffer[64];

	need(fd >= 0 && !ftruncate(fd, FILE_PAGES * PAGE), "memfd");
	one = mmap(NULL, FILE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	two = mmap(NULL, FILE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	need(one != MAP_FAILED && two != MAP_FAILED, "mmap");
	for (unsigned n = 0; n < 500; n++) {
		unsigned at = random_below(random, FILE_PAGES * PAGE - sizeof(buffer));
		uint8_t value = (uint8_t)random_next(random), *write_to = n & 1 ? one : two,
			*read_from = n & 1 ? two : one;

		if (n % 5) {
			*(volatile uint8_t *)(write_to + at) = value;
		} else {
			memset(buffer, value, sizeof(buffer));
			need(pwrite(fd, buffer, sizeof(buffer), at) == sizeof(buffer), "pwrite");
		}
		expect(*(volatile uint8_t *)(read_from + at) == value, "byte %u through the other mapping is not %u",
		       at, value);
		need(pread(fd, buffer, 1, at) == 1, "pread");
		expect(buffer[0] == value, "byte %u of the file is %u, not %u", at, buffer[0], value);
	}
	need(!ftruncate(fd, PAGE), "ftruncate");
	try_read(one + PAGE, &number);
	expect(number == SIGBUS, "behind the end of the file: signal %d", number);
	try_read(two, &number);
	expect(!number, "before the end of the file: signal %d", number);
	munmap(one, FILE_PAGES * PAGE);
	munmap(two, FILE_PAGES * PAGE);
	close(fd);
}
