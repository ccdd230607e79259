/*
 * QEMU's command line in doppel's words: what tools pass, as it was captured, and every kind of line that is refused or changed.
 */
#include "qemu/qemu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define WORDS_MOST 160

static char *arguments; /* what a line's words may be parts of */

/* Of a line with single spaces between words, which have none. */
static int translate(struct qemu_line *line, const char *text, struct error *err)
{
	char *at, *word, *words[WORDS_MOST] = { "qemu" };
	int count = 1;

	log_set_level(LOG_ERROR);
	free(arguments);
	at = arguments = strdup(text);
	while (*text && (word = strsep(&at, " ")) && count < WORDS_MOST)
		words[count++] = word;
	return qemu_translate(line, count, words, err);
}

/* The words that come of it, without those that every line ends with. */
static void becomes(const char *text, const char *expected)
{
	static const char end[] = " --signal-status 0";
	struct qemu_line line;
	struct error err = { 0 };
	char words[4096] = "";
	size_t used = 0;

	if (translate(&line, text, &err))
		fail_msg("%s: %s", text, err.text);
	for (unsigned n = 0; n < line.count; n++)
		used += (size_t)snprintf(words + used, sizeof(words) - used, "%s%s", n ? " " : "", line.words[n]);
	assert_string_equal(words + used - strlen(end), end);
	words[used - strlen(end)] = 0;
	assert_string_equal(words, expected);
	qemu_free(&line);
}

static void refused(const char *text, const char *sentence)
{
	struct qemu_line line;
	struct error err = { 0 };

	assert_int_equal(translate(&line, text, &err), -22);
	if (!strstr(err.text, sentence))
		fail_msg("%s: %s", text, err.text);
	qemu_free(&line);
}

/* With what is said of no other option: a kernel and its serial port. */
#define PLAIN		    "-nodefaults -kernel k "
#define REST		    " --serial null --cpu host --memory 128M --kernel k --vga none"
#define one(text, expected) becomes(PLAIN text, expected REST)

static void test_libguestfs(void **state)
{
	(void)state;
	becomes("-display none -machine accel=kvm:tcg -qmp stdio",
		"--net user --qmp stdio --serial null --cpu host --memory 128M --firmware bios --vga std");
	becomes("-global virtio-blk-pci.scsi=off -no-user-config -nodefaults -display none -machine "
		"accel=kvm:tcg,graphics=off -cpu max,la57=off -m 1280 -no-reboot -rtc driftfix=slew -no-hpet -global "
		"kvm-pit.lost_tick_policy=discard -kernel /t/kernel -initrd /t/initrd -object "
		"rng-random,filename=/dev/urandom,id=rng0 -device virtio-rng-pci,rng=rng0 -device "
		"virtio-scsi-pci,id=scsi -drive file=/t/s.img,cache=unsafe,format=raw,id=hd0,if=none -device "
		"scsi-hd,drive=hd0 -drive file=/t/root,snapshot=on,id=appliance,cache=unsafe,if=none,format=raw "
		"-device scsi-hd,drive=appliance -device virtio-serial-pci -serial stdio -chardev "
		"socket,path=/t/g.sock,id=channel0 -device "
		"virtserialport,chardev=channel0,name=org.libguestfs.channel.0 -netdev "
		"user,id=usernet,net=169.254.0.0/16 -device virtio-net-pci,netdev=usernet -append panic=1",
		"--memory 1280M --no-reboot --on-triple-fault reset --initrd /t/initrd --append panic=1 --device "
		"virtio-rng --device virtio-scsi --device scsi-disk,file=/t/s.img,format=raw,cache=unsafe --device "
		"scsi-disk,file=/t/root,format=raw,cache=unsafe,snapshot=on --device "
		"virtio-port,name=org.libguestfs.channel.0,chardev=unix-connect:/t/g.sock --device "
		"virtio-net,net=user,,net=169.254.0.0/16 --serial stdio --cpu host --kernel /t/kernel --vga none");
}

