/*
 * The code that the audit's checks execute, in user mode mostly: (name, bits of the code segment, text). RDI (EDI, DS:DI) is
 * memory to use, RAX the check's argument; what the check looks at comes back in RAX, RBX and the flags. Each is at most 62 bytes,
 * position-independent, and goes on to INT VECTOR_END.
 */
#ifndef DOPPEL_AUDIT_SNIPPETS_H
#define DOPPEL_AUDIT_SNIPPETS_H

#define TEXT(x)	 #x
#define VALUE(x) TEXT(x)

#define ZF_TO_EAX "setz %al; movzbl %al, %eax"
/* AX as a segment's selector at (RDI), behind an offset: a far pointer to label 1 or, for gates, to anywhere. */
#define POINTER_64 "mov %ax, 4(%rdi); lea 1f(%rip), %rbx; mov %ebx, (%rdi);"
/* Where am I? Code of 32 bits has to ask its stack. */
#define HERE_32	   "call 3f; 3: pop %ebx; add $1f - 3b, %ebx;"
#define POINTER_32 "mov %ax, 4(%edi);" HERE_32 "mov %ebx, (%edi);"

/* clang-format off */
#define SNIPPETS(_)                                                                                                    \
	_(sgdt_64, 64, "sgdt (%rdi); mov 2(%rdi), %rax; movzwl (%rdi), %ebx")                                          \
	_(sgdt_32, 32, "sgdt (%edi); mov 2(%edi), %eax; movzwl (%edi), %ebx")                                          \
	_(sgdt_16, 16, "sgdtl (%di); mov 2(%di), %eax; movzwl (%di), %ebx")                                            \
	_(sidt_64, 64, "sidt (%rdi); mov 2(%rdi), %rax; movzwl (%rdi), %ebx")                                          \
	_(sidt_32, 32, "sidt (%edi); mov 2(%edi), %eax; movzwl (%edi), %ebx")                                          \
	_(sidt_16, 16, "sidtl (%di); mov 2(%di), %eax; movzwl (%di), %ebx")                                            \
	_(sldt, 32, "sldt %eax")                                                                                       \
	_(sldt_16, 16, "sldt %ax")                                                                                     \
	_(str, 32, "str %eax")                                                                                         \
	_(str_16, 16, "str %ax")                                                                                       \
	_(smsw, 32, "smsw %eax")                                                                                       \
	_(smsw_16, 16, "smsw %ax")                                                                                     \
	_(pushf_64, 64, "pushf; pop %rax")                                                                             \
	_(pushf_32, 32, "pushf; pop %eax")                                                                             \
	_(pushf_16, 16, "pushf; pop %ax")                                                                              \
	/* Without IOPL 3 virtual-8086 mode has no INT to end with: #GP of HLT does it. */                             \
	_(pushf_vme, 16, "pushf; pop %ax; hlt")                                                                        \
	_(cli_vme, 16, "cli; hlt")                                                                                     \
	_(sti_vme, 16, "sti; hlt")                                                                                     \
	_(popf_64, 64, "push %rax; popf")                                                                              \
	_(popf_32, 32, "push %eax; popf")                                                                              \
	_(popf_16, 16, "push %ax; popf")                                                                               \
	_(cli, 32, "cli")                                                                                              \
	_(sti, 32, "sti")                                                                                              \
	_(lar, 32, "lar %eax, %ebx; " ZF_TO_EAX)                                                                       \
	_(lar_16, 16, "lar %ax, %bx")                                                                                  \
	_(lsl, 32, "lsl %eax, %ebx; " ZF_TO_EAX)                                                                       \
	_(lsl_16, 16, "lsl %ax, %bx")                                                                                  \
	_(verr, 32, "verr %ax; " ZF_TO_EAX)                                                                            \
	_(verr_16, 16, "verr %ax")                                                                                     \
	_(verw, 32, "verw %ax; " ZF_TO_EAX)                                                                            \
	_(verw_16, 16, "verw %ax")                                                                                     \
	_(from_segments, 32, "mov %cs, %eax; mov %ss, %ebx")                                                           \
	_(to_fs, 32, "mov %eax, %fs; mov %fs, %ebx; xor %eax, %eax; mov %fs:(%eax), %eax")                             \
	_(to_fs_64, 64, "mov %eax, %fs; mov %fs, %ebx; xor %eax, %eax; mov %fs:(%rax), %eax")                          \
	_(to_fs_16, 16, "mov %ax, %fs; mov %fs, %ebx; mov %fs:0, %eax")                                                \
	_(to_ss, 32, "mov %eax, %ss")                                                                                  \
	_(beyond_limit, 32, "mov %eax, %fs; mov $" VALUE(MARK_LIMIT) " - 2, %eax; mov %fs:(%eax), %eax")               \
	/* The base of MARK_DS in the GDT becomes another one while FS holds what it was. */                           \
	_(hidden_64, 64, "mov %eax, %fs; mov $" VALUE(GUEST_GDT + 0x4a) ", %eax; incw (%rax);"                         \
			 "xor %ebx, %ebx; mov %fs:(%rbx), %ebx; decw (%rax); mov %ebx, %eax")                          \
	_(hidden_32, 32, "mov %eax, %fs; mov $" VALUE(GUEST_GDT + 0x4a) ", %eax; incw (%eax);"                         \
			 "xor %ebx, %ebx; mov %fs:(%ebx), %ebx; decw (%eax); mov %ebx, %eax")                          \
	_(pop_fs_64, 64, "push %rax; pop %fs; mov %fs, %ebx; xor %eax, %eax; mov %fs:(%rax), %eax")                    \
	_(pop_fs_32, 32, "push %eax; pop %fs; mov %fs, %ebx; xor %eax, %eax; mov %fs:(%eax), %eax")                    \
	_(pop_ds_32, 32, "push %eax; pop %ds")                                                                         \
	_(lfs_64, 64, "mov %ax, 4(%rdi); lfs (%rdi), %ebx; mov %fs, %ebx; xor %eax, %eax; mov %fs:(%rax), %eax")       \
	_(lfs_32, 32, "mov %ax, 4(%edi); lfs (%edi), %ebx; mov %fs, %ebx; xor %eax, %eax; mov %fs:(%eax), %eax")       \
	_(push_64, 64, "push %fs; pop %rax")                                                                           \
	_(push_32, 32, "push %cs; pop %eax; push %ss; pop %ebx")                                                       \
	_(push_16, 16, "push %cs; pop %eax; push %ss; pop %ebx")                                                       \
	_(call_64, 64, POINTER_64 "lcall *(%rdi); 1:")                                                                 \
	_(call_32, 32, POINTER_32 "lcall *(%edi); 1:")                                                                 \
	_(jmp_64, 64, POINTER_64 "ljmp *(%rdi); 1: mov %cs, %eax")                                                     \
	_(jmp_32, 32, POINTER_32 "ljmp *(%edi); 1: mov %cs, %eax")                                                     \
	_(ret_64, 64, "push %rax; lea 1f(%rip), %rbx; push %rbx; lretq; 1: mov %cs, %eax")                             \
	_(ret_32, 32, "push %eax;" HERE_32 "push %ebx; lret; 1: mov %cs, %eax")                                        \
	_(int_user, 32, "int $" VALUE(VECTOR_USER))                                                                    \
	_(int_kernel, 32, "int $" VALUE(VECTOR_KERN))                                                                  \
	_(int3, 32, "int3")                                                                                            \
	_(into, 32, "mov $0x7fffffff, %eax; inc %eax; into")                                                           \
	_(iret_64, 64, "mov %ss, %ebx; push %rbx; lea 8(%rsp), %rbx; push %rbx; push %rax; mov %cs, %ebx; push %rbx;"  \
		       "lea 1f(%rip), %rbx; push %rbx; iretq; 1:")                                                     \
	_(iret_32, 32, "push %eax; push %cs;" HERE_32 "push %ebx; iret; 1:")                                           \
	_(iret_16, 16, "push %ax; push %cs; push %ax; iret")                                                           \
	_(syscall, 64, "syscall")                                                                                      \
	_(sysenter, 32, "sysenter")                                                                                    \
	_(cpuid_osxsave, 32, "mov $1, %eax; cpuid; bt $27, %ecx; setc %al; movzbl %al, %eax")                          \
	_(cpuid_apic_id, 32, "mov $1, %eax; cpuid; shr $24, %ebx; mov %ebx, %eax")                                     \
	_(cpuid_hypervisor, 32, "mov $1, %eax; cpuid; shr $31, %ecx; mov %ecx, %eax")                                  \
	_(rdtsc, 32, "rdtsc; shr $8, %edx; mov %edx, %eax")                                                            \
	_(rdtscp, 32, "rdtscp; shr $8, %edx; mov %edx, %eax; mov %ecx, %ebx")                                          \
	_(rdpid, 64, "rdpid %rax")                                                                                     \
	_(rdpmc, 32, "rdpmc")                                                                                          \
	_(xgetbv, 32, "xgetbv")                                                                                        \
	_(rdfsbase, 64, "rdfsbase %rax; rdgsbase %rbx")                                                                \
	_(wrfsbase, 64, "wrfsbase %rax; wrgsbase %rax; xor %ebx, %ebx; mov %fs:(%rbx), %eax; mov %gs:(%rbx), %ebx")    \
	_(rdpkru, 32, "rdpkru")                                                                                        \
	_(vmcall, 32, "vmcall")                                                                                        \
	_(vmmcall, 32, "vmmcall")                                                                                      \
	_(read_kernel, 32, "mov $" VALUE(KERNEL_PAGE + GUEST_MARK) ", %eax; mov (%eax), %eax")                         \
	/* How many of the 512 parts of the address space are there. */                                                \
	_(everywhere, 64, "1: mov %ecx, %ebx; shl $55, %rbx; sar $16, %rbx; xor %edx, %edx;"                           \
			  "cmpl $" VALUE(MARK_WORD) ", " VALUE(GUEST_MARK) "(%rbx); sete %dl; add %edx, %eax;"         \
			  "inc %ecx; cmp $512, %ecx; jb 1b")
/* clang-format on */

#endif
