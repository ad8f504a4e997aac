#!/bin/bash
# A server driven by curl alone, with nc as its clients: every step is printed, and the first wrong answer ends it.
#
#     tests/linux/control.sh [PROGRAM [WORKERS]]        target/release/holdline and 1 if none is given
#
# It makes a network namespace of its own with a veth pair in it: the kernel, and with it nc, has one end, the server
# has a raw socket on the other. With several workers it is a TAP of as many queues, and a shard moves to and fro. Root
# needs nothing else; a plain user takes a user namespace along, if that is allowed.
set -euo pipefail

source "$(dirname "$0")/stage.sh"
enter curl nc ss

workers=${2:-1}

address=10.80.0.2
socket=$folder/control

# call METHOD TARGET [MORE OF CURL]: asks, shows the answer, and leaves it in $status and $body.
call() {
    local method=$1 target=$2
    shift 2
    status=$(curl -sS --max-time 60 --unix-socket "$socket" -X "$method" "$@" -o "$folder/body" -w '%{http_code}' \
        "http://holdline$target")
    body=$(head -c 2000 "$folder/body")
    echo "   $method $target -> $status ${body:0:300}"
}

# want STATUS [TEXT]: what the last answer must be.
want() {
    [[ $status == "$1" ]] || fail "the status is $status and not $1"
    [[ $body == *"${2:-}"* ]] || fail "there is no '$2' in the answer"
}

# field NAME: the value of a field of the last answer, or of its first line.
field() {
    sed -n "1s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" <<< "$body"
}

start_server() {
    : > "$folder/server"
    "$program" serve --link "$link" --workers "$workers" \
        --address $address/24 --listen 7000 --service names --push-queue 64K \
        --max-connections 1000 --state "$folder/state" --control "$socket" 2> "$folder/server" &
    started_now server
    until_true "the server is not ready" grep -qx ready "$folder/server"
}

# connect NAME: nc, which says its name first. What is written to NAME.in goes to the server, what comes is in NAME.out.
connect() {
    mkfifo "$folder/$1.in"
    nc $address 7000 < "$folder/$1.in" > "$folder/$1.out" &
    started_now client
    exec {input}> "$folder/$1.in"
    echo "$1" >&"$input"
    until_true "the server does not know $1" knows "$1"
    id=$(field id)
}

knows() {
    call GET "/flows?name=$1" > /dev/null
    [[ -n $body ]]
}

# got NAME TEXT: whether that is all that the client has received.
got() {
    [[ $(cat "$folder/$1.out") == "$2" ]]
}

ip link set lo up
if ((workers > 1)); then
    step "a TAP: the kernel has one end, the server $workers queues of the other"
    ip tuntap add dev clients mode tap multi_queue 2> "$folder/why" || skip "no TAP: $(cat "$folder/why")"
    link=tap:clients
else
    step "a veth pair: the kernel has one end, the server a raw socket on the other"
    ip link add clients type veth peer name ours
    ip link set ours up
    link=raw:ours
fi
ip address add 10.80.0.1/24 dev clients
ip link set clients up

step "serve --service names --control"
start_server

step "alice and bob connect with nc, and say their names"
connect bob
bob=$id
connect alice
alice=$id alice_client=$client

step "list: both, and alice alone"
call GET /flows
want 200 '"name":"bob"'
want 200 '"name":"alice"'
call GET "/flows?name=alice"
want 200 "\"id\":\"$alice\""
[[ $body != *bob* ]] || fail "bob is not alice"
call GET "/flows/$alice"
want 200 '"state":"ESTABLISHED"'

step "push by id; the receipt is in the events"
call POST "/flows/$alice/push" -d 'one '
want 202 '"ticket":"'
ticket=$(field ticket)
call GET "/events?after=0&kinds=delivered&limit=1"
want 200 "\"id\":\"$alice\",\"ticket\":\"$ticket\""

step "push by name, and wait for the delivery"
call POST "/names/alice/push?wait=delivered&timeout=20" -d 'two '
want 200 '"outcome":"delivered"'
until_true "alice did not get both" got alice 'one two '

step "the same idempotency key twice: one ticket, delivered once"
call POST "/flows/$alice/push?wait=delivered" -H 'Idempotency-Key: order 17' -d 'three '
want 200 '"outcome":"delivered"'
ticket=$(field ticket)
call POST "/flows/$alice/push?wait=delivered" -H 'Idempotency-Key: order 17' -d 'three '
want 200 "\"ticket\":\"$ticket\""
call POST "/flows/$alice/push?wait=delivered" -d 'four'
want 200
until_true "alice got something else than each once" got alice 'one two three four'
got bob '' || fail "bob got what was for alice"

step "a push that is committed before kill -9 is delivered after it: the cable is out, so it cannot have been before"
ip link set clients down
call POST "/flows/$bob/push" -d 'kept'
want 202
kill -9 "$server"
until_true "the server is not dead" eval "! kill -0 $server 2> /dev/null"
got bob '' || fail "bob got it with the cable out"
start_server
ip link set clients up
until_true "bob did not get it" got bob 'kept'

