#!/bin/bash
# How fast is one connection over a clean link, beside the kernel's own?
#
#     cargo build --release && bench/one-flow.sh [PROGRAM]        as root, or as a user who may make namespaces
#
# One Linux client sends to a server that drops what it reads (up), or that echoes it (echo; each byte goes both ways
# and is counted once), for 3 seconds each, five times in turn: to holdline on a veth pair, to a kernel socket on a veth
# pair, and to holdline on a TAP device, behind which no kernel server can be. Medians in Mbit/s, and the seconds of
# processor time that the server's process took for each second; of the kernel's server that is only its system calls.
set -euo pipefail
source "$(dirname "$0")/../tests/linux/stage.sh"
enter python3

rounds=5 seconds=3

cat > "$folder/client.py" <<'PYTHON'
import socket, sys, threading, time

host, port, has_echo, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "echo", float(sys.argv[4])
peer = socket.create_connection((host, port), 10)
piece = b"x" * (1 << 18)
got = 0

def read():
    global got
    while data := peer.recv(1 << 18):
        got += len(data)

reader = threading.Thread(target=read, daemon=True)
reader.start()
begun, sent = time.monotonic(), 0
while time.monotonic() - begun < seconds:
    sent += peer.send(piece)
passed = time.monotonic() - begun
count = got if has_echo else sent
print(count * 8 / passed / 1e6)
PYTHON

cat > "$folder/server.py" <<'PYTHON'
import socket, sys, threading

def serve(peer, has_echo):
    try:
        while data := peer.recv(1 << 18):
            if has_echo:
                peer.sendall(data)
    except OSError:
        pass

def listen(port, has_echo):
    listener = socket.create_server(("10.84.0.2", port))
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], has_echo), daemon=True).start()

threading.Thread(target=listen, args=(7001, True), daemon=True).start()
listen(7000, False)
PYTHON

processor_ticks() {
    awk '{ print $14 + $15 }' "/proc/$1/stat"
}

median() {
    sort -g | awk '{ figures[NR] = $1 } END { print figures[int((NR + 1) / 2)] }'
}

# serve_on LINK NETWORK SERVICE NAME: starts holdline there, and keeps the number of its process under the name.
serve_on() {
    : > "$folder/server"
    "$program" serve --link "$1" --address "$2.2/24" --listen 7000 --service "$3" 2> "$folder/server" &
    started_now "$4"
    until_true "the server is not ready" grep -qx ready "$folder/server"
}

# measure NAME HOST PORT WAY PROCESS: one transfer; what it came to is added to the figures of the name.
measure() {
    local before
    before=$(processor_ticks "$5")
    python3 "$folder/client.py" "$2" "$3" "$4" "$seconds" >> "$folder/$1"
    echo "$(processor_ticks "$5") $before $(getconf CLK_TCK) $seconds" |
        awk '{ print ($1 - $2) / $3 / $4 }' >> "$folder/$1-processor"
}

ip link set lo up
ip link add clients type veth peer name ours
ip address add 10.83.0.1/24 dev clients
ip link set clients up
ip link set ours up

# The kernel's server has a namespace of its own, kept by the process that waits in it.
unshare --net sleep 600 &
started_now keeper
ip link add kernel type veth peer name far
until_true "there is no second namespace" ip link set far netns "$keeper"
ip address add 10.84.0.1/24 dev kernel
ip link set kernel up
inside=(nsenter --net="/proc/$keeper/ns/net")
"${inside[@]}" sh -c 'ip link set lo up; ip address add 10.84.0.2/24 dev far; ip link set far up'
"${inside[@]}" python3 "$folder/server.py" &
started_now linux

printf '%-5s %-15s %10s %10s\n' way server Mbit/s processor
for way in up echo; do
    service=hold linux_port=7000
    [[ $way == up ]] || service=echo linux_port=7001
    serve_on raw:ours 10.83.0 "$service" over_veth
    serve_on tap:tap0 10.85.0 "$service" over_tap
    ip address replace 10.85.0.1/24 dev tap0
    ip link set tap0 up
    for ((round = 0; round < rounds; round++)); do
        measure "$way-veth" 10.83.0.2 7000 "$way" "$over_veth"
        measure "$way-linux" 10.84.0.2 "$linux_port" "$way" "$linux"
        measure "$way-tap" 10.85.0.2 7000 "$way" "$over_tap"
    done
    for server in veth tap linux; do
        name="holdline, $server"
        [[ $server != linux ]] || name="Linux, veth"
        figures=$(median < "$folder/$way-$server")
        printf '%-5s %-15s %10.0f %10.2f\n' "$way" "$name" "$figures" "$(median < "$folder/$way-$server-processor")"
    done
    kill -9 "$over_veth" "$over_tap"
    until_true "the TAP device is still there" sh -c '! ip link show tap0 > /dev/null 2>&1'
done
