/*
 * Who decoded code from which bytes, and who wrote them since.
 *
 * The engine that decodes (mem_code_begin) does    The writer (mem_note_write, after its store) does
 *	D1 set the bits of its chunks			W0 store the bytes (the caller)
 *	D2 read code_gen				W1 fence
 *	D3 read the bytes				W2 read code_chunks, then `changing`; neither: done
 *	D4 keep code_gen with what it decoded		W3 changing++
 *							W4 exchange code_chunks with 0
 *							W5 code_gen++, tell the engines
 *							W6 set the bits of what lives on
 *							W7 changing--
 *
 * No write is missed: D1 and W1 are full barriers, so either D3 sees the bytes of W0 or W2 sees the bits of D1.
 *
 * No decoded code outlives its bits: bits are cleared (W4) before the generation changes (W5), so what was decoded
 * under bits that W4 took has a generation that W5 ends. One order is left: D1, W4, W5, D2 would keep the new
 * generation without any bits, and the next write to these bytes would go unseen. mem_code_begin therefore looks
 * after D2 whether its bits are still set, and starts over if not.
 *
 * When W2 finds no bits, code from these bytes must be invalid already for this writer: another writer that took
 * the bits (W4) may not have ended W5. It has `changing` raised until then, so W2 looks at that, too, after
 * code_chunks. Nor is the page written directly before W7: that way nobody would look.
 *
 * An engine whose code does not compare generations forgets in W5 what was decoded from the bytes written, and says what lives on: of that the
 * bits are set again (W6).
 */
#include "mem/private.h"

uint32_t mem_code_begin(struct mem_page *page, gpa_t addr, size_t len, uint16_t *direct)
{
	unsigned offset = addr.v & (PAGE_SIZE - 1);
	uint64_t mask;

	BUG_ON(!len || !range_ok(offset, len, PAGE_SIZE));
	mask = mem_chunks(offset, len);
	for (;;) {
		atomic_fetch_or(&page->code_chunks, mask);
		uint32_t generation = atomic_load(&page->code_gen);

		*direct = atomic_load(&page->direct);
		if ((atomic_load(&page->code_chunks) & mask) == mask)
			return generation;
	}
}

void mem_direct_dropped(struct mem_page *page) { atomic_store(&page->direct, 0); }

/* In the order of W2. */
static bool holds_code(struct mem_page *page)
{
	return atomic_load(&page->code_chunks) || atomic_load(&page->changing);
}

/* As with W1 and D1: either mem_code_begin, behind D1, finds `direct` set, or D1's bits are seen here. */
bool mem_allow_direct(struct guest_mem *mem, struct mem_page *page, uint16_t how)
{
	uint16_t was = atomic_load(&page->direct);

	if (holds_code(page))
		return false;
	while (was != how && was != MEM_DIRECT_ANY)
		if (atomic_compare_exchange_weak(&page->direct, &was, was ? MEM_DIRECT_ANY : how))
			break;
	atomic_thread_fence(memory_order_seq_cst);
	if (holds_code(page))
		return false;
	if (mem_is_logging(mem))
		mem_mark_dirty(mem, page);
	return true;
}

bool mem_change_begin(struct mem_page *page, gpa_t addr, size_t len)
{
	atomic_thread_fence(memory_order_seq_cst);
	if (!(atomic_load(&page->code_chunks) & mem_chunks(addr.v & (PAGE_SIZE - 1), len)) &&
	    !atomic_load(&page->changing))
		return false;
	atomic_fetch_add(&page->changing, 1);
	atomic_exchange(&page->code_chunks, 0);
	atomic_fetch_add(&page->code_gen, 1);
	return true;
}

void mem_change_end(struct mem_page *page) { atomic_fetch_sub(&page->changing, 1); }

bool code_forget(struct guest_mem *mem, struct mem_page *page, gpa_t addr, size_t len)
{
	if (!mem_change_begin(page, addr, len))
		return false;
	if (mem->code_changed)
		atomic_fetch_or(&page->code_chunks, mem->code_changed(mem->code_changed_opaque, addr, len));
	mem_change_end(page);
	return true;
}

bool mem_note_page(struct guest_mem *mem, struct mem_page *page, gpa_t addr, size_t len)
{
	if (mem_is_logging(mem))
		mem_mark_dirty(mem, page);
	return code_forget(mem, page, addr, len);
}

void mem_note_write(struct guest_mem *mem, gpa_t addr, size_t len)
{
	while (len) {
		size_t part = MIN(len, PAGE_SIZE - (addr.v & (PAGE_SIZE - 1)));
		const struct mem_region *region;
		struct mem_page *page = NULL;

		map_enter(mem);
		region = mem_find(mem, addr);
		if (region && region->write_pages)
			page = &region->write_pages[(addr.v - region->start) >> PAGE_SHIFT];
		map_leave(mem);
		if (page)
			mem_note_page(mem, page, addr, part);
		addr.v += part;
		len -= part;
	}
}
