#!/bin/bash
# Paths that take less than their ends: through two routers with a link of 1,300 bytes between them, with the messages
# of the routers and without, over IPv4 and IPv6. Prints how long each megabyte takes there and back. Then large pings,
# which come and are answered in fragments, and forged messages, which change nothing.
#
#     tests/linux/path-mtu.sh [PROGRAM]        target/release/holdline if none is given
#
#     server 10.83.0.2 -- 10.83.0.1 near router -- 1,300 bytes -- far router 10.83.2.1 -- 10.83.2.2 client
#            fd83::2      fd83::1                                            fd83:2::1    fd83:2::2
set -euo pipefail

source "$(dirname "$0")/stage.sh"
enter curl nsenter ping python3 socat

socket=$folder/control

# rule NAME: how often it has decided.
rule() {
    curl -sS --max-time 10 --unix-socket "$socket" http://holdline/stats > "$folder/stats"
    local pattern="\"$1\":([0-9]+)"
    [[ $(< "$folder/stats") =~ $pattern ]] && echo "${BASH_REMATCH[1]}" || echo 0
}

has_own_namespace() {
    [[ $(readlink "/proc/$1/ns/net") != "$(readlink /proc/$$/ns/net)" ]]
}

# inside NETWORK COMMAND...
inside() {
    nsenter --net="/proc/${!1}/ns/net" "${@:2}"
}

# network NAME
network() {
    unshare --net sleep 1000 &
    started_now "$1"
    until_true "there is no namespace" has_own_namespace "${!1}"
    inside "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
}

# A process of the server's, which knows no path.
serve() {
    if [[ -n ${server:-} ]]; then
        kill -9 "$server"
        until_true "the server before has not ended" sh -c "! kill -0 $server 2> /dev/null"
    fi
    : > "$folder/server"
    "$program" serve --link raw:ours --address 10.83.0.2/24 --address fd83::2/64 --gateway 10.83.0.1 --gateway fd83::1 \
        --listen 7000 --service echo --control "$socket" 2> "$folder/server" &
    started_now server
    until_true "the server is not ready" grep -qx ready "$folder/server"
}

# there_and_back ADDRESS: a megabyte from the client, and how many milliseconds it takes.
there_and_back() {
    local begun
    begun=$(date +%s%N)
    inside client timeout 60 socat -t 60 - "TCP:$1:7000,sndbuf=2000000,rcvbuf=2000000" \
        < "$folder/sent" > "$folder/came" || fail "nothing gets through to $1"
    took=$((($(date +%s%N) - begun) / 1000000))
    cmp -s "$folder/sent" "$folder/came" || fail "$1 did not return what was sent"
    # The client's own path is found anew each time.
    inside client ip route flush cache 2> /dev/null || true
    inside client ip -6 route flush cache 2> /dev/null || true
}

step "a server, two routers with 1,300 bytes between them, a client"
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
ip link set lo up
network far
network client
ip link add router type veth peer name ours
ip address add 10.83.0.1/24 dev router
ip address add fd83::1/64 dev router nodad
ip link set router up
ip link set ours up
ip link add narrow mtu 1300 type veth peer name narrow mtu 1300 netns "$far"
ip address add 10.83.1.1/24 dev narrow
ip address add fd83:1::1/64 dev narrow nodad
ip link set narrow up
inside far ip address add 10.83.1.2/24 dev narrow
inside far ip address add fd83:1::2/64 dev narrow nodad
inside far ip link set narrow up
inside far ip link add wide type veth peer name cable netns "$client"
inside far ip address add 10.83.2.1/24 dev wide
inside far ip address add fd83:2::1/64 dev wide nodad
inside far ip link set wide up
inside client ip address add 10.83.2.2/24 dev cable
inside client ip address add fd83:2::2/64 dev cable nodad
inside client ip link set cable up
ip route add 10.83.2.0/24 via 10.83.1.2
ip -6 route add fd83:2::/64 via fd83:1::2
inside far ip route add 10.83.0.0/24 via 10.83.1.1
inside far ip -6 route add fd83::/64 via fd83:1::1
inside client ip route add default via 10.83.2.1
inside client ip -6 route add default via fd83:2::1
head -c 1000000 /dev/urandom > "$folder/sent"
serve

