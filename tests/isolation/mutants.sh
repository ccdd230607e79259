#!/bin/bash
# Can the isolation fuzzer fail? Each row breaks one thing that isolation or correctness rests on, in a copy of the sources; the fuzzer
# has to find it. Arguments: the rows to try (default all).  SECONDS_EACH: how long it may look (120).
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
work=${BUILD:-build}/mutants
seconds=${SECONDS_EACH:-120}

# name;file;what sed does to it
mutants=$(
	cat <<'END'
a written register keeps its window;emit_copy.c;/static void note_written/,/^}/s/emit_forget(e, n);/;/
a register may drift by 4 GiB;emit.h;s/#define EMIT_MAX_DRIFT (1u << 30)/#define EMIT_MAX_DRIFT 0xffffffffu/
a sum may drift by 16 GiB;emit.c;s/distance <= left >> w->scale/distance <= left/; s/(uint32_t)distance << (w->sum ? w->scale : 0)/(uint32_t)distance/
a sum outlives its base;emit.c;s/if (w->sum && (w->regs >> reg & 1))/if (w->sum \&\& w->index == reg)/
what R10 leads to outlives it;emit.c;s/if (reg == window_register\[n\])/if (n == 0 \&\& reg == R11)/
a loop keeps what it lost;emit_loop.c;/^bool emit_loop_holds/,/^}/s/return false;/return true;/
guards of 1 GiB;window.h;s/#define WINDOW_GUARD (4ull << 30)/#define WINDOW_GUARD (1ull << 30)/
a slot table has little around it;window_table.c;s/(8ull << 24)/(8ull << 12)/
bit strings of 64 bits are copied;emit_special.c;s/if (i->opsize != 8)$/if (i->opsize)/
bit strings of 32 bits by the TLB;emit_special.c;s/if (i->addrsize != 8 || e->way == BY_TLB)/if (i->addrsize != 8)/
bit strings of 32-bit code by the TLB;emit32.c;s/i->addrsize != 4 || e->way == BY_TLB/i->addrsize != 4/
a TLB look-up of 32-bit code for one byte;emit_segment.c;s/reach(e, size, write, m)/reach(e, 1, write, m)/
a TLB look-up for one byte;emit_tlb.c;s/code\[t->size_at\] = (uint8_t)(size - 1);/code[t->size_at] = 0;/
a TLB look-up for reading;emit_tlb.c;s/write ? offsetof(struct tlb_entry, write_tag) : //
R15 is not the table again;emit_copy.c;s/^\t\trestore_table(e);/\t\t;/
addresses of 32 bits belong to slot 1;emit_address.c;s/emit_slot(e, 0);/emit_slot(e, 1);/
32-bit code with 64-bit addresses;emit_encode.c;s/\*p++ = 0x67;/;/
empty entries of jump tables match;block.h;s/{ return n ? -(uint64_t)0 : -(uint64_t)1; }/{ (void)n; return BIT(63); }/
a call to nowhere pushes;emit.c;/^void emit_check_canonical/,/^}/s/emit_load_window(e, R11, reg);/(void)reg;/
user mode reaches the supervisor's pages;window_fill.c;s/case TABLE_USER: return f->walk.user;/case TABLE_USER: return true;/
pages that are no RAM are mapped;window_fill.c;s/c.mappable &= c.frame - ram->start < ram->size;/;/
changed code runs on;code.c;/^uint64_t bt_invalidate_bytes/,/^}/s/bt_invalidate_block(v, b);/(void)v;/
windows are not compared after a flush;window_check.c;/^bool window_validate(/,/^}/s/^{/{ if (all || !all) return true;/
32-bit code may use the page before 4 GiB;window_space.c;s/window->narrow = true;/;/
a jump that is none stays none;link.c;s/code_offset == next ? OPCODE_NOTHING : OPCODE_JUMP/OPCODE_NOTHING/
signals go on where RSP points;signal.c;s/(int)SS_AUTODISARM/0/
END
)

# Rebuilds what changed, and looks. True when something was found.
finds() {
	make -s CFLAGS=-Wno-error BUILD="$work" -C "$work/tree" "$work/release/tests/isolation/isolation" >"$scratch/build" 2>&1 ||
		{ cat "$scratch/build"; return 1; }
	"$work/release/tests/isolation/isolation" --seed 1 --seconds "$seconds" --step "$1" >"$scratch/out" 2>&1
	status=$?
	[ "$status" -gt 1 ] && grep -m1 FOUND "$scratch/out"
	[ "$status" -gt 1 ]
}

# Half of the time without looking at each instruction, half of it with.
found_somehow() { finds 0 || finds 100; }

try() {
	cp "$work/tree/src/engine/bt/$file" "$scratch/original"
	sed -i "$expression" "$work/tree/src/engine/bt/$file"
	if cmp -s "$scratch/original" "$work/tree/src/engine/bt/$file"; then
		echo "the expression changes nothing"
		return 1
	fi
	found_somehow
	result=$?
	cp "$scratch/original" "$work/tree/src/engine/bt/$file"
	return "$result"
}

work=$(mkdir -p "$work" && cd "$work" && pwd)
rm -rf "$work/tree"
mkdir -p "$work/tree"
cp -r Makefile src tests scripts bench "$work/tree/" || exit 1
row=0
while IFS=';' read -r name file expression; do
	row=$((row + 1))
	[ $# = 0 ] || case " $* " in *" $row "*) ;; *) continue ;; esac
	check "$row: $name" try
done <<END
$mutants
END
finish
