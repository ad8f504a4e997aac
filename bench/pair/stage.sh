# The stage of what is measured over AF_XDP: a veth pair between two network namespaces, the driver of each end a thread
# (NAPI), as a card has a core of its own for that. For scripts that have sourced tests/linux/stage.sh and are inside.
#
# A veth's ring has 256 places, and without a queueing discipline a frame that finds none is lost; with one the sender
# waits, as for a card.

# pair NEAR FAR PLACES: the script runs again first, with a mount namespace of its own and /sys of this network
# namespace. FAR is in another one, where "${inside[@]}" runs commands and which is that of process $keeper. `drive`
# then finds who is busy by bench/pair/busy.py.
pair() {
    local near=$1 far=$2 places=$3 name
    if [[ -z ${HOLDLINE_MOUNTED:-} ]]; then
        rm -r "$folder"
        HOLDLINE_MOUNTED=yes exec unshare --mount "$0" "$program" "${more[@]}"
    fi
    mount -t sysfs sysfs /sys
    unshare --net sleep 3600 &
    started_now keeper
    inside=(nsenter --net="/proc/$keeper/ns/net")
    ip link add "$near" type veth peer name "$far"
    for name in "$near" "$far"; do
        ethtool -K "$name" gro on
        # A veth that may get segments to cut leaves its NAPI out, and the sender's core does all the work.
        ethtool -K "$name" tso off
        ip link set "$name" up
        echo 1 > "/sys/class/net/$name/threaded"
    done
    until_true "there is no second namespace" ip link set "$far" netns "$keeper"
    ip link set lo up
    ip link set "$near" up
    tc qdisc add dev "$near" root pfifo limit "$places"
    "${inside[@]}" sh -c "ip link set lo up; ip link set $far up; tc qdisc add dev $far root pfifo limit $places"
    # It has moved, and its driver is no thread any more.
    "${inside[@]}" unshare --mount sh -c "mount -t sysfs s /sys && echo 1 > /sys/class/net/$far/threaded"
}

# drive ARGUMENT...: runs the Python on standard input, which gets the program, the folder, the keeper and these.
drive() {
    PYTHONPATH=$(dirname "$0")/pair PYTHONDONTWRITEBYTECODE=1 python3 - "$program" "$folder" "$keeper" "$@"
}
