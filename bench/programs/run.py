#!/usr/bin/env python3
"""Real programs natively, under doppel and, where installed, under QEMU's TCG, in rounds one after the other: CPU seconds, wall seconds, ratios.

Each program (inside.sh) runs in a fresh guest, twice: "first" and "second". Natively it runs in a chroot of the same root. A program's result must
be the same everywhere. CPU seconds are those of the whole monitor (natively: of the programs' processes), read when the program may start and when
it has ended; of several rounds the least counts. What is printed: a line a program, geometric means, the worst; each figure of each round stays in
$BUILD/bench/programs.txt (PEER PROGRAM RUN CPU WALL), the plot in $BUILD/bench/programs.svg.

Environment: DOPPEL, DOPPEL_ARGS, BUILD. Needs python3, mmdebstrap and e2fsprogs, and root for the chroot.
"""
import argparse
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("BUILD", "build")
DOPPEL = os.environ.get("DOPPEL", os.path.join(BUILD, "release/doppel"))
ROOT = subprocess.check_output([HERE + "/make-root.sh", "--where"], text=True).strip()
APPEND = "console=ttyS0 quiet panic=-1 root=/dev/vda ro init=/bench/inside.sh"
TICK = os.sysconf("SC_CLK_TCK")
LIMIT = 900  # seconds that a run may take


class Failed(Exception):
    pass


def native(cpus):
    inside = f"mount --bind /dev {ROOT}/root/dev; mount -t proc proc {ROOT}/root/proc; mount -t tmpfs -o size=600m,mode=1777 tmp {ROOT}/root/tmp;"
    pin = ["taskset", "-c", f"0-{cpus - 1}"] if cpus < os.cpu_count() else []
    return pin + ["unshare", "-m", "sh", "-c", inside + f"exec chroot {ROOT}/root /bench/inside.sh serve"]


def doppel(cpus):
    return [DOPPEL, "run", "--kernel", ROOT + "/vmlinuz", "--initrd", ROOT + "/initrd.img", "--append", APPEND, "--memory", "1G", "--cpus", str(cpus), "--no-reboot",
            "--disk", ROOT + "/root.ext4,format=raw,readonly"] + shlex.split(os.environ.get("DOPPEL_ARGS", ""))


def qemu(cpus):
    return ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1G", "-smp", str(cpus), "-nodefaults", "-display", "none",
            "-serial", "stdio", "-no-reboot", "-kernel", ROOT + "/vmlinuz", "-initrd", ROOT + "/initrd.img", "-append", APPEND,
            "-drive", f"file={ROOT}/root.ext4,format=raw,readonly=on,if=virtio"]


PEERS = {"native": native, "doppel": doppel, "qemu": qemu}