static void test_autopkgtest(void **state)
{
	(void)state;
	becomes("-m 1024 -smp 1 -nographic -net nic,model=virtio -net user,hostfwd=tcp:127.0.0.1:10022-:22 -object "
		"rng-random,filename=/dev/urandom,id=rng0 -device virtio-rng-pci,rng=rng0,id=rng-device0 -monitor "
		"unix:/t/monitor,server=on,wait=off -virtfs "
		"local,id=autopkgtest,path=/t/shared,security_model=none,mount_tag=autopkgtest -device virtio-serial "
		"-device virtconsole,chardev=hvc1 -chardev socket,path=/t/hvc1,server=on,wait=off,id=hvc1 -serial "
		"unix:/t/ttyS0,server=on,wait=off -serial unix:/t/ttyS1,server=on,wait=off -drive "
		"index=0,file=/t/overlay.img,cache=unsafe,if=virtio,discard=unmap,format=qcow2",
		"--memory 1024M --device virtio-net,net=user,,forward=tcp:127.0.0.1:10022-22 --device virtio-rng "
		"--device virtio-9p,folder=/t/shared,tag=autopkgtest --device virtio-console,chardev=unix:/t/hvc1 "
		"--device virtio-blk,file=/t/overlay.img,format=qcow2,cache=unsafe,backing=any,discard=on --monitor "
		"unix:/t/monitor --serial unix:/t/ttyS0 --serial unix:/t/ttyS1 --cpu host --firmware bios --vga std");
	becomes("-machine q35 -nographic -net none -drive if=pflash,format=raw,unit=0,read-only=on,file=/t/CODE.fd "
		"-drive "
		"if=pflash,format=raw,unit=1,file=/t/VARS.fd",
		"--serial stdio --cpu host --memory 128M --firmware /t/CODE.fd --device pflash,file=/t/VARS.fd --vga "
		"std");
}

static void test_fakemachine(void **state)
{
	(void)state;
	becomes("-smp 2 -m 2048 -kernel /k -initrd /i -display none -no-reboot -chardev stdio,id=for-ttyS0,signal=off "
		"-serial chardev:for-ttyS0 -device virtio-serial -chardev null,id=for-hvc0 -device "
		"virtconsole,chardev=for-hvc0 -virtfs "
		"local,mount_tag=virtfs-0,path=/,security_model=none,multidevs=remap -drive "
		"file=/d.img,if=none,format=raw,cache=unsafe,id=drive-virtio0 -device "
		"virtio-blk-pci,drive=drive-virtio0,serial=fakedisk-0 -append console=ttyS0",
		"--memory 2048M --initrd /i --no-reboot --on-triple-fault reset --append console=ttyS0 --net user "
		"--device virtio-console,chardev=null --device virtio-9p,folder=/,tag=virtfs-0 --device "
		"virtio-blk,file=/d.img,format=raw,cache=unsafe,serial=fakedisk-0 --serial stdio --cpu host --cpus 2 "
		"--kernel /k");
}

static void test_packer(void **state)
{
	(void)state;
	becomes("-machine type=pc,accel=kvm -name packer-qemu -m 1024M -smp cpus=2,sockets=2 -boot once=d -vnc "
		"127.0.0.1:47 -netdev user,id=user.0,hostfwd=tcp::3213-:22 -device virtio-net,netdev=user.0 -drive "
		"file=o/disk,if=virtio,cache=writeback,discard=ignore,format=qcow2,detect-zeroes= -drive "
		"file=d.iso,media=cdrom -fda f.img -qmp unix:/q.sock,server,nowait",
		"--name packer-qemu --memory 1024M --display vnc:127.0.0.1:5947 --device "
		"virtio-net,net=user,,forward=tcp:3213-22 --device "
		"virtio-blk,file=o/disk,format=qcow2,backing=any --device ide-cd,file=d.iso --device "
		"floppy,file=f.img,backing=any --qmp unix:/q.sock --serial stdio --cpu host --cpus 2 --firmware bios "
		"--boot once=d --vga std");
}

