# doppel: build, test, run. `make help` lists the targets.
#
#   make FLAVOUR=release|debug|asan|tsan|fuzz   what to build (each in its own $(BUILD)/<flavour>)
#   make CC=clang-14                            with another compiler (in $(BUILD)/<flavour>-clang-14)
#   make BUILD=<folder>                         build somewhere else
#   make V=1                                    show the commands

FLAVOUR ?= release
BUILD ?= build
PREFIX ?= /usr/local
CLANG ?= clang-14
CLANG_FORMAT ?= clang-format-14
CLANG_TIDY ?= clang-tidy-14

DEFAULT_CC := $(if $(filter fuzz,$(FLAVOUR)),$(CLANG),gcc)
ifeq ($(origin CC),default)
CC := $(DEFAULT_CC)
endif
ifeq ($(filter release debug asan tsan fuzz,$(FLAVOUR)),)
$(error FLAVOUR is '$(FLAVOUR)'; expected release, debug, asan, tsan or fuzz)
endif
OUT := $(BUILD)/$(FLAVOUR)$(if $(filter-out $(DEFAULT_CC),$(CC)),-$(notdir $(CC)))
JOBS = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))
Q := $(if $(V),,@)

# -fno-plt and -fcf-protection=none: the interpreter's dispatch is an indirect call an instruction.
flags.release := -O2 -g -fno-plt -fcf-protection=none -fomit-frame-pointer
flags.debug := -O0 -g -DDEBUG_YIELDS
flags.asan := -O1 -g -DDEBUG_YIELDS -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
# -Wno-tsan: the guest's own fences are fences of the host, which TSan does not model.
flags.tsan := -O1 -g -DDEBUG_YIELDS -fno-omit-frame-pointer -fsanitize=thread $(if $(filter gcc%,$(CC)),-Wno-tsan)
flags.fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
link.asan := -fsanitize=address,undefined
link.tsan := -fsanitize=thread
link.fuzz := -fsanitize=address,undefined

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
CFLAGS_ALL = -std=gnu17 $(WARNINGS) $(flags.$(FLAVOUR)) -Isrc -pthread $(CFLAGS)
LDFLAGS_ALL = $(link.$(FLAVOUR)) $(LDFLAGS)

SOURCES := $(sort $(shell find src -name '*.c'))
LIB_SOURCES := $(filter-out src/cli/main.c,$(SOURCES))
# Guests that are part of doppel.
ASM_SOURCES := $(sort $(shell find src -name '*.S'))
LIBS := -lZydis -lZycore -lseccomp -lnettle -lz -lzstd -lpng $(if $(shell grep -rl '<jansson.h>' src),-ljansson) -lpthread

