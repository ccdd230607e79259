/* Of the assembly of glue.c and glue32.c: RDI = vCPU, [gpr] and [vec] the offsets of its registers. */
#ifndef DOPPEL_BT_GLUE_H
#define DOPPEL_BT_GLUE_H

/* clang-format off */
#define GPR(n)	"%c[gpr] + 8 * " #n
#define EACH_VECTOR(_) _(0) _(1) _(2) _(3) _(4) _(5) _(6) _(7) _(8) _(9) _(10) _(11) _(12) _(13) _(14) _(15)
#define LOAD_YMM(n)  "vmovdqu %c[vec] + 32 * " #n "(%%rdi), %%ymm" #n "\n\t"
#define STORE_YMM(n) "vmovdqu %%ymm" #n ", %c[vec] + 32 * " #n "(%%rdi)\n\t"
/* Without AVX in the host the guest has none either: the upper halves stay as they are. */
#define LOAD_XMM(n)  "movdqu %c[vec] + 32 * " #n "(%%rdi), %%xmm" #n "\n\t"
#define STORE_XMM(n) "movdqu %%xmm" #n ", %c[vec] + 32 * " #n "(%%rdi)\n\t"
/* clang-format on */

#endif