static void test_mkosi(void **state)
{
	(void)state;
	becomes("-machine type=q35,accel=kvm,smm=off -smp 2 -m 1G -object rng-random,filename=/dev/urandom,id=rng0 "
		"-device "
		"virtio-rng-pci,rng=rng0,id=rng-device0 -cpu max -nographic -nodefaults -serial mon:stdio -nic "
		"user,model=virtio-net-pci -drive if=pflash,format=raw,readonly=on,file=/C.fd -drive "
		"file=/V.fd,if=pflash,format=raw -drive if=none,id=hd,file=i.raw,format=raw -device "
		"virtio-scsi-pci,id=scsi -device scsi-hd,drive=hd,bootindex=1",
		"--memory 1G --device virtio-net,net=user --device virtio-rng --device virtio-scsi --device "
		"scsi-disk,file=i.raw,format=raw,boot=2 --serial stdio --cpu host --cpus 2 --firmware /C.fd --device "
		"pflash,file=/V.fd --vga none");
}

static void test_virtme(void **state)
{
	(void)state;
	becomes("-m 1G -smp 2 -machine q35 -cpu max -device i6300esb,id=watchdog0 -parallel none -net none -echr 1 "
		"-chardev "
		"file,path=/proc/self/fd/2,id=dmesg -device virtio-serial-pci -device virtconsole,chardev=dmesg "
		"-chardev stdio,id=console,signal=off,mux=on -serial chardev:console -mon chardev=console -vga none "
		"-display none -object memory-backend-memfd,id=mem,size=1G,share=on -numa node,memdev=mem -chardev "
		"socket,id=fs5,path=/v.sock -device vhost-user-fs-pci,chardev=fs5,tag=ROOTFS -kernel k -append x",
		"--memory 1G --append x --device virtio-console,chardev=file:/proc/self/fd/2 --device "
		"virtio-9p,folder=vhost-user:/v.sock,tag=ROOTFS --serial stdio --cpu host --cpus 2 --kernel k --vga "
		"none");
}

static void test_syzkaller(void **state)
{
	(void)state;
	becomes("-m 2048 -smp 2 -chardev socket,id=S,server=on,wait=off,host=localhost,port=51 -mon "
		"chardev=S,mode=control -display none -serial stdio -no-reboot -name VM-0 -device virtio-rng-pci "
		"-enable-kvm -cpu host,migratable=off -device virtio-net-pci,netdev=net0 -netdev "
		"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:1-:22 -hda img -snapshot -kernel k -append "
		"root=/dev/sda",
		"--memory 2048M --no-reboot --on-triple-fault reset --name VM-0 --append root=/dev/sda --device "
		"virtio-rng --device virtio-net,net=user,,restrict,,forward=tcp:127.0.0.1:1-22 --device "
		"ide-disk,file=img,backing=any,snapshot=on,unit=0 --qmp tcp:localhost:51 --serial stdio --cpu host "
		"--cpus 2 --kernel k");
}

static void test_libvirt(void **state)
{
	(void)state;
	becomes("-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -qmp "
		"unix:/c.monitor,server=on,wait=off -pidfile /p -daemonize",
		"--paused --pid-file /p --detach --qmp unix:/c.monitor --serial null --cpu host --memory 128M "
		"--firmware bios --vga none");
	becomes("-name guest=d,debug-threads=on -S -object {\"qom-type\":\"secret\",\"id\":\"masterKey0\"} -machine "
		"pc-i440fx-7.2,usb=off,dump-guest-core=off -cpu qemu64 -m 512 -smp 1,sockets=1,cores=1,threads=1 -uuid "
		"c7a5fdbd-edaf-9455-926a-d65c16db1809 -display none -no-user-config -nodefaults -chardev "
		"socket,id=charmonitor,path=/m,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control "
		"-rtc "
		"base=utc -no-shutdown -blockdev "
		"{\"driver\":\"file\",\"filename\":\"/"
		"d.qcow2\",\"node-name\":\"s\",\"auto-read-only\":true,\"discard\":"
		"\"unmap\"} -blockdev "
		"{\"node-name\":\"f\",\"read-only\":false,\"driver\":\"qcow2\",\"file\":\"s\",\"cache\":{\"direct\":"
		"true}} "
		"-device {\"driver\":\"virtio-blk-pci\",\"bus\":\"pci.0\",\"addr\":\"0x3\",\"drive\":\"f\",\"id\":"
		"\"virtio-disk0\",\"bootindex\":1} -netdev {\"type\":\"user\",\"id\":\"hostnet0\"} -device "
		"{\"driver\":\"virtio-net-pci\",\"netdev\":\"hostnet0\",\"id\":\"net0\",\"mac\":\"52:54:00:01:02:03\"} "
		"-chardev pty,id=charserial0 -device "
		"{\"driver\":\"isa-serial\",\"chardev\":\"charserial0\",\"index\":0}",
		"--name d --paused --memory 512M --smbios type=1,uuid=c7a5fdbd-edaf-9455-926a-d65c16db1809 --device "
		"virtio-blk,file=/d.qcow2,format=qcow2,cache=none,backing=any,discard=on,boot=2 --device "
		"virtio-net,net=user,,mac=52:54:00:01:02:03 --device uart,port=1,chardev=pty --qmp unix:/m --cpu v2 "
		"--firmware bios --vga none");
}