LIB := $(OUT)/libdoppel.a
DOPPEL := $(OUT)/doppel
UNIT := $(patsubst tests/%.c,$(OUT)/tests/%,$(sort $(wildcard tests/unit/test_*.c)))
# Programs of all files of a folder, and of some of another's.
program = $(OUT)/tests/$(1)/$(1)
ORACLE := $(call program,oracle)
LOCKSTEP := $(call program,lockstep)
more.lockstep := $(addprefix tests/isolation/,generate.c tables.c world.c)
ISOLATION := $(call program,isolation)
STEP := $(call program,step)
VECTORS := $(call program,vectors)
libs.vectors := -ljansson -lz
libs.picture := -lpng
SNAPSHOT := $(call program,snapshot)
DIRTY := $(call program,dirty)
BLOCK := $(call program,block)
# doppel itself, with one engine more.
MORE_ENGINES := $(call program,engines)
objects.engines := $(OUT)/obj/cli/main.o
PROGRAMS := $(ORACLE) $(LOCKSTEP) $(ISOLATION) $(STEP) $(VECTORS) $(SNAPSHOT) $(DIRTY) $(BLOCK) $(MORE_ENGINES)
SHIMS := $(patsubst tests/%.c,$(OUT)/tests/%.so,$(sort $(wildcard tests/shims/*.c)))
HELPERS := $(patsubst tests/%.c,$(OUT)/tests/%,$(sort $(wildcard tests/tools/*.c)))
# A fuzzer of one of these is all of it but its main().
all_but_main = $(filter-out tests/$(1)/$(1).c,$(sort $(wildcard tests/$(1)/*.c)))
more.fuzz_isolation := $(call all_but_main,isolation)
more.fuzz_step := $(call all_but_main,step)
FUZZ := $(patsubst tests/%.c,$(BUILD)/fuzz/tests/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
ASAN_UNIT := $(patsubst $(OUT)/%,$(BUILD)/asan/%,$(UNIT))
# Those that start threads.
# Windows reserve more address space than the thread sanitizer leaves.
TSAN_UNIT := $(patsubst tests/%.c,$(BUILD)/tsan/tests/%,$(filter-out tests/unit/test_window%,$(shell grep -lE 'thread_create|machine_run|lib/net_peer.h|net/net.h' $(wildcard tests/unit/*.c) /dev/null)))
GUESTS := $(patsubst tests/guest/%.c,$(BUILD)/guest/%.elf,$(sort $(wildcard tests/guest/test_*.c)))
GUESTS += $(patsubst tests/guest/%.S,$(BUILD)/guest/%.elf,$(sort $(wildcard tests/guest/test_*.S)))
SCRIPTS := $(sort $(wildcard tests/*/*.t))

.PHONY: all packages unit guests helpers fuzzers run debian debian-test verify crash bench-devices bench-programs test check stress bench oracle isolation step mutants lockstep dirty snapshot fuzz lint tidy format install clean help
.DELETE_ON_ERROR:
.SECONDARY:

all: $(DOPPEL)

help:
	@echo 'all       build $(DOPPEL)'
	@echo 'run       boot a stock Debian kernel to a shell on this terminal'
	@echo 'debian    make a Debian 12 on a disk and boot it on this terminal; ssh in by port 2222'
	@echo 'test      build and run every test (LONG=1: also what takes long and shows little that others do not)'
	@echo 'check     the quick part of it: unit tests and bare-metal guests'
	@echo 'stress    minutes of work in a guest of Debian packages that checks its results, and leaks'
	@echo 'debian-test  minutes of work in that Debian: packages, copies, file systems; and its installer, up to its partitioner'
	@echo 'verify    fio writes and finds it again in that Debian, on every bus, format and cache (ARGS: megabytes each)'
	@echo 'crash     machines and writers are killed while they write (ARGS: how many machines, writers)'
	@echo 'oracle    compare instructions with the host CPU: 1,000 cases of every form, both engines (ORACLE_ARGS)'
	@echo 'lockstep  boot kernels under both engines side by side, compared all the way (LOCKSTEP_ARGS)'
	@echo 'snapshot  save machines at random moments and go on in new processes, for longer (SNAPSHOT_ROUNDS)'
	@echo 'isolation attack the translator as a hostile guest would, for longer (ISOLATION_ARGS)'
	@echo 'step      a processor in random states, one step after the other, for longer (STEP_ARGS)'
	@echo 'mutants   break the translator in some twenty ways: the isolation fuzzer must find each'
	@echo 'fuzz      every fuzz target for FUZZ_SECONDS (60) each'
	@echo 'bench     doppel, and the other emulators that are installed, on the same guest'
	@echo 'bench-devices  the same for disks and network, in that Debian (ARGS)'
	@echo 'bench-programs  real programs natively, under doppel and TCG (ARGS)'
	@echo 'lint      formatting, clang-tidy, include rule, shell scripts'
	@echo 'format    rewrite the sources as .clang-format says'
	@echo 'install   binary, manual page and completion (PREFIX=$(PREFIX), DESTDIR)'
	@echo 'clean     remove $(BUILD)'

# The command line is a prerequisite: other flags make other objects.
$(OUT)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL)' | cmp -s - $@ || echo '$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL)' >$@
FORCE:

