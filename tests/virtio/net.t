#!/bin/sh
# virtio-net and the user network: an address by DHCP, data both ways, connections from the host, what restrict keeps out.
cd "$(dirname "$0")/../.." || exit 1
. tests/virtio/lib.sh

busybox=$guest/busybox/busybox
head -c 3000000 /dev/urandom >"$scratch/data"
sum=$(sha256sum <"$scratch/data" | cut -c 1-64)
mkdir "$scratch/www"
ln "$scratch/data" "$scratch/www/data"
servers=
trap 'kill $servers 2>/dev/null; rm -rf "$scratch"' EXIT

# A port that nobody has: the first of some that a server gets.
for try in $(seq 20); do
	port=$((20000 + ($$ * 7 + try * 1009) % 10000))
	"$busybox" httpd -p "127.0.0.1:$port" -f -h "$scratch/www" 2>/dev/null &
	servers=$!
	until "$busybox" nc 127.0.0.1 "$port" </dev/null >/dev/null 2>&1; do
		kill -0 "$servers" 2>/dev/null || continue 2
	done
	! kill -0 "$servers" 2>/dev/null || break
done
forward=$((port + 10000))
upload=$((port + 10002))

up="modprobe virtio_net
ip link set lo up
ip link set eth0 up
printf '#!/bin/sh\nif [ \$1 = bound ]; then ip addr add \$ip/24 dev eth0; for r in \$router; do ip route add default via \$r; done; echo \$dns >/tmp/dns; fi\n' >/tmp/dhcp
chmod 755 /tmp/dhcp
udhcpc -i eth0 -s /tmp/dhcp -n -q -f 2>/dev/null
ping -c 1 10.0.2.2 >/dev/null
get() { wget -q -O - http://10.0.2.2:$port/data | sha256sum | cut -c 1-64; }"

script="$up
[ \$(cat /tmp/dns) = 10.0.2.3 ]
[ \$(get) = $sum ]
[ \$(get) = $sum ]
httpd -p 80 -h /
nc 10.0.2.2 $upload </data
nc -l -p 99 </dev/null >/dev/null"

mkfifo "$scratch/nothing" # nc ends the connection at the end of its input: there is none

# The host's part of it: takes what the guest sends, reads it once more through a forwarded port, and says so at another one.
cat >"$scratch/client" <<END
"$busybox" nc -l -p $upload 0<>"$scratch/nothing" >"$scratch/up"
"$busybox" wget -q -O "$scratch/down" "http://127.0.0.1:$forward/data"
"$busybox" nc 127.0.0.1 $((forward + 1)) </dev/null
END

# exchange [doppel's options]
exchange() {
	rm -f "$scratch/up" "$scratch/down"
	timeout "$limit" sh "$scratch/client" &
	client=$!
	well --net "user,forward=tcp:127.0.0.1:$forward-80,forward=tcp:127.0.0.1:$((forward + 1))-99" "$@"
	status=$?
	kill $client 2>/dev/null
	wait $client
	[ $status = 0 ] && cmp "$scratch/up" "$scratch/data" && cmp "$scratch/down" "$scratch/data"
}

guest_with "$scratch/data"
check "data both ways, engine bt" exchange --engine bt
check "data both ways, engine bt, 4 CPUs" exchange --engine bt --cpus 4
long check "data both ways, engine interp" exchange --engine interp
modprobe=force_legacy=1
append="$append pci=nomsi"
guest_with "$scratch/data"
check "data both ways, legacy, INTx" exchange --engine bt
modprobe=
append=doppel_run=/run

script="$up
if timeout 10 wget -q -O /dev/null http://10.0.2.2:$port/data; then exit 1; fi"
guest_with -
check "restrict: the host is not to be reached" well --net user,restrict
finish