static void test_by_hand(void **state)
{
	(void)state;
	becomes("-m 512 disk.qcow2 -cdrom x.iso -boot d -netdev user,id=n,hostfwd=tcp::2222-:22 -device "
		"virtio-net-pci,netdev=n -vnc :1 -serial mon:stdio",
		"--memory 512M --display vnc:0.0.0.0:5901 --device virtio-net,net=user,,forward=tcp:2222-22 --device "
		"ide-disk,file=disk.qcow2,backing=any,unit=0 --device ide-cd,file=x.iso,unit=2 --serial stdio --cpu "
		"host --firmware bios --boot order=d --vga std");
	one("-drive file=a,,b,if=virtio,format=raw", "--device virtio-blk,file=a,,b,format=raw");
	one("-smbios type=1,serial=a,,b", "--smbios type=1,serial=a,,b");
	one("-drive file=a,if=ide,format=raw,werror=stop", "--device ide-disk,file=a,format=raw,on-error=stop");
	one("-drive file=nbd:unix:/s,if=virtio", "--device virtio-blk,file=nbd:unix:/s,backing=any");
	one("-drive file.driver=nbd,file.host=h,file.port=1,file.export=e,id=d,if=none,driver=raw -device "
	    "ide-hd,drive=d,bus=ide.1,unit=0 -blockdev driver=nbd,node-name=x,server.type=unix,server.path=/s -device "
	    "scsi-hd,drive=x,scsi-id=2",
	    "--device ide-disk,unit=2,file=nbd:h:1:exportname=e,format=raw --device "
	    "scsi-disk,target=3,file=nbd:unix:/s,backing=any");
	one("-device isa-debug-exit,iobase=0xf4,iosize=4 -device virtio-balloon",
	    "--device debug-exit --device virtio-balloon");
	one("-device virtio-blk-device,drive=d -drive file=f,format=raw,id=d,if=none,werror=stop",
	    "--device virtio-blk,transport=mmio,file=f,format=raw,on-error=stop");
	one("-device virtio-net-pci-non-transitional,netdev=n -netdev socket,listen=:99,id=n",
	    "--device virtio-net,legacy=off,net=stream:tcp:0.0.0.0:99,,server");
	one("-nic tap,ifname=t0,script=no,mac=52:54:00:00:00:01,model=virtio",
	    "--device virtio-net,net=tap:t0,,mac=52:54:00:00:00:01");
	one("-object memory-backend-file,id=m,mem-path=/p,size=1G,share=on -device virtio-pmem-pci,memdev=m",
	    "--device virtio-pmem,file=/p");
	one("-fw_cfg name=opt/x,string=a,,b", "--device fw-cfg-file,name=opt/x,string=a,,b");
	one("-k en-gb -S", "--keyboard uk --paused");
	becomes(PLAIN "-cpu qemu64,-hypervisor -smp sockets=2,cores=2",
		"--serial null --cpu v2 --cpus 4 --memory 128M --pure --kernel k --vga none");
}

