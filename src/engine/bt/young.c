/*
 * The age of address spaces. Windows cost a signal and a host mapping for every few pages, which an address space that lives for
 * a moment (fork, exec, most commands of a shell) never earns back. So user code begins with the TLB as its way to memory
 * (BT_KEY_TLB) and is translated anew, for windows, when it has run for some time: when a timer of the thread's CPU time found it
 * running BT_YOUNG_TICKS times.
 *
 * A new process may get the CR3 of one that is gone. Its tables have other entries then: the first user entries are remembered with
 * the age, of the top-level table in long mode, else of the page directories.
 */
#include "engine/bt/runtime.h"

/* By custom: outside long mode the highest GiB is the kernel's. */
#define USER_ENTRIES	 256
#define USER_ENTRIES_PAE (3 * 512)
#define USER_ENTRIES_32	 768

static bool has_pae_tables(const struct vcpu *v) { return !in_long_mode(v) && (v->s.cr4 & CR4_PAE); }

/* PAE's tables of four entries share pages. */
static uint64_t space_of(const struct vcpu *v) { return v->s.cr3 & (has_pae_tables(v) ? 0xffffffe0 : PAGE_MASK); }

static unsigned entry_count(const struct vcpu *v)
{
	if (!(v->s.cr0 & CR0_PG))
		return 0;
	return in_long_mode(v) ? USER_ENTRIES : has_pae_tables(v) ? USER_ENTRIES_PAE : USER_ENTRIES_32;
}

/* 0: not present, or not in RAM. */
static uint64_t top_entry(const struct vcpu *v, unsigned slot)
{
	uint64_t table = has_pae_tables(v) ? v->s.pdpte[slot / 512] : v->s.cr3 | PTE_P, entry;
	const void *host = NULL;

	if (table & PTE_P)
		host = mem_map(v->mem, gpa(bits(table, 51, PAGE_SHIFT) << PAGE_SHIFT), PAGE_SIZE, true);
	if (!host)
		return 0;
	if (in_long_mode(v) || has_pae_tables(v))
		entry = __atomic_load_n((const uint64_t *)host + slot % 512, __ATOMIC_RELAXED);
	else
		entry = __atomic_load_n((const uint32_t *)host + slot, __ATOMIC_RELAXED);
	return entry & PTE_P ? entry & ~PTE_A : 0;
}

static bool is_same(const struct vcpu *v, const struct bt_space *s)
{
	for (unsigned n = 0; n < BT_SPACE_ENTRIES && s->entries[n]; n++)
		if (top_entry(v, s->slots[n]) != s->entries[n])
			return false;
	return true;
}

static void remember_entries(const struct vcpu *v, struct bt_space *s)
{
	unsigned count = 0, end = entry_count(v);

	for (unsigned slot = 0; slot < end && count < BT_SPACE_ENTRIES; slot++) {
		uint64_t entry = top_entry(v, slot);

		if (!entry)
			continue;
		s->slots[count] = (uint16_t)slot;
		s->entries[count++] = entry;
	}
}

void bt_space_enter(struct vcpu *v)
{
	uint64_t key = space_of(v);
	struct bt_space *s = &bt_of(v)->spaces[(key >> 5 ^ key >> PAGE_SHIFT ^ key >> (PAGE_SHIFT + 6)) % BT_SPACES];
	bool ages = entry_count(v);

	if (s->key != key || s->ages != ages || !is_same(v, s))
		*s = (struct bt_space){ .key = key, .ages = ages, .needed = BT_YOUNG_TICKS };
	bt_of(v)->space = s;
}

/*
 * A program that forks all the time, or maps and unmaps, has the kernel flush what its windows show: each page that was unmapped or
 * protected is a call of the host, and another when it comes back. Where that takes half as long as user code runs, such a space
 * becomes young again, for longer each time. Asked in the kernel: user code then goes on by a look at its key.
 */
void bt_space_weigh(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	uint64_t churn = bt_windows_churn(bt->windows, v);
	struct bt_space *s = bt->space;

	s->churn += churn - bt->churn_seen;
	bt->churn_seen = churn;
	if (s->churn < BT_CHURN_NS || v->cpl == 3 || !in_long_mode(v) || !s->ages || !bt->timed ||
	    bt_space_is_young(bt) || bt->options.tlb == BT_TLB_LITTLE)
		return;
	s->ticks = 0;
	s->churn = 0;
	s->needed = (uint8_t)MIN(s->needed * BT_YOUNG_AGAIN, BT_YOUNG_MOST);
	bt->stats.shed++;
	bt_windows_shed(bt->windows, v);
}

void bt_space_tick(struct vcpu *v)
{
	struct bt_space *s = bt_of(v)->space;

	s->churn = 0;
	if (!s->ages || s->ticks >= BT_OLD_TICKS)
		return;
	remember_entries(v, s);
	s->ticks++;
	if (s->ticks == s->needed) {
		bt_of(v)->stats.grown++;
		bt_windows_young(bt_of(v)->windows, v, false);
		bt_windows_graduate(bt_of(v)->windows, v);
	} else if (s->ticks == BT_OLD_TICKS) {
		bt_of(v)->stats.aged++;
		bt_jump_forget_user(v);
	}
}