# Called by the translator with the guest's vector registers in the host's: see engine/bt/fast.c.
GENERAL := $(filter-out src/cpu/fpu%.c src/cpu/xsave.c,$(wildcard src/cpu/*.c)) $(wildcard src/mem/*.c) \
	$(addprefix src/engine/bt/,fast.c fast_insn.c code.c mode.c limits.c)

$(OUT)/obj/%.o: src/%.c $(OUT)/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  CC     $<')
	$(Q)$(CC) $(CFLAGS_ALL) $(if $(filter $<,$(GENERAL)),-mgeneral-regs-only) -MMD -MP -c -o $@ $<

$(OUT)/obj/%.o: src/%.S $(OUT)/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  AS     $<')
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# What it contains is no file that the compiler tells of.
$(OUT)/obj/display/web_page.o: src/display/web_page.html

# An archive keeps members of deleted sources: begin anew.
$(LIB): $(LIB_SOURCES:src/%.c=$(OUT)/obj/%.o) $(ASM_SOURCES:src/%.S=$(OUT)/obj/%.o)
	$(if $(Q),@echo '  AR     $@')
	$(Q)rm -f $@ && ar rcs $@ $^

$(DOPPEL): $(OUT)/obj/cli/main.o $(LIB)
	$(if $(Q),@echo '  LINK   $@')
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

$(OUT)/tests/unit/%: tests/unit/%.c $(LIB)
	@mkdir -p $(@D)
	$(if $(Q),@echo '  TEST   $<')
	$(Q)$(CC) $(CFLAGS_ALL) -Itests -MMD -MP -MF $@.d $(LDFLAGS_ALL) -o $@ $< $(LIB) $(LIBS) -lcmocka

$(OUT)/tests/obj/%.o: tests/%.c $(OUT)/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  CC     $<')
	$(Q)$(CC) $(CFLAGS_ALL) -Itests -MMD -MP -c -o $@ $<

# By the program's name: the files of a folder tests/<name>, or one of tests/fuzz, more.<name>, and objects.<name>.
program_objects = $(patsubst tests/%.c,$(OUT)/tests/obj/%.o,$(sort $(wildcard tests/$(1)/*.c tests/fuzz/$(1).c)) $(more.$(1))) $(objects.$(1))
.SECONDEXPANSION:
$(PROGRAMS) $(if $(filter fuzz,$(FLAVOUR)),$(FUZZ)): $$(call program_objects,$$(@F)) $(LIB)
	@mkdir -p $(@D)
	$(if $(Q),@echo '  TEST   $@')
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) $(if $(filter fuzz_%,$(@F)),-fsanitize=fuzzer) -o $@ $^ $(LIBS) $(libs.$(@F))

$(OUT)/tests/tools/%: tests/tools/%.c $(OUT)/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  TOOL   $<')
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -MMD -MP -MF $@.d -o $@ $< $(libs.$(@F))

# What is loaded before the C library: without sanitizers, which want to be the first.
$(OUT)/tests/shims/%.so: tests/shims/%.c $(OUT)/flags
	@mkdir -p $(@D)
	$(if $(Q),@echo '  SHIM   $<')
	$(Q)$(CC) $(CFLAGS_ALL) -fno-sanitize=all -fPIC -shared -MMD -MP -MF $@.d -o $@ $<

# Programs for Linux guests: whole, with the C library.
TORTURE := $(OUT)/tests/guest-linux/torture
$(TORTURE): $(sort $(wildcard tests/guest-linux/*.c)) $(wildcard tests/guest-linux/*.h)
	@mkdir -p $(@D)
	$(if $(Q),@echo '  GUEST  tests/guest-linux')
	$(Q)gcc -std=gnu17 -O2 -g $(WARNINGS) -static -pthread -o $@ $(filter %.c,$^)

# The same of 32 bits, without: that needs no 32-bit library.
USER32 := $(OUT)/tests/guest-linux32/user32
$(USER32): tests/guest-linux32/user32.c
	@mkdir -p $(@D)
	$(if $(Q),@echo '  GUEST  tests/guest-linux32')
	$(Q)gcc -m32 -std=gnu17 -O2 -g $(WARNINGS) -ffreestanding -nostdlib -static -fno-pie -no-pie -fno-stack-protector \
		-fno-asynchronous-unwind-tables -fcf-protection=none -Wl,--build-id=none -o $@ $<

ifeq ($(FLAVOUR),fuzz)
fuzzers: $(FUZZ)
else
fuzzers:
	$(Q)$(MAKE) FLAVOUR=fuzz CC=$(CLANG) fuzzers
endif

# Bare-metal guests: tests/guest/test_<name>.c or .S with everything in tests/guest/lib.
GUEST_CFLAGS := -std=gnu17 -O2 -g -Wall -Wextra -Werror -Wno-override-init -fno-strict-aliasing -ffreestanding -fno-pic -no-pie -nostdlib -static -mno-red-zone \
	-mgeneral-regs-only -mcmodel=small -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fcf-protection=none -Itests/guest -Itests/guest/lib
GUEST_LIB := $(sort $(wildcard tests/guest/lib/*.c tests/guest/lib/*.S))
GUEST_OBJ := $(GUEST_LIB:tests/guest/%=$(BUILD)/guest/%.o)

$(BUILD)/guest/%.o: tests/guest/% $(wildcard tests/guest/lib/*.h) Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo '  GUEST  $<')
	$(Q)gcc $(GUEST_CFLAGS) -c -o $@ $<

$(BUILD)/guest/%.elf: $(BUILD)/guest/%.c.o $(GUEST_OBJ) tests/guest/guest.ld
	$(Q)gcc $(GUEST_CFLAGS) -Wl,-T,tests/guest/guest.ld -Wl,--build-id=none -Wl,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments \
		-o $@ $< $(GUEST_OBJ)

$(BUILD)/guest/%.elf: $(BUILD)/guest/%.S.o $(GUEST_OBJ) tests/guest/guest.ld
	$(Q)gcc $(GUEST_CFLAGS) -Wl,-T,tests/guest/guest.ld -Wl,--build-id=none -Wl,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments \
		-o $@ $< $(GUEST_OBJ)

# The multiboot guest: 32-bit ELF, the same as ELF64, and as plain bytes whose header says where they go.
MULTIBOOT := $(addprefix $(BUILD)/guest/,multiboot.elf multiboot64.elf multiboot.bin)
MULTIBOOT_BUILD = gcc -m32 $(filter-out -mno-red-zone -mcmodel=small,$(GUEST_CFLAGS)) -Wno-main -Wl,-T,tests/multiboot/guest.ld \
	-Wl,--build-id=none -Wl,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments -o $@ $(filter %.c %.S,$^)
MULTIBOOT_FILES := $(wildcard tests/multiboot/*)

$(BUILD)/guest/multiboot.elf: $(MULTIBOOT_FILES) Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo '  GUEST  tests/multiboot')
	$(Q)$(MULTIBOOT_BUILD)

$(BUILD)/guest/multiboot64.elf: $(BUILD)/guest/multiboot.elf
	$(Q)objcopy -O elf64-x86-64 $< $@

$(BUILD)/guest/multiboot-addresses.elf: $(MULTIBOOT_FILES) Makefile
	@mkdir -p $(@D)
	$(Q)$(MULTIBOOT_BUILD) -DADDRESSES

$(BUILD)/guest/multiboot.bin: $(BUILD)/guest/multiboot-addresses.elf
	$(Q)objcopy -O binary $< $@

# A firmware, linked where its ROM is: it ends at 4 GiB.
ROM := $(BUILD)/guest/rom.bin
$(BUILD)/guest/rom.elf: tests/firmware/rom.S
	@mkdir -p $(@D)
	$(if $(Q),@echo '  GUEST  tests/firmware')
	$(Q)gcc -m32 -nostdlib -static -no-pie -Wl,--build-id=none,-Ttext=0xffffe000,-e,rom -o $@ $<

$(ROM): $(BUILD)/guest/rom.elf
	$(Q)objcopy -O binary -j .text $< $@

# As a test of kvm-unit-tests is.
FLAT := $(BUILD)/guest/kvm-unit-test.flat
$(FLAT): tests/kvm-unit-tests/flat.S
	@mkdir -p $(@D)
	$(if $(Q),@echo '  GUEST  tests/kvm-unit-tests')
	$(Q)gcc -m32 -nostdlib -static -no-pie -Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments -Wl,-Ttext=0x400000,-e,entry -o $@ $<

# A multiboot image linked below LOW_END, for the ways through the reset vector.
RESET := $(BUILD)/guest/reset.bin
$(BUILD)/guest/reset.elf: tests/reset/guest.S
	@mkdir -p $(@D)
	$(if $(Q),@echo '  GUEST  tests/reset')
	$(Q)gcc -m32 -nostdlib -static -no-pie -Wl,--build-id=none,-Ttext=0x8000,-e,image,--no-warn-rwx-segments -o $@ $<

$(RESET): $(BUILD)/guest/reset.elf
	$(Q)objcopy -O binary -j .text $< $@

# The beginning of a disk for memdisk.
DISK := $(BUILD)/guest/disk.bin
$(DISK): tests/memdisk/disk.S
	@mkdir -p $(@D)
	$(if $(Q),@echo '  GUEST  tests/memdisk')
	$(Q)gcc -m32 -c -o $(@:.bin=.o) $< && objcopy -O binary -j .text $(@:.bin=.o) $@

# The isolation fuzzer looks at the translator's own structures: whoever changes those finds out soon.
unit: $(UNIT) $(ISOLATION)
guests: $(GUESTS) $(MULTIBOOT) $(ROM) $(RESET) $(FLAT) $(DISK)
helpers: $(HELPERS) $(SHIMS) $(TORTURE) $(USER32)

packages:
	@scripts/packages.sh $(filter test lint,$(MAKECMDGOALS)) $(if $(filter debian debian-test verify bench-devices bench-programs,$(MAKECMDGOALS)),debian)

# What the test scripts are told: where things are.
TEST_ENV = DOPPEL='$(abspath $(DOPPEL))' GUEST_DIR='$(abspath $(BUILD)/guest)' TOOLS_DIR='$(abspath $(OUT)/tests/tools)' \
	TORTURE='$(abspath $(TORTURE))' USER32='$(abspath $(USER32))' FUZZERS='$(abspath $(FUZZ))' ORACLE='$(abspath $(ORACLE))' \
	ISOLATION='$(abspath $(ISOLATION))' LOCKSTEP='$(abspath $(LOCKSTEP))' STEP='$(abspath $(STEP))' \
	VECTORS='$(abspath $(VECTORS))' SNAPSHOT='$(abspath $(SNAPSHOT))' DIRTY='$(abspath $(DIRTY))' BLOCK='$(abspath $(BLOCK))' MORE_ENGINES='$(abspath $(MORE_ENGINES))' \
	OBJECTS='$(abspath $(OUT)/obj)'
# The same with the address sanitizer, for those who want that.
ASAN_ENV = DOPPEL_ASAN='$(abspath $(BUILD)/asan/doppel)' ISOLATION_ASAN='$(abspath $(BUILD)/asan/tests/isolation/isolation)' \
	STEP_ASAN='$(abspath $(BUILD)/asan/tests/step/step)' \
	SNAPSHOT_ASAN='$(abspath $(BUILD)/asan/tests/snapshot/snapshot)'
# Quiet enough to read; -v in PROVE_FLAGS shows every line.
PROVE := prove --timer -j$(shell nproc) --exec '' $(PROVE_FLAGS)

# What failed says why at the very end, where whoever has only the end of a log finds it.
FAILED_AGAIN = { echo 'Once more, what failed:'; $(TEST_ENV) $(ASAN_ENV) $(PROVE) --statefile=$(BUILD)/prove --state=failed -v 2>&1 | \
	grep -v '^\(ok\|1\.\.\)' | cut -c1-160 | tail -n 40; }

check: all unit guests helpers
	$(Q)$(TEST_ENV) $(PROVE) $(UNIT) $(filter tests/guest/%,$(SCRIPTS))

test: packages
	$(Q)$(MAKE) $(JOBS) all unit guests helpers $(PROGRAMS) fuzzers
	$(Q)$(MAKE) $(JOBS) FLAVOUR=asan CC=gcc all unit $(BUILD)/asan/tests/step/step $(BUILD)/asan/tests/snapshot/snapshot
	$(Q)$(MAKE) $(JOBS) FLAVOUR=tsan CC=gcc $(TSAN_UNIT)
	$(Q)scripts/get-guest.sh
	$(Q)scripts/get-guest.sh --test $(if $(CI),,|| true)
	$(Q)$(TEST_ENV) $(ASAN_ENV) $(PROVE) --statefile=$(BUILD)/prove --state=save $(SCRIPTS) $(UNIT) $(ASAN_UNIT) $(TSAN_UNIT); \
		status=$$?; scripts/get-guest.sh --missing; [ $$status = 0 ] || $(FAILED_AGAIN); exit $$status

run: packages
	$(Q)$(MAKE) $(JOBS) all
	$(Q)scripts/get-guest.sh
	$(Q)DOPPEL='$(DOPPEL)' scripts/run-guest.sh $(ARGS)

# Made once, which takes minutes and a mirror. ARGS as for run.
DEBIAN := $(Q)DOPPEL='$(abspath $(DOPPEL))' scripts/get-debian.sh
debian: packages
	$(Q)$(MAKE) $(JOBS) all
	$(DEBIAN)
	$(Q)DOPPEL='$(DOPPEL)' scripts/run-debian.sh $(ARGS)

debian-test: packages
	$(Q)$(MAKE) $(JOBS) all helpers
	$(DEBIAN)
	$(Q)$(TEST_ENV) prove --timer -v --exec '' tests/debian/long.sh tests/debian/installer.sh

verify: packages
	$(Q)$(MAKE) $(JOBS) all helpers
	$(DEBIAN)
	$(Q)$(TEST_ENV) tests/debian/verify.sh $(ARGS)

crash: all helpers $(BLOCK)
	$(Q)$(TEST_ENV) tests/virtio/crash.sh $(ARGS)

# Long: the scripts say what can be chosen.
stress: all helpers
	$(Q)$(TEST_ENV) prove --timer -v --exec '' tests/stress/run.sh tests/stress/leak.sh

# Until interrupted, unless ORACLE_ARGS says e.g. --seconds 600 or --seed 1.
oracle: $(ORACLE)
	$(if $(ORACLE_ARGS),$(Q)$(ORACLE) $(ORACLE_ARGS),$(Q)for engine in interp bt; do \
		$(ORACLE) --engine $$engine --cases 1000 --table || exit 1; done)

# The same, e.g. --seed 1 --seconds 600.
isolation: $(ISOLATION)
	$(Q)$(ISOLATION) $(ISOLATION_ARGS)

# The same, e.g. --other bt,block=1.
step: $(STEP)
	$(Q)$(STEP) $(STEP_ARGS)

# Minutes: whole boots.
dirty: $(DIRTY) guests
	$(Q)scripts/get-guest.sh
	$(Q)$(TEST_ENV) DIRTY_END=4000000000 DIRTY_LIMIT=1800 DIRTY_MEMORY=256 tests/dirty/dirty.t

# Minutes; LOCKSTEP_ARGS e.g. --engine bt,link=off or --step 200.
lockstep: $(LOCKSTEP)
	$(Q)scripts/get-guest.sh
	$(Q)LOCKSTEP='$(abspath $(LOCKSTEP))' tests/lockstep/long.sh $(LOCKSTEP_ARGS)

# Every guest and kernel so many times, each at other moments.
SNAPSHOT_ROUNDS ?= 5
snapshot: all guests $(SNAPSHOT)
	$(Q)scripts/get-guest.sh
	$(Q)scripts/get-guest.sh --test || true
	$(Q)$(TEST_ENV) SNAPSHOT_ROUNDS='$(SNAPSHOT_ROUNDS)' prove --timer --exec '' $(PROVE_FLAGS) tests/snapshot/snapshot.t

# Does it find what is broken on purpose? Minutes for each of some twenty.
mutants:
	$(Q)BUILD='$(abspath $(BUILD))' tests/isolation/mutants.sh $(ARGS)

FUZZ_SECONDS ?= 60
fuzz: fuzzers
	$(Q)for f in $(FUZZ); do mkdir -p $(BUILD)/corpus/$$(basename $$f); \
		$$f -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(BUILD)/ $(BUILD)/corpus/$$(basename $$f) || exit 1; done

bench: all
	$(Q)DOPPEL='$(DOPPEL)' BUILD='$(BUILD)' bench/run.sh $(ARGS)

bench-devices: packages
	$(Q)$(MAKE) $(JOBS) all
	$(DEBIAN)
	$(Q)DOPPEL='$(DOPPEL)' BUILD='$(BUILD)' bench/devices.sh $(ARGS)

bench-programs: packages
	$(Q)$(MAKE) $(JOBS) all
	$(Q)DOPPEL='$(DOPPEL)' BUILD='$(BUILD)' bench/programs/run.py $(ARGS)

C_FILES = $(shell find src tests bench -name '*.[ch]')
SHELL_FILES = $(shell grep -rlE '^\#!/bin/(ba)?sh' scripts tests bench .ci)

lint: packages all
	$(Q)scripts/check-includes src $(OUT)/obj
	$(Q)$(CLANG_FORMAT) --dry-run --Werror $(C_FILES)
	$(Q)if command -v shellcheck >/dev/null; then shellcheck $(SHELL_FILES); fi
	$(Q)$(MAKE) $(JOBS) -k tidy

# What passed is not looked at again until its object, and so some file that it includes, is newer.
tidy: $(SOURCES:src/%.c=$(OUT)/tidy/%)

$(OUT)/tidy/%: src/%.c $(OUT)/obj/%.o .clang-tidy
	@mkdir -p $(@D)
	$(if $(Q),@echo '  TIDY   $<')
	$(Q)$(CLANG_TIDY) --quiet $< -- -std=gnu17 -Isrc -D__clang_analyzer__ 2>$@.errors || { cat $@.errors; exit 1; }
	$(Q)touch $@

format:
	$(Q)$(CLANG_FORMAT) -i $(C_FILES)

install: all
	install -D -m 755 $(DOPPEL) $(DESTDIR)$(PREFIX)/bin/doppel
	ln -sf doppel $(DESTDIR)$(PREFIX)/bin/doppel-qemu
	install -D -m 644 docs/doppel.1 $(DESTDIR)$(PREFIX)/share/man/man1/doppel.1
	mkdir -p $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(DOPPEL) completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/doppel

clean:
	rm -rf $(BUILD)

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)