static void test_refused(void **state)
{
	(void)state;
	refused("-frobnicate", "-frobnicate: doppel has no such option");
	refused("-m", "-m: expected [size=]megs");
	refused("-m x", "-m x: expected a size");
	refused("-smp 0", "expected a number of processors");
	refused("-machine virt", "-machine virt: expected pc");
	refused("-machine q35,smm=on", "smm=on: doppel has no SMM");
	refused("-accel xen", "-accel xen: expected tcg or kvm");
	refused("-device frob", "-device frob: doppel has no such device");
	refused("-device vfio-pci,host=1", "-device vfio-pci: doppel has no such device");
	refused("-device virtio-blk-pci,drive=x", "there is no '-drive ...,id=x'");
	refused("-device virtio-blk-pci", "expected drive=ID");
	refused("-device virtconsole,chardev=x", "there is no '-chardev ...,id=x'");
	refused("-device virtio-net-pci,netdev=x", "there is no '-netdev ...,id=x'");
	refused("-netdev user,id=n -device virtio-net,netdev=n -device virtio-net,netdev=n", "that is free");
	refused("-device virtio-9p-pci,fsdev=x", "there is no '-fsdev ...,id=x'");
	refused("-netdev l2tpv3,id=n -device virtio-net,netdev=n", "doppel has no such network");
	refused("-nic user,hostfwd=tcp:x", "hostfwd=tcp:x: expected");
	refused("-drive file=x,if=virtio,format=vmdk", "doppel has no format 'vmdk'");
	refused("-drive file=http://x,if=virtio", "expected a file");
	refused("-drive id=d,if=none -device ide-hd,drive=d", "-drive id=d,if=none: there is no file");
	refused("-drive file=x,if=sd", "-drive if=sd: expected virtio");
	refused("-blockdev {\"driver\":", "is no JSON");
	refused("-blockdev driver=qcow2,node-name=a,file=a -device virtio-blk,drive=a", "there is no '-blockdev");
	refused("-blockdev driver=rbd,node-name=a -device virtio-blk,drive=a", "doppel has no driver 'rbd'");
	refused("-serial frob", "doppel has no 'frob'");
	refused("-serial tcp:1", "has no address");
	refused("-chardev socket,id=c -serial chardev:c", "expected path=PATH");
	refused("-monitor pty", "a monitor cannot be on 'pty'");
	refused("-vnc :1,password=on", "doppel has no passwords");
	refused("-vnc x", "expected [HOST]:N");
	refused("-object authz-pam,id=a", "doppel has no such object");
	refused("-gdb tcp::1234", "-gdb: doppel has no");
	refused("-virtfs local,path=/", "mount_tag=TAG");
	refused("-fw_cfg opt/x", "expected name=NAME");
}

static void helps(const char *text, const char *expected)
{
	struct qemu_line line;

	assert_int_equal(translate(&line, text, NULL), 0);
	assert_non_null(line.help);
	assert_non_null(strstr(line.help, expected));
	qemu_free(&line);
}

/* As tools look for them. */
static void test_help(void **state)
{
	(void)state;
	helps("-version", "QEMU emulator version 7.2.0 (");
	helps("-display none -help", "QEMU emulator version 7.2.0 (");
	helps("--help", "\n-machine [type=]name");
	helps("-display none -machine accel=kvm:tcg -device ?", "\nname \"virtio-scsi-pci\", bus PCI");
	helps("-device help", "Storage devices:\n");
	helps("-device virtio-net-pci,help", "netdev=<str>");
	helps("-machine help", "\npc ");
	helps("-M ?", "\nq35 ");
	helps("-cpu help", "x86 max");
	helps("-accel help", "\ntcg\n");
	helps("-netdev help", "\nuser\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_libguestfs),  cmocka_unit_test(test_autopkgtest),
		cmocka_unit_test(test_fakemachine), cmocka_unit_test(test_packer),
		cmocka_unit_test(test_mkosi),	    cmocka_unit_test(test_virtme),
		cmocka_unit_test(test_syzkaller),   cmocka_unit_test(test_libvirt),
		cmocka_unit_test(test_by_hand),	    cmocka_unit_test(test_refused),
		cmocka_unit_test(test_help),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
