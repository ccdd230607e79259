#!/bin/bash
# The programs of `make bench-programs`. Runs in their root: natively in a chroot, and in guests as init. Everything it writes is in /tmp, which is
# memory.
#
#   inside.sh prepare   writes /bench/data, once, when the root is made: what the programs read
#   inside.sh list      their names
#   inside.sh serve     reads lines "NAME" and "go", says "@begin" when NAME could start, and "@done STATUS SUM" behind it; "off" ends it
#
# A program is a function run_NAME: it prints its result, which must be the same everywhere. What comes before its first run and is not
# to be measured is setup_NAME.
set -euo pipefail
export LC_ALL=C HOME=/tmp PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin GIT_CONFIG_NOSYSTEM=1 TZ=UTC
data=/bench/data

# ---- compilers: doppel's own sources, and a C++ library of templates ----

cc_files="cpu/far.c cpu/paging.c mem/mem.c bus/pci.c state/state.c"
compile() { # COMPILER OPTION...
	local file
	for file in $cc_files; do
		"$@" -std=gnu17 -I$data/src -c -o "/tmp/$(basename "$file" .c).o" "$data/src/$file"
	done
	nm -g --defined-only /tmp/*.o | awk 'NF == 3 { print $2, $3 }' | sort
	rm /tmp/*.o
}
run_gcc() { compile gcc -O2; }
run_gcc_debug() { compile gcc -O0 -g; }
run_clang() { compile clang-14 -O2; }
run_cxx() {
	g++ -O1 -o /tmp/json $data/json.cc
	/tmp/json <$data/data.json
	rm /tmp/json
}
run_link() {
	for _ in 1 2 3 4; do gcc -o /tmp/linked $data/objects/*.o -lZydis -lZycore -lz -lpthread -Wl,--unresolved-symbols=ignore-all; done
	nm /tmp/linked | awk 'NF == 3 { print $3 }' | sort | cksum
	rm /tmp/linked
}
run_make() {
	rm -rf /tmp/tree
	mkdir /tmp/tree
	make -s -j2 -C /tmp/tree -f $data/tree.mk SRC=$data/src
	ls /tmp/tree
	rm -rf /tmp/tree
}

# ---- interpreters ----

run_python_start() { for _ in 1 2 3 4 5 6 7 8 9 10; do python3 -c 'import json, re, argparse, subprocess; print(json.dumps([1, 2]))'; done; }
run_python_json() { python3 -c '
import json
text = open("/bench/data/data.json").read()
for n in range(12):
    value = json.loads(text)
    text = json.dumps(value, sort_keys=True)
print(len(text), value[7])'; }
run_python_regex() { python3 -c '
import re
text = open("/bench/data/words").read()
print(sum(len(re.findall(p, text)) for p in (r"\b\w+ing\b", r"(a|e)[^aeiou]\1", r"^[a-m].*s$", r"(\w)\1\w*(\w)\2", r"[0-9]+-x")))'; }
run_python_classes() { python3 -c '
class Account:
    def __init__(self, n): self.n, self.sum = n, 0
    def add(self, x): self.sum += x; return self
class Saving(Account):
    def add(self, x): return super().add(x + self.n % 3)
accounts = [Saving(n) if n % 2 else Account(n) for n in range(2000)]
for turn in range(150):
    for a in accounts: a.add(turn)
print(sum(a.sum for a in accounts), len({a.sum for a in accounts}))'; }
run_numpy() { python3 -c '
import numpy as np
r = np.random.RandomState(7)
a = r.rand(400, 400)
for n in range(6): a = a @ a; a /= a.max()
s = np.sort(r.rand(1000000))
f = np.abs(np.fft.fft(r.rand(1 << 18))).sum()
print(round(float(a.sum()), 3), round(float(s[12345]), 9), round(float(f), 2))'; }
run_node_start() { for _ in 1 2 3 4 5; do node -e 'console.log([3, 1, 2].sort().join())'; done; }
run_node() { node -e '
const words = require("fs").readFileSync("/bench/data/words", "utf8").split("\n");
const count = new Map();
for (let turn = 0; turn < 6; turn++)
	for (const w of words) { const k = w.replace(/[aeiou]/g, "_").slice(0, 5); count.set(k, (count.get(k) || 0) + w.length); }
class Tree { constructor(d) { this.l = d ? new Tree(d - 1) : null; this.r = d ? new Tree(d - 1) : null; } sum() { return 1 + (this.l ? this.l.sum() + this.r.sum() : 0); } }
let sum = 0; for (let n = 0; n < 8; n++) sum += new Tree(15).sum();
console.log(count.size, [...count.values()].sort((a, b) => b - a).slice(0, 5).join(), sum);'; }
run_perl() { perl -e '
open my $f, "<", "/bench/data/words" or die; my (%h, $n);
while (<$f>) { chomp; my $k = join "", sort split //, lc; push @{$h{$k}}, $_; $n += tr/a-e//; s/(\w)(\w)/$2$1/g; $n += length }
print scalar(keys %h), " $n ", scalar(grep { @$_ > 1 } values %h), "\n"'; }
run_ruby() { ruby -e '
def fib(n) n < 2 ? n : fib(n - 1) + fib(n - 2) end
words = File.readlines("/bench/data/words", chomp: true)
puts fib(23), words.group_by { |w| w.size }.map { |k, v| [k, v.size] }.sort.inspect, words.map(&:reverse).sort.first(3).inspect, words.sum { |w| w.count("aeiou") }'; }
run_lua() { lua5.4 -e '
local function sieve(n) local c, t = 0, {} for i = 2, n do if not t[i] then c = c + 1 for k = i * i, n, i do t[k] = true end end end return c end
local s = 0 for i = 1, 3 do s = s + sieve(200000) end
local parts = {} for i = 1, 60000 do parts[#parts + 1] = string.format("%d:%x", i, i * 7919) end
local text = table.concat(parts, " ") local n = 0 for a, b in text:gmatch("(%d+):(%x+)") do n = n + #a + #b end
print(s, n)'; }
run_java_start() { for _ in 1 2; do java -Xshare:auto -XX:+UseSerialGC -cp $data Words </dev/null; done; }
run_java() { java -XX:+UseSerialGC -cp $data Words $data/words; }
run_bash() {
	local n sum=0 text=
	for ((n = 0; n < 40000; n++)); do
		((sum += n * n % 7)) || true
		case $n in *77*) text+=x ;; *5) text=${text#x} ;; esac
	done
	echo "$sum ${#text}"
}

# ---- git, databases, servers ----

setup_git_log() { git config --global --add safe.directory '*'; }
setup_git_clone() { setup_git_log; }
run_git_log() { git -C $data/repository log --stat --format='%h %s' | cksum; git -C $data/repository diff HEAD~60 HEAD | cksum; }
run_git_clone() {
	git clone -q --no-hardlinks $data/repository /tmp/clone
	git -C /tmp/clone status --short | wc -l
	git -C /tmp/clone rev-parse HEAD
	git -C /tmp/clone blame file7 | wc -l
	rm -rf /tmp/clone
}
run_sqlite() { sqlite3 :memory: "
create table t (a integer primary key, b text, c integer);
with recursive n(x) as (select 1 union all select x + 1 from n where x < 60000) insert into t select x, 'row ' || (x * 7919 % 60000), x % 97 from n;
create index i on t (b);
select count(*), sum(length(b)) from t; select c, count(*), max(b) from t group by c order by 2 desc, 1 limit 3;
select count(*) from t x join t y on x.b = y.b and x.a < 20000; update t set c = c + 1 where b like '%77%'; select sum(c) from t;"; }
run_redis() {
	redis-server --port 0 --unixsocket /tmp/redis --save '' --daemonize no --logfile /dev/null --dir /tmp &
	local server=$!
	until redis-cli -s /tmp/redis ping >/dev/null 2>&1; do sleep 0.02; done
	awk 'BEGIN { for (n = 0; n < 30000; n++) printf "SET key:%d %d\nINCRBY key:%d 3\nLPUSH list %d\n", n % 5000, n, n % 5000, n }' | redis-cli -s /tmp/redis | cksum
	redis-cli -s /tmp/redis eval 'local s = 0 for i = 0, 4999 do s = s + redis.call("GET", "key:" .. i) end return s' 0
	redis-cli -s /tmp/redis shutdown nosave || true
	wait $server || true
}
run_web() {
	ip link set lo up 2>/dev/null || true
	nginx -e /dev/null -c $data/nginx.conf &
	local server=$!
	until ab -q -n 1 http://127.0.0.1:8080/words >/dev/null 2>&1; do sleep 0.02; done
	ab -q -n 1500 -c 4 http://127.0.0.1:8080/words | awk '/^Complete|^Failed|^HTML/'
	kill $server
	wait $server || true
}

# ---- compression, archives, text, processes ----

run_xz() { head -c 2500000 $data/text | xz -6 -T1 | xz -d | cksum; }
run_zstd() { zstd -q -12 -c -T1 $data/text 2>/dev/null | zstd -dc | cksum; }
run_gzip() { gzip -9c $data/text | gzip -dc | cksum; }
run_tar() {
	mkdir /tmp/files
	for _ in 1 2; do tar -C /tmp/files -xf $data/files.tar; tar -C /tmp/files --sort=name -c . | cksum; rm -rf /tmp/files/*; done
	rm -rf /tmp/files
}
run_find_grep() { find /usr/share /usr/lib -xdev -name '*.p[ly]' | wc -l; grep -rlw import /usr/lib/python3* --include='*.py' | wc -l; find $data -type f -exec cksum {} + | sort | cksum; }
run_dpkg() {
	for _ in 1 2; do dpkg-deb -x $data/package.deb /tmp/unpacked; done
	find /tmp/unpacked -type f | wc -l
	rm -rf /tmp/unpacked
}
run_openssl() { openssl dgst -sha256 $data/text; openssl dgst -sha512 $data/text; openssl enc -aes-256-cbc -K 00 -iv 00 -in $data/text 2>/dev/null | cksum; openssl prime -generate -bits 32 -hex >/dev/null; }
run_openssl_starts() { for _ in {1..40}; do openssl x509 -noout -subject -in $data/certificate; done | sort | uniq -c; }
run_true() { local n; for ((n = 0; n < 400; n++)); do /bin/true; done; echo $n; }
run_pipes() { local n; for ((n = 0; n < 40; n++)); do seq 2000 | sed 's/7/x/g' | grep -c x | tr 0-9 a-j | cat; done | sort | uniq -c; }
run_sort() { sort $data/numbers | cksum; sort -n $data/numbers | uniq | wc -l; }
run_awk() { gawk '{ n[$1 % 1000] += $1; s = s substr($1, 2, 1) } END { for (k in n) t += n[k] * k; print t, length(s) }' $data/numbers; }
run_image() { convert -size 700x500 plasma:red-blue -seed 1 -virtual-pixel tile -blur 0x6 -resize 50% -rotate 30 -colorspace Gray -depth 8 /tmp/image.png; identify -format '%w %h %m\n' /tmp/image.png; rm /tmp/image.png; }

# ---- the frame ----

names() { declare -F | sed -n 's/^declare -f run_//p'; }

prepare() {
	mkdir -p $data/objects
	cd $data
	python3 - <<-'PYTHON'
		import json, random
		r = random.Random(1)
		syllables = [a + b for a in "b c d f g l m n p r s t v st br ing er".split() for b in "a e i o u an en ing s".split()]
		words = ["".join(r.choice(syllables) for _ in range(r.randint(1, 4))) for _ in range(60000)]
		open("words", "w").write("\n".join(words) + "\n")
		open("text", "w").write(" ".join(r.choice(words) if r.random() < .7 else str(r.randrange(10 ** 6)) for _ in range(900000)))
		open("numbers", "w").write("".join("%d\n" % r.randrange(10 ** 9) for _ in range(250000)))
		json.dump([{"id": n, "name": r.choice(words), "tags": r.sample(words, 4), "x": r.random()} for n in range(3000)], open("data.json", "w"))
	PYTHON
	cat >json.cc <<-'CXX'
		#include <algorithm>
		#include <iostream>
		#include <map>
		#include <nlohmann/json.hpp>
		#include <regex>
		int main()
		{
			nlohmann::json all;
			std::cin >> all;
			std::map<std::string, double> sums;
			std::regex vowels("[aeiou]+");
			for (auto &x : all)
				for (auto &tag : x["tags"])
					sums[std::regex_replace(tag.get<std::string>(), vowels, "_")] += x["x"].get<double>();
			std::vector<std::pair<std::string, double>> v(sums.begin(), sums.end());
			std::sort(v.begin(), v.end(), [](auto &a, auto &b) { return a.second > b.second; });
			std::cout << v.size() << ' ' << v[0].first << ' ' << v[1].first << '\n';
		}
	CXX
	cat >Words.java <<-'JAVA'
		import java.nio.file.*;
		import java.util.*;
		import java.util.stream.*;
		public class Words {
			public static void main(String[] a) throws Exception {
				if (a.length == 0) { System.out.println("started"); return; }
				List<String> words = Files.readAllLines(Path.of(a[0]));
				Map<Integer, Long> sizes = new TreeMap<>();
				long sum = 0;
				for (int turn = 0; turn < 8; turn++)
					for (String w : words) { sizes.merge(w.length(), 1L, Long::sum); sum += w.replaceAll("[aeiou]", "").hashCode() & 0xff; }
				System.out.println(sizes + " " + sum + " " + words.stream().sorted(Comparator.reverseOrder()).limit(2).collect(Collectors.toList()));
			}
		}
	JAVA
	javac Words.java
	cat >tree.mk <<-'MAKE'
		FILES := $(wildcard $(SRC)/base/*.c $(SRC)/state/*.c)
		all: $(patsubst %.c,%.o,$(notdir $(FILES)))
		vpath %.c $(SRC)/base $(SRC)/state
		%.o: %.c; gcc -std=gnu17 -O1 -I$(SRC) -c -o $@ $<
	MAKE
	for file in src/*/*.c; do gcc -std=gnu17 -O1 -g -Isrc -c -o "objects/$(echo "$file" | tr / _).o" "$file" 2>/dev/null || true; done
	cat >nginx.conf <<-'NGINX'
		daemon off;
		pid /tmp/nginx.pid;
		events { }
		http { access_log off; client_body_temp_path /tmp/nginx; server { listen 127.0.0.1:8080; root /bench/data; } }
	NGINX
	openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -out certificate -days 3650 -subj /CN=doppel 2>/dev/null
	mkdir files
	for n in {1..2500}; do head -c $((n % 7 * 500 + 40)) words >"files/$n"; done
	tar -cf files.tar --sort=name -C files .
	rm -r files
	git init -q repository
	cd repository
	git config user.name x
	git config user.email x@x
	for n in {1..300}; do
		for k in 1 2 3; do sed -n "$((n * 37 + k)),+59p" ../words >>file$((n * k % 40)); done
		git add .
		git commit -q -m "commit $n" --date '2020-01-01T00:00:00Z'
	done
	git repack -q -a -d
}

# The result of a run, of which only the sum is told.
run_one() {
	local status
	# Behind a || or an if nothing that fails would end it.
	set +e
	(set -e; "run_$1") </dev/null >/tmp/.result 2>/tmp/.errors
	status=$?
	set -e
	[ $status = 0 ] || head -c 300 /tmp/.errors >&2
	echo "@done $status $(cksum </tmp/.result | tr ' ' -)"
}

serve() {
	local name go was=
	cd /tmp
	echo @ready
	while read -r name; do
		[ "$name" != off ] || break
		[ "$was" = "$name" ] || ! declare -F "setup_$name" >/dev/null || "setup_$name"
		was=$name
		echo @begin
		read -r go
		[ "$go" = go ]
		run_one "$name"
	done
}

# As a guest's init.
boot() {
	# The initial RAM disk has left /dev, /proc and /sys mounted.
	mount -t tmpfs -o size=600m,mode=1777 tmp /tmp
	stty -echo -onlcr
	serve
	echo o >/proc/sysrq-trigger
	sleep 100
}

case ${1:-boot} in
prepare) prepare ;;
list) names ;;
serve) serve ;;
boot) boot ;;
esac