class Machine:
    """A peer that serves programs: its standard input and output are inside.sh's."""

    def __init__(self, peer, cpus):
        self.name = peer
        self.process = subprocess.Popen(PEERS[peer](cpus), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)
        self.text = b""
        self.expect("@ready")

    def cpu(self):
        """Of all its threads; natively also of the children that it has waited for."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return sum(int(fields[n]) for n in (11, 12, 13, 14)) / TICK

    def expect(self, word):
        """The rest of the line that this word begins."""
        end = time.monotonic() + LIMIT
        while True:
            while b"\n" in self.text:
                line, self.text = self.text.split(b"\n", 1)
                line = line.decode("utf-8", "replace").strip()
                if line.startswith(word):
                    return line[len(word):].strip()
            signal.alarm(max(1, int(end - time.monotonic())))
            data = self.process.stdout.read(65536)
            signal.alarm(0)
            if not data:
                raise Failed(f"{self.name} ended while '{word}' was awaited")
            self.text += data

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    def run(self, program):
        """CPU seconds, wall seconds, sum of the result."""
        self.send(program)
        self.expect("@begin")
        cpu, wall = self.cpu(), time.monotonic()
        self.send("go")
        status, result = self.expect("@done").split()
        figures = self.cpu() - cpu, time.monotonic() - wall
        if status != "0":
            raise Failed(f"{program} under {self.name} ended with status {status}")
        return *figures, result

    def stop(self):
        try:
            self.send("off")
            self.process.stdin.close()
            self.process.wait(60)
        except (OSError, subprocess.TimeoutExpired):
            pass
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def measure(peer, program, cpus):
    machine = Machine(peer, cpus)
    try:
        return [machine.run(program) for _ in ("first", "second")]
    finally:
        machine.stop()


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def plot(path, rows, peers):
    """Times native by program, a bar a peer and run, on a logarithmic scale."""
    colours = {("doppel", 0): "#1f6f8b", ("doppel", 1): "#99c4d3", ("qemu", 0): "#c0562f", ("qemu", 1): "#ecb9a3"}
    bars = [(p, r) for p in peers if p != "native" for r in (0, 1)]
    step, left, width = 9 * len(bars) + 6, 130, 600
    highest = max(max(row[1].values()) for row in rows)
    x = lambda v: left + width * math.log(max(v, 1)) / math.log(highest * 1.05)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{step * len(rows) + 60}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>']
    for v in (1, 2, 3, 5, 10, 20, 50, 100):
        if v <= highest:
            out.append(f'<line x1="{x(v):.0f}" x2="{x(v):.0f}" y1="30" y2="{step * len(rows) + 34}" stroke="#ddd"/><text x="{x(v):.0f}" y="26" text-anchor="middle">{v}</text>')
    for n, bar in enumerate(bars):
        out.append(f'<rect x="{left + 150 * n}" y="4" width="9" height="9" fill="{colours[bar]}"/><text x="{left + 150 * n + 13}" y="12">{bar[0]}, {("first", "second")[bar[1]]} run</text>')
    for n, (name, values) in enumerate(rows):
        y = 36 + step * n
        out.append(f'<text x="{left - 6}" y="{y + step / 2 + 2:.0f}" text-anchor="end">{name}</text>')
        for k, bar in enumerate(bars):
            if bar in values:
                out.append(f'<rect x="{left}" y="{y + 9 * k}" width="{max(1, x(values[bar]) - left):.1f}" height="8" fill="{colours[bar]}"/>')
    out.append(f'<text x="{left}" y="{step * len(rows) + 52}">CPU seconds, times native (logarithmic)</text></svg>')
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")


def report(programs, peers, figures, path):
    """figures[peer][program][run] = (CPU, wall), the least of each."""
    if "native" not in peers:
        print(f"no ratios without native; the seconds are in {os.path.dirname(path)}/programs.txt")
        return
    guests = [p for p in peers if p != "native"]
    print(f'{"program":16}{"native s":>10}' + "".join(f'{p + " 1st":>12}{"2nd":>8}{"wall":>8}' for p in guests))
    rows = []
    for program in programs:
        if any(program not in figures[p] for p in peers):
            continue
        base = max(min(run[0] for run in figures["native"][program]), 1 / TICK)
        values = {(p, r): figures[p][program][r][0] / base for p in guests for r in (0, 1)}
        rows.append((program, values))
        print(f"{program:16}{base:10.2f}" + "".join(
            f'{values[p, 0]:12.2f}{values[p, 1]:8.2f}{figures[p][program][0][1] / max(figures["native"][program][0][1], 0.01):8.2f}' for p in guests))
    for p in guests:
        for r, run in enumerate(("first", "second")):
            ratios = [(row[1][p, r], row[0]) for row in rows]
            if ratios:
                print(f"{p}, {run} run: geometric mean {mean([v for v, _ in ratios]):.2f} times native, worst {max(ratios)[0]:.2f} ({max(ratios)[1]})")
    if "doppel" in guests and "qemu" in guests and rows:
        for r, run in enumerate(("first", "second")):
            print(f'doppel / qemu, {run} run: {mean([v["doppel", r] / v["qemu", r] for _, v in rows]):.3f}')
    if guests and rows:
        plot(path, rows, peers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=3, help="rounds (3)")
    parser.add_argument("-c", type=int, default=1, help="CPUs (1)")
    parser.add_argument("-b", help="these programs: NAME,...")
    parser.add_argument("peers", nargs="*", metavar="PEER", help="native, doppel, qemu; default: all that are there")
    args = parser.parse_args()
    subprocess.check_call([HERE + "/make-root.sh"])
    programs = subprocess.check_output([HERE + "/inside.sh", "list"], text=True).split()
    if args.b:
        unknown = set(args.b.split(",")) - set(programs)
        if unknown:
            sys.exit(f"programs: no program '{sorted(unknown)[0]}'; there are: {' '.join(programs)}")
        programs = args.b.split(",")
    peers = args.peers or ["native", "doppel"] + (["qemu"] if shutil.which("qemu-system-x86_64") else [])
    # The root may have been made with an earlier one.
    shutil.copy(HERE + "/inside.sh", ROOT + "/root/bench/inside.sh")
    subprocess.run(["debugfs", "-w", "-f", "/dev/stdin", ROOT + "/root.ext4"], input=f"cd /bench\nrm inside.sh\nwrite {HERE}/inside.sh inside.sh\n",
                   text=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.makedirs(BUILD + "/bench", exist_ok=True)
    figures, results, failed = {p: {} for p in peers}, {}, False

    def on_alarm(*_):
        raise Failed(f"no answer within {LIMIT} seconds")

    signal.signal(signal.SIGALRM, on_alarm)
    with open(BUILD + "/bench/programs.txt", "w", encoding="utf-8") as log:
        for _ in range(args.n):
            for program in programs:
                for peer in peers:
                    try:
                        runs = measure(peer, program, args.c)
                    except Failed as e:
                        print(f"programs: {e}", file=sys.stderr)
                        failed = True
                        continue
                    for n, (cpu, wall, result) in enumerate(runs):
                        print(peer, program, n + 1, f"{cpu:.2f} {wall:.2f}", file=log, flush=True)
                        if results.setdefault(program, result) != result:
                            print(f"programs: {program} under {peer}: its result has the sum {result}, expected {results[program]}", file=sys.stderr)
                            failed = True
                        best = figures[peer].setdefault(program, [(math.inf, math.inf)] * 2)
                        best[n] = (min(best[n][0], cpu), min(best[n][1], wall))
    report(programs, peers, figures, BUILD + "/bench/programs.svg")
    sys.exit(failed)


main()