# What carol's kernel has not sent or not got acknowledged.
send_queue() {
    ss -Htn state established "( dport = :7000 )" | awk '{ print $2 }' | sort -n | tail -1
}

step "pause: carol writes 20 MB, her send queue grows and her writes block"
connect carol
call POST "/flows/$id/pause"
want 200 '"paused":true'
{ head -c 20000000 /dev/zero && touch "$folder/written"; } >&"$input" &
started_now writer
stands_still() {
    local before
    before=$(send_queue)
    sleep 1
    [[ $before -gt 0 && $before == "$(send_queue)" ]]
}
until_true "carol's send queue does not fill" stands_still
echo "   $(send_queue) bytes wait in her kernel, and do not become fewer"
[[ ! -e $folder/written ]] || fail "all of it was written to a connection that nobody reads from"
call GET "/flows/$id"
want 200 '"paused":true'

step "resume: all of it goes away"
call POST "/flows/$id/resume"
want 200 '"paused":false'
until_true "carol's writes stay blocked" test -e "$folder/written"
is_empty() {
    [[ $(send_queue) == 0 ]]
}
until_true "carol's send queue does not empty" is_empty

step "abort: the client sees a RST"
exec {dave}<> /dev/tcp/$address/7000
echo dave >&"$dave"
until_true "the server does not know dave" knows dave
dave_id=$(field id)
call DELETE "/flows/$dave_id?how=abort"
want 200 '"how":"abort"'
said=$(LC_ALL=C cat <&"$dave" 2>&1) && fail "dave's read ended well"
[[ $said == *"Connection reset by peer"* ]] || fail "dave saw: $said"
echo "   $said"
call GET "/events?after=0&kinds=closed&limit=1"
want 200 '"reason":"aborted"'

step "a stale id is 410 and never another connection's, though erin has dave's place; an id that never was is 404"
# Others in erin's stead come to other shards.
for erin in erin{1..40}; do
    connect "$erin"
    [[ ${id:0:2} != "${dave_id:0:2}" ]] || break
    call DELETE "/flows/$id?how=abort" > /dev/null
done
[[ ${id:8} == "${dave_id:8}" && $id != "$dave_id" ]] || fail "erin is $id, not a new one in the place of $dave_id"
call POST "/flows/$dave_id/push" -d 'too late'
want 410 "$dave_id"
call POST "/flows/$id/push?wait=delivered" -d 'for erin'
want 200
until_true "erin did not get what is hers, and only that" got "$erin" 'for erin'
call POST /flows/00ffffff000003e0/push -d 'to nobody'
want 404
call POST /flows/dave/push -d 'to no id'
want 400 dave
call POST /names/dave/push -d 'gone too'
want 404 dave

step "a full queue is 429: alice's nc is stopped and reads nothing, what was accepted is not lost"
kill -STOP "$alice_client"
head -c 16384 /dev/zero | tr '\0' x > "$folder/16K"
accepted=18
for ((tries = 0; tries < 1000; tries++)); do
    call POST "/flows/$alice/push" --data-binary "@$folder/16K" > /dev/null
    [[ $status == 202 ]] || break
    accepted=$((accepted + 16384))
done
echo "   $((accepted / 16384)) pushes of 16 KB were accepted, then: $status $body"
want 429 'queue is full'
kill -CONT "$alice_client"
has_all() {
    [[ $(stat -c %s "$folder/alice.out") == "$accepted" ]]
}
until_true "alice did not get the $accepted bytes that were accepted" has_all
call POST "/flows/$alice/push?wait=delivered" -d 'there is room again'
want 200 '"outcome":"delivered"'

step "shards move from worker to worker, and nobody notices"
for ((worker = workers - 1; worker >= 0; worker--)); do
    for ((shard = 0; shard < workers; shard++)); do
        call POST "/shards/$shard/move?worker=$worker"
        want 200 "\"worker\":$worker"
        call POST "/names/alice/push?wait=delivered" -d 'x'
        want 200 '"outcome":"delivered"'
    done
done
call GET /stats
want 200
grep -q "\"shard\":$((workers - 1)),\"worker\":0" "$folder/body" || fail "the shards are not where they were moved to"

step "metrics and figures"
call GET /metrics
want 200 'holdline_connections'
call GET /stats
want 200 '"ESTABLISHED":4'

step "drain: everybody gets a FIN, newcomers are refused, the server goes on"
call POST "/drain?rate=100"
want 202 '"connections":4'
none_open() {
    [[ -z $(ss -Htn state established "( dport = :7000 )") ]]
}
until_true "somebody has got no FIN" none_open
nc -w 5 $address 7000 < /dev/null > /dev/null 2>&1 && fail "a newcomer was let in"
call GET "/stats"
want 200 '"draining":true'
want 200 '"ESTABLISHED":0'
call POST "/flows/$alice/push" -d 'closed'
want 410

echo "all answers were right"
