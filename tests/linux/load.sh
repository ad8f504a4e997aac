#!/bin/bash
# Synthetic clients over veth pairs: thousands of them at a server of ours, 1,000 over IPv6, and 200 at Linux. Every
# message comes back, and what is missing at a server that is killed is accounted for.
#
#     tests/linux/load.sh [PROGRAM] [THOUSANDS]        20 of them by default
set -euo pipefail
source "$(dirname "$0")/stage.sh"
enter python3

thousands=${2:-20}

# load LINK ADDRESS TO FLAG...: the account is in $folder/load.
load() {
    "$program" load --link "$1" --address "$2" --to "$3" "${@:4}" > "$folder/load"
}

# tells TEXT: the account has a line with this.
tells() {
    grep -qF -- "$1" "$folder/load" || fail "no \"$1\" in the account: $(cat "$folder/load")"
}

ip link set lo up
ip link add clients type veth peer name ours
ip link set clients up
ip link set ours up
: > "$folder/server"
"$program" serve --link raw:ours --address 10.86.0.1/16 --address fd86::1/64 --listen 7000 --service echo \
    2> "$folder/server" &
started_now server
until_true "the server is not ready" grep -qx ready "$folder/server"

step "$thousands,000 clients over IPv4"
load raw:clients 10.86.1.1/16 10.86.0.1:7000 --clients "${thousands}000" --rate "$((thousands * 500))" \
    --echo 64 --every 4 --seconds 4 || fail "$(cat "$folder/load")"
tells "$thousands,000 of $thousands,000"
tells "$thousands,000, 0 without an answer"

step "1,000 over IPv6, on four addresses"
load raw:clients fd86::2/64 "[fd86::1]:7000" --addresses-each 4 --clients 1000 --rate 2000 --echo 700 --every 1 \
    --seconds 2 || fail "$(cat "$folder/load")"
tells "1,000 of 1,000"
tells " 0 wrong"

step "a port that nobody listens on"
if load raw:clients 10.86.1.1/16 10.86.0.1:7001 --clients 100 --seconds 0; then
    fail "nothing is wrong with connections that were refused"
fi
tells "100 refused"

step "a server that is killed"
load raw:clients 10.86.1.1/16 10.86.0.1:7000 --clients 1000 --rate 10000 --echo 64 --every 1 --seconds 4 &
started_now clients
sleep 2
kill -9 "$server"
until_true "the account does not come" sh -c "! kill -0 $clients 2> /dev/null"
tells "1,000 of 1,000"
tells "1,000 without an answer"

step "200 clients at Linux"
cat > "$folder/echo.py" <<'PYTHON'
import socket, selectors

listener = socket.create_server(("10.87.0.1", 7000), backlog=1000)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        data = key.fileobj.recv(65536)
        if data:
            key.fileobj.sendall(data)
        else:
            selector.unregister(key.fileobj)
            key.fileobj.close()
PYTHON
ip link add linux type veth peer name wire
ip address add 10.87.0.1/24 dev linux
ip link set linux up
ip link set wire up
python3 "$folder/echo.py" &
started_now linux
until_true "Linux does not listen" sh -c "ss -ltn | grep -q 10.87.0.1:7000"
load raw:wire 10.87.0.2/24 10.87.0.1:7000 --clients 200 --rate 1000 --echo 2000 --every 1 --seconds 2 ||
    fail "$(cat "$folder/load")"
tells "200 of 200"
tells "200, 0 without an answer"

echo "all answers were right"
