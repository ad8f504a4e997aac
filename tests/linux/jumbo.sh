#!/bin/bash
# Jumbo frames: a link of 9,000 bytes, as a raw socket on a veth and as a TAP, over IPv4 and IPv6. Every byte comes
# back, and in packets as large as the link takes.
#
#     tests/linux/jumbo.sh [PROGRAM]        target/release/holdline if none is given
set -euo pipefail

source "$(dirname "$0")/stage.sh"
enter ping socat

# received WHAT: packets or bytes that the kernel's side has received from the server.
received() {
    local column=2
    [[ $1 == bytes ]] || column=3
    awk -v device="$device:" -v column="$column" '$1 == device { print $column }' /proc/net/dev
}

# try LINK: a server on it, whose other end is $device.
try() {
    local address packets bytes average server
    ip address add 10.84.0.1/24 dev "$device"
    ip address add fd84::1/64 dev "$device" nodad
    ip link set "$device" up
    : > "$folder/server"
    "$program" serve --link "$1" --address 10.84.0.2/24 --address fd84::2/64 --listen 7000 --service echo \
        2> "$folder/server" &
    started_now server
    until_true "the server is not ready" grep -qx ready "$folder/server"
    for address in 10.84.0.2 "[fd84::2]"; do
        packets=$(received packets) bytes=$(received bytes)
        timeout 60 socat -t 60 - "TCP:$address:7000" < "$folder/sent" > "$folder/came" || fail "no echo from $address"
        cmp -s "$folder/sent" "$folder/came" || fail "$address did not return what was sent"
        # ACKs alone count, too.
        average=$((($(received bytes) - bytes) / ($(received packets) - packets)))
        echo "   $1, $address: 10 MB there and back, $average bytes a packet from the server"
        ((average > 3000)) || fail "the server does not fill the link's packets"
        ping -q -c 2 -i 0.2 -W 5 -s 8900 "${address//[\[\]]/}" > "$folder/ping" || fail "$(tail -2 "$folder/ping")"
    done
    kill -9 "$server"
}

head -c 10000000 /dev/urandom > "$folder/sent"
ip link set lo up

step "a raw socket on a veth of 9,000 bytes"
device=client
ip link add client mtu 9000 type veth peer name ours mtu 9000
ip link set ours up
try raw:ours
ip link delete client

if [[ -w /dev/net/tun ]]; then
    step "a TAP of 9,000 bytes"
    device=hold0
    ip tuntap add dev hold0 mode tap
    ip link set hold0 mtu 9000
    try tap:hold0
else
    step "no TAP: /dev/net/tun is closed to this user"
fi

echo "all answers were right"
