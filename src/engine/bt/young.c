/*
 * The age of address spaces. Windows cost a signal and a host mapping for every few pages, which an address space that lives for
 * a moment (fork, exec, most commands of a shell) never earns back. So user code begins with the TLB as its way to memory
 * (BT_KEY_TLB) and is translated anew, for windows, when it has run for some time: when a timer of the thread's CPU time found it
 * running BT_YOUNG_TICKS times.
 *
 * A new process may get the CR3 of one that is gone. Its top-level table has other entries then: the first user entries are
 * remembered with the age.
 */
#include "engine/bt/runtime.h"

#define USER_HALF 256 /* entries */

static const uint64_t *top_table(struct vcpu *v)
{
	return in_long_mode(v) ? (const uint64_t *)mem_map(v->mem, gpa(v->s.cr3 & PAGE_MASK), PAGE_SIZE, true) : NULL;
}

static uint64_t entry_of(const uint64_t *table, unsigned slot)
{
	return __atomic_load_n(&table[slot], __ATOMIC_RELAXED) & ~PTE_A;
}

static bool is_same(const struct bt_space *s, const uint64_t *table)
{
	for (unsigned n = 0; n < BT_SPACE_ENTRIES && s->entries[n]; n++)
		if (entry_of(table, s->slots[n]) != s->entries[n])
			return false;
	return true;
}

static void remember_entries(struct bt_space *s, const uint64_t *table)
{
	unsigned count = 0;

	for (unsigned slot = 0; slot < USER_HALF && count < BT_SPACE_ENTRIES; slot++) {
		uint64_t entry = entry_of(table, slot);

		if (!(entry & PTE_P))
			continue;
		s->slots[count] = (uint8_t)slot;
		s->entries[count++] = entry;
	}
}

void bt_space_enter(struct vcpu *v)
{
	uint64_t cr3 = v->s.cr3 & PAGE_MASK;
	struct bt_space *s = &v->bt->spaces[(cr3 >> PAGE_SHIFT ^ cr3 >> (PAGE_SHIFT + 6)) % BT_SPACES];
	const uint64_t *table = top_table(v);

	if (s->cr3 != cr3 || !table || !is_same(s, table))
		*s = (struct bt_space){ .cr3 = cr3, .ages = table };
	v->bt->space = s;
}

void bt_space_tick(struct vcpu *v)
{
	struct bt_space *s = v->bt->space;
	const uint64_t *table = top_table(v);

	if (!table || s->ticks >= BT_YOUNG_TICKS)
		return;
	remember_entries(s, table);
	if (++s->ticks < BT_YOUNG_TICKS)
		return;
	v->bt->stats.grown++;
	bt_windows_young(v->bt->windows, v, false);
	bt_windows_graduate(v->bt->windows, v);
}
