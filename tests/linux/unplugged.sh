#!/bin/bash
# Clients that are unplugged, and come back from another address: how a server finds out, and where a name leads then.
# Takes 20 seconds, which is what --keepalive 5 with its 3 probes is about.
#
#     tests/linux/unplugged.sh [PROGRAM]        target/release/holdline if none is given
#
# Two networks of clients, each a namespace behind its own cable, and a router between them and the server:
#
#     home    10.81.1.2 -- 10.81.1.1 \
#                                      router 10.81.0.1 -- 10.81.0.2 server
#     mobile  10.81.2.2 -- 10.81.2.1 /
set -euo pipefail

source "$(dirname "$0")/stage.sh"
enter curl nc nsenter

socket=$folder/control

# ask MORE OF CURL TARGET: the answer, and in $status its status.
ask() {
    status=$(curl -sS --max-time 30 --unix-socket "$socket" -o "$folder/body" -w '%{http_code}' "${@:1:$#-1}" \
        "http://holdline${!#}")
    body=$(< "$folder/body")
}

has_own_namespace() {
    [[ $(readlink "/proc/$1/ns/net") != "$(readlink /proc/$$/ns/net)" ]]
}

# network NAME NUMBER: a namespace behind a cable to the router.
network() {
    unshare --net sleep 1000 &
    started_now "$1"
    until_true "there is no namespace" has_own_namespace "${!1}"
    ip link add "to-$1" type veth peer name cable netns "${!1}"
    ip address add "10.81.$2.1/24" dev "to-$1"
    ip link set "to-$1" up
    inside "$1" ip address add "10.81.$2.2/24" dev cable
    inside "$1" ip link set cable up
    inside "$1" ip route add default via "10.81.$2.1"
}

# inside NETWORK COMMAND...
inside() {
    nsenter --net="/proc/${!1}/ns/net" "${@:2}"
}

# connect NETWORK NAME: nc there, which says its name. What comes is in NETWORK.NAME.
connect() {
    local before
    before=$(ids "$2" | wc -l)
    mkfifo "$folder/$1.$2.in"
    nsenter --net="/proc/${!1}/ns/net" nc 10.81.0.2 7000 < "$folder/$1.$2.in" > "$folder/$1.$2" &
    started_now client
    # It stays open, or nc would end.
    exec {input}> "$folder/$1.$2.in"
    echo "$2" >&"$input"
    until_true "$2 could not connect" eval "[[ \$(ids $2 | wc -l) -gt $before ]]"
}

# ids NAME: of the connections that have it.
ids() {
    ask "/flows?name=$1"
    sed -n 's/.*"id":"\([0-9a-f]*\)".*/\1/p' <<< "$body"
}

step "a server with --keepalive 5, a router, two networks of clients"
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link set lo up
ip link add router type veth peer name ours
ip address add 10.81.0.1/24 dev router
ip link set router up
ip link set ours up
: > "$folder/server"
network home 1
network mobile 2
"$program" serve --link raw:ours --address 10.81.0.2/24 --gateway 10.81.0.1 --listen 7000 --service names \
    --keepalive 5 --max-connections 1000 --control "$socket" 2> "$folder/server" &
started_now server
until_true "the server is not ready" grep -qx ready "$folder/server"

step "alice, bob and carol connect from home; then home is unplugged"
connect home alice
alice=$(ids alice)
connect home bob
bob=$(ids bob)
connect mobile carol
carol=$(ids carol)
# They were heard last before this, so none may be given up before 20 seconds have passed from here.
inside home ip link set cable down
unplugged=$SECONDS

step "bob comes back at once, from another address: a push by name reaches him there, though the server knows no better"
connect mobile bob
[[ $(ids bob | wc -l) == 2 ]] || fail "bob's old connection is known to be dead already"
ask -X POST -d 'hello bob' "/names/bob/push"
[[ $status == 202 ]] || fail "the push to bob is answered by $status $body"
until_true "bob did not get it at his new address" grep -qx 'hello bob' "$folder/mobile.bob"
[[ ! -s $folder/home.bob ]] || fail "bytes came through a cable that is out"

step "alice is silent: three probes, and after 20 seconds her connection is closed for that reason"
ask "/flows/$alice"
[[ $status == 200 && $body == *ESTABLISHED* ]] || fail "alice is gone already: $body"
while ask "/flows/$alice" && [[ $status == 200 ]]; do
    ((SECONDS - unplugged <= 25)) || fail "alice is not given up after 25 seconds"
    sleep 0.2
done
took=$((SECONDS - unplugged))
echo "   given up after $took seconds"
((took >= 19)) || fail "that is too early"
ask "/events?after=0&kinds=closed&limit=1"
echo "   $body"
[[ $body == *"\"id\":\"$alice\""* && $body == *'"reason":"keepalive-timed-out"'* ]] || fail "the reason is another"
ask /stats
[[ $body =~ \"KeepaliveProbe\":([0-9]+) ]] || fail "no probe is counted"
((BASH_REMATCH[1] >= 3)) || fail "only ${BASH_REMATCH[1]} probes were sent"

step "her name is free"
ask -X POST -d 'nobody' /names/alice/push
[[ $status == 404 ]] || fail "a push to alice is answered by $status $body"
ask -X POST -d 'nobody' "/flows/$alice/push"
[[ $status == 410 ]] || fail "a push to alice's old connection is answered by $status $body"

step "carol, who is as idle but answers the probes, is still there"
ask "/flows/$carol"
[[ $status == 200 && $body == *ESTABLISHED* ]] || fail "carol was given up as well: $body"

step "alice comes back from another address, and is reached there by her name"
connect mobile alice
ask -X POST -d 'hello alice' "/names/alice/push?wait=delivered&timeout=10"
[[ $status == 200 ]] || fail "the push to alice is answered by $status $body"
ask "/flows?name=alice"
[[ $body == *'"remote":"10.81.2.2:'* ]] || fail "alice is elsewhere: $body"
until_true "alice did not get it" grep -qx 'hello alice' "$folder/mobile.alice"

step "bob's old connection waits for the acknowledgment of what was pushed to it, up to --user-timeout"
ask "/flows/$bob"
[[ $status == 200 && $body == *'"unacked":9'* ]] || fail "it is otherwise: $body"

echo "all answers were right"
