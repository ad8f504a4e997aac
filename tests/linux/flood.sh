#!/bin/bash
# A flood of SYNs from forged addresses: what established connections keep of their rate, whether new clients get in,
# and what the server's memory does. Prints figures; wrong are only a lost byte, a client that does not get in, and
# memory that goes on growing.
#
#     tests/linux/flood.sh [PROGRAM] [MICROSECONDS]        between two SYNs; 0, the default, for as fast as hping3 can
#
# 100 connections echo at a steady pace, some 5,000 lines a second together, for 5 s without the flood and 10 s with it.
set -euo pipefail
source "$(dirname "$0")/stage.sh"
enter hping3 python3

pace=--flood
[[ ${2:-0} == 0 ]] || pace="-i u$2"

memory() {
    awk '/VmRSS/ { print $2 }' "/proc/$server/status"
}

ip link set lo up
ip link add clients type veth peer name ours
ip address add 10.82.0.1/24 dev clients
ip link set clients up
ip link set ours up
: > "$folder/server"
"$program" serve --link raw:ours --address 10.82.0.2/24 --listen 7000 --service echo 2> "$folder/server" &
started_now server
until_true "the server is not ready" grep -qx ready "$folder/server"

cat > "$folder/clients.py" <<'PYTHON'
import select, socket, sys, time

ADDRESS, COUNT, EACH_S = ("10.82.0.2", 7000), 100, 0.02
started = time.monotonic()
phase_ends = [started + 5, started + 15]
sockets = [socket.create_connection(ADDRESS, 10) for _ in range(COUNT)]
epoll = select.epoll()
by_number = {it.fileno(): at for at, it in enumerate(sockets)}
for it in sockets:
    it.setblocking(False)
    epoll.register(it, select.EPOLLIN)
line = b"x" * 64
missing, due = [0] * COUNT, [time.monotonic() + at * EACH_S / COUNT for at in range(COUNT)]
print("connected", flush=True)
for name, end in zip(("before", "meanwhile"), phase_ends):
    begun, echoes, waits, asked = time.monotonic(), 0, [], [0.0] * COUNT
    while (now := time.monotonic()) < end:
        for at in range(COUNT):
            if missing[at] == 0 and due[at] <= now:
                sockets[at].send(line)
                missing[at], asked[at], due[at] = len(line), now, due[at] + EACH_S
        for number, _ in epoll.poll(0.001):
            at = by_number[number]
            got = sockets[at].recv(4096)
            if not got:
                sys.exit("a connection was lost")
            missing[at] -= len(got)
            if missing[at] == 0:
                echoes += 1
                waits.append(time.monotonic() - asked[at])
    waits.sort()
    took = time.monotonic() - begun
    print(f"{name}: {echoes / took:.0f} echoes/s, median {waits[len(waits) // 2] * 1e6:.0f} us,"
          f" 99th percentile {waits[len(waits) * 99 // 100] * 1e6:.0f} us", flush=True)
PYTHON
python3 "$folder/clients.py" > "$folder/said" 2>&1 &
started_now clients
until_true "the clients do not connect" grep -q connected "$folder/said"
echo "memory before: $(memory) KiB"
until_true "there is no first figure" grep -q before "$folder/said"
hping3 -q -S -p 7000 $pace --rand-source 10.82.0.2 > "$folder/flood" 2>&1 &
started_now flood
sleep 4
first=$(memory)
begun=$(date +%s%N)
for at in 1 2 3 4 5 6 7 8 9 10; do
    said=$(timeout 5 python3 -c "
import socket
it = socket.create_connection(('10.82.0.2', 7000), 5)
it.sendall(b'in $at')
print(it.recv(100).decode())") || fail "new client $at does not get in"
    [[ $said == "in $at" ]] || fail "new client $at is answered by '$said'"
done
echo "ten new clients got in, one after the other, in $((($(date +%s%N) - begun) / 1000000)) ms"
until_true "there is no second figure" grep -q meanwhile "$folder/said"
last=$(memory)
kill -INT "$flood"
sleep 0.5
grep -v connected "$folder/said"
echo "memory meanwhile: $first KiB, then $last KiB"
sed -n 's/^\([0-9]*\) packets transmitted.*/flood: \1 SYNs/p' "$folder/flood"
((last < first + 4096)) || fail "the memory goes on growing"
echo "all answers were right"