step "the routers tell: each way finds the size of its path"
for address in 10.83.0.2 "[fd83::2]"; do
    before=$(rule PathMtuLowered)
    there_and_back "$address"
    echo "   $address: a megabyte there and back in $took ms"
    (($(rule PathMtuLowered) == before + 1)) || fail "the path was not found once, but $(rule PathMtuLowered) times"
    # And now it is known.
    there_and_back "$address"
    echo "   $address: again in $took ms"
    (($(rule PathMtuLowered) == before + 1)) || fail "the path was found again, though it is known"
done
(($(rule BlackHoleSuspected) == 0 && $(rule RetransmissionTimeout) == 0)) || fail "there was a time-out"

step "the near router tells nobody any more: silence tells as much, in some seconds"
serve
ip rule add pref 10 iif lo ipproto icmp to 10.83.0.2 blackhole
ip -6 rule add pref 10 iif lo ipproto ipv6-icmp to fd83::2 blackhole
for address in 10.83.0.2 "[fd83::2]"; do
    before=$(rule BlackHoleSuspected)
    there_and_back "$address"
    echo "   $address: a megabyte there and back in $took ms"
    (($(rule BlackHoleSuspected) > before)) || fail "no black hole was suspected"
    there_and_back "$address"
    echo "   $address: again in $took ms"
    ((took < 3000)) || fail "a new connection did not know what got through"
done
(($(rule PathMtuLowered) == 0)) || fail "some message came through"
ip rule del pref 10
ip -6 rule del pref 10

step "pings of 3,000 bytes come and are answered in fragments"
for address in 10.83.0.2 fd83::2; do
    ping -q -c 3 -i 0.2 -W 5 -s 3000 "$address" > "$folder/ping" || fail "$(tail -2 "$folder/ping")"
    inside client ping -q -c 3 -i 0.2 -W 5 -s 3000 "$address" > "$folder/ping" || fail "$(tail -2 "$folder/ping")"
done
# The client's first over IPv6 may be lost to it: it is cut for the client's own link.
completed=$(rule FragmentCompletes)
((completed == 11 || completed == 12)) || fail "not twelve requests came in fragments, but $completed"

step "forged messages about a connection that exists change nothing"
serve
mkfifo "$folder/input"
socat - TCP:10.83.0.2:7000,sourceport=45000 < "$folder/input" > "$folder/echoed" &
started_now echoing
exec {input}> "$folder/input"
echo before >&"$input"
until_true "there is no echo" grep -qx before "$folder/echoed"
python3 - <<'PYTHON' || fail "messages could not be forged"
import random, socket, struct

def checksum(data):
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    words = (words & 0xffff) + (words >> 16)
    return ~((words & 0xffff) + (words >> 16)) & 0xffff

raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
ours, theirs = socket.inet_aton("10.83.0.2"), socket.inet_aton("10.83.0.1")
for _ in range(2000):
    quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1500, 0, 0x4000, 64, 6, 0, ours, theirs)
    quoted += struct.pack("!HHI", 7000, 45000, random.getrandbits(32))
    body = struct.pack("!HH", 0, random.choice([0, 68, 600, 1300])) + quoted
    raw.sendto(struct.pack("!BBH", 3, 4, checksum(b"\x03\x04\0\0" + body)) + body, ("10.83.0.2", 0))
PYTHON
until_true "the forged messages did not come" eval '(($(rule IcmpIgnored) >= 1900))'
(($(rule PathMtuLowered) == 0 && $(rule PathMtuDoubted) == 0)) || fail "a forged message was believed"
echo after >&"$input"
until_true "there is no echo any more" grep -qx after "$folder/echoed"

echo "all answers were right"
