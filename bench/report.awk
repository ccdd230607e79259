# The table of bench/run.sh: from `gbench list` and vmtime's files PEER.ROUND.txt, of rounds that were run in turns.
#
# native32 and so on are the same with a 32-bit program, in a guest with a 32-bit kernel: over native32.
#
# A peer's figure is the median of its rounds' CPU time of the monitor, over the best round of the host itself: fair where other work
# shares the host, whose clock and whose guests' clocks then say little. Time to userspace and the parallel work are of the host's
# clock, and worth what the host was free: the host's own parallel figure stands beside.
#
# What doppel must reach is what the project set itself; "ok", or "short".

function median(key,   n, i, j, v, list) {
	n = count[key]
	for (i = 1; i <= n; i++) {
		v = values[key, i]
		for (j = i - 1; j > 0 && list[j] > v; j--)
			list[j + 1] = list[j]
		list[j + 1] = v
	}
	return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}
function best(key,   i, v) {
	for (i = 1; i <= count[key]; i++)
		if (i == 1 || values[key, i] < v)
			v = values[key, i]
	return v
}
function note(key, value) { values[key, ++count[key]] = value }
# What a benchmark costs: "" when it was not measured.
function cost(peer, name) {
	if (!count[peer " " name])
		return ""
	return peer ~ /^native/ ? best(peer " " name) : median(peer " " name)
}
# What a peer's column is over: the host, with the same program.
function reference(peer) { return peer ~ /32$/ && peer != "native32" ? "native32" : "native" }
function ratio(a, b) { return a == "" || b == "" || b <= 0 ? "" : a / b }
# Geometric mean of a peer's costs over another's, where both are, of one kind or (kind "") of all.
function mean(a, b, kind,   i, r, n, sum) {
	for (i = 1; i <= names; i++) {
		r = name[i] == "cpuid" || (kind != "" && kinds[name[i]] != kind) ? "" : ratio(cost(a, name[i]), cost(b, name[i]))
		if (r != "" && r > 0) {
			sum += log(r)
			n++
		}
	}
	return n ? exp(sum / n) : ""
}
function mean_real(a, b,   k, r, measured, sum) {
	for (k = 1; k <= reals; k++)
		if ((r = ratio(cost(a, real[k]), cost(b, real[k]))) != "" && r > 0) {
			sum += log(r)
			measured++
		}
	return measured ? exp(sum / measured) : ""
}
function show(value) { return value == "" ? "-" : sprintf("%.2f", value) }
function verdict(value, limit, at_least) {
	if (value == "")
		return ""
	return sprintf("%s %.2f  %s", at_least ? ">=" : "<=", limit, (at_least ? value >= limit : value <= limit) ? "ok" : "short")
}
# One of the summary's lines: a figure of doppel's, others beside it.
function line(what, value, limit, at_least, beside) {
	printf "%-48s %8s  %-18s%s\n", what, show(value), verdict(value, limit, at_least), beside
}
function beside(peer, value) { return value == "" ? "" : sprintf("  %s %s", peer, show(value)) }

