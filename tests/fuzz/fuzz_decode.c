/*
 * The decoder adapter on any bytes, in every mode and for models with and without each feature: what it says of an instruction
 * must be in range, because engines index with it. From memory (decode_cache.c) it says the same.
 */
#include "lib/same_insn.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static bool is_register(unsigned offset)
{
	return offset <= 8 * REG_IP && (offset % 8 == 0 || (offset % 8 == 1 && offset / 8 < 4));
}

static void check(const struct insn *i, const struct insn_host *h, unsigned len, const uint8_t *bytes)
{
	require(len >= 1 && len <= 15 && i->len == len);
	require(i->op < OP_COUNT && i->form <= FORM_OTHER && i->scale <= 3 && i->seg < SEG_COUNT);
	require(!!(i->flags & INSN_SYSTEM) == (cpu_system_ops[i->op] != NULL));
	require(is_register(i->reg) && is_register(i->rm) && is_register(i->reg2));
	require(is_register(i->base) && i->base % 8 == 0 && is_register(i->index) && i->index % 8 == 0);
	if (i->op == OP_INVALID || i->op == OP_TOO_LONG)
		return;
	require(!memcmp(i->bytes, bytes, len));
	require(i->addrsize == 2 || i->addrsize == 4 || i->addrsize == 8);
	if (i->flags & INSN_LOCK)
		require(i->flags & INSN_MEM);
	if (!(i->flags & INSN_HOST))
		return;
	require(h->mem_size <= 64 && h->mem_align >= 1 && h->prefix_len < len && h->modrm_offset < len);
	require(h->disp_offset + h->disp_len <= len && h->imm_offset + h->imm_len <= len);
	require(h->gpr_place <= 2);
}

static void check_cached(struct decode_cache *cache, enum code_mode mode, const uint8_t *bytes, size_t avail, size_t at,
			 const struct insn *insn, const struct insn_host *host, unsigned len)
{
	struct insn_host cached_host = { 0 };
	struct insn cached;

	require(cpu_decode_cached(cache, mode, bytes, avail, (unsigned)at & 0xfff, &cached, &cached_host) == len);
	require(!len || (!insn_difference(insn, &cached) && !insn_host_difference(host, &cached_host)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cpu_model model = { .vendor = "GenuineIntel" };
	struct insn_host host;
	struct insn insn;
	char text[128];

	if (size < 3)
		return 0;
	if (data[1] & 1)
		memcpy(model.vendor, "AuthenticAMD", 13);
	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		model.features[f] = !(data[1] & 2) || ((data[2] >> f % 8) & 1);
	enum code_mode mode = data[0] % 3;
	const uint8_t *bytes = data + 3;
	size_t avail = size - 3;
	struct decode_cache *cache = decode_cache_create(&model);

	require(cache);
	for (size_t at = 0; at < avail;) {
		memset(&host, 0, sizeof(host));
		unsigned len = cpu_decode(&model, mode, bytes + at, avail - at, (unsigned)at & 0xfff, &insn, &host);

		check_cached(cache, mode, bytes + at, avail - at, at, &insn, &host, len);
		if (!len) {
			require(avail - at < 15);
			break;
		}
		require(len <= avail - at);
		check(&insn, &host, len, bytes + at);
		cpu_disassemble(mode, bytes + at, avail - at, at, text, sizeof(text));
		at += len;
	}
	decode_cache_destroy(cache);
	return 0;
}