FILENAME == "-" {
	name[++names] = $1
	kinds[$1] = $2
	next
}
FNR == 1 {
	peer = FILENAME
	sub(/.*\//, "", peer)
	sub(/\..*/, "", peer)
	ups = 0
}
$1 == "up" && !ups++ { note(peer " up", $2); note(peer " up cpu", $3) }	# of the run with one CPU
$1 == "memory" && ups == 1 { note(peer " memory " $2, $3) }
$1 ~ /^real_/ && !($1 in real_seen) {
	real_seen[$1] = 1
	real[++reals] = $1
}
$1 ~ /^real_/ { note(peer " " $1, $4); next }	# nanoseconds of the monitor's CPU time
$1 ~ /^parallel/ { note(peer " " $1, $3); note(peer " " $1 " cpu", $4); next }	# nanoseconds of the host's clock
NF == 4 && $1 in kinds { note(peer " " $1, peer ~ /^native/ ? $2 : $4) }

END {
	n = split(peers, p, " ")
	printf "%-12s%14s", "", "native ns"
	for (i = 1; i <= n; i++)
		if (p[i] != "native")
			printf "%10s", p[i]
	print "  doppel/qemu"
	for (k = 1; k <= names; k++) {
		native = cost("native", name[k])
		printf "%-12s%14s", name[k], show(native)
		for (i = 1; i <= n; i++)
			if (p[i] != "native")
				printf "%10s", show(ratio(cost(p[i], name[k]), cost(reference(p[i]), name[k])))
		r = ratio(cost("doppel", name[k]), cost("qemu", name[k]))
		limit = name[k] == "divide" || name[k] == "locked" ? 1.1 : 1
		printf "%13s  %s\n", show(r), name[k] == "cpuid" ? "" : verdict(r, limit)
		if (name[k] != "cpuid" && r != "" && r > limit)
			slower = slower " " name[k]
	}
	printf "%-12s%14s", "mean", "geometric"
	for (i = 1; i <= n; i++)
		if (p[i] != "native")
			printf "%10s", show(mean(p[i], reference(p[i]), ""))
	print ""
	for (k = 1; k <= reals; k++) {
		printf "%-12s%14s", real[k], "ns:"
		for (i = 1; i <= n; i++)
			if (p[i] != "native")
				printf "%10s", show(cost(p[i], real[k]))
		printf "%13s\n", show(ratio(cost("doppel", real[k]), cost("qemu", real[k])))
	}
	print ""
	line("real-mode loops, geometric mean: doppel / qemu", mean_real("doppel", "qemu"), 0.4)
	line("all, geometric mean: doppel / qemu", mean("doppel", "qemu", ""), 0.3)
	line("computing: doppel / native", mean("doppel", "native", "COMPUTE"), 2, 0, beside("qemu", mean("qemu", "native", "COMPUTE")))
	line("what a system is asked for: doppel / qemu", mean("doppel", "qemu", "SYSTEM"), 0.7)
	for (i = 1; i <= n; i++)
		up = up (p[i] == "native" ? "" : beside(p[i], cost(p[i], "up")))
	if (cost("doppel32", "up") != "") {
		line("32-bit guest, all: doppel / doppel's 64-bit", mean("doppel32", "doppel", ""), 1.3)
		line("32-bit guest, all: doppel / qemu", mean("doppel32", "qemu32", ""), 0.25)
	}
	line("start to userspace: doppel / qemu", ratio(cost("doppel", "up"), cost("qemu", "up")), 0.9, 0, "  seconds:" up)
	up = ""
	for (i = 1; i <= n; i++)
		up = up (p[i] == "native" ? "" : beside(p[i], cost(p[i], "up cpu")))
	line("  the same in CPU time", ratio(cost("doppel", "up cpu"), cost("qemu", "up cpu")), 0.9, 0, "  seconds:" up)
	line("two CPUs / one, parallel work", ratio(cost("doppel", "parallel1"), cost("doppel", "parallel2")), 1.75, 1, \
		beside("native", ratio(cost("native", "parallel1"), cost("native", "parallel2"))) \
		beside("qemu", ratio(cost("qemu", "parallel1"), cost("qemu", "parallel2"))))
	for (i = 1; i <= n; i++)
		twice[p[i]] = 2 * ratio(cost(p[i], "parallel1 cpu"), cost(p[i], "parallel2 cpu"))
	line("  the same in CPU time, as if nobody waited", twice["doppel"], 1.75, 1, \
		beside("native", twice["native"]) beside("qemu", twice["qemu"]))
	line("MiB beyond guest RAM after the start", cost("doppel", "memory up"), 64, 0, beside("qemu", cost("qemu", "memory up")))
	line("MiB beyond guest RAM after the benchmarks", cost("doppel", "memory end"), 160, 0, beside("qemu", cost("qemu", "memory end")))
	if (slower != "")
		print "slower than qemu:" slower
}
