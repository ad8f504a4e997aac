# The stage of the scripts here, which they source: a namespace of their own, what they start and clean up, how they
# fail.
#
# `$program` is the server, `$folder` is for what they write; it is gone when they end, and so is all that was started.

program=${1:-$(dirname "${BASH_SOURCE[0]}")/../../target/release/holdline}
more=("${@:2}")

skip() {
    echo "skipped: $*"
    exit 0
}

# enter TOOL...: runs the script again inside of a new network namespace, unless it runs there by now. Skips it where a
# tool is missing, or namespaces are not to be had. Root needs nothing else; a plain user takes a user namespace along.
enter() {
    [[ -z ${HOLDLINE_INSIDE:-} ]] || return 0
    local tool unshare=(unshare --net)
    for tool in ip unshare "$@"; do
        command -v "$tool" > /dev/null || skip "there is no $tool"
    done
    [[ $EUID -eq 0 ]] || unshare+=(--user --map-root-user)
    "${unshare[@]}" unshare --net true 2> /dev/null || skip "this user may not make a network namespace"
    HOLDLINE_INSIDE=yes exec "${unshare[@]}" "$0" "$program" "${more[@]}"
}

# Made inside only: what runs the script again ends by that.
[[ -z ${HOLDLINE_INSIDE:-} ]] || folder=$(mktemp -d)
started=()
finish() {
    trap - EXIT
    ((${#started[@]} == 0)) || kill -9 "${started[@]}" 2> /dev/null || true
    [[ -z ${folder:-} ]] || rm -rf "$folder"
}
trap finish EXIT

# started_now NAME: keeps the number of the process that was put into the background last.
started_now() {
    started+=($!)
    printf -v "$1" %s $!
    # Its end is not to be told of.
    disown
}

step() {
    echo "== $*"
}

fail() {
    echo "WRONG: $*"
    [[ ! -s $folder/server ]] || sed 's/^/    the server said: /' "$folder/server"
    exit 1
}

# until_true WHAT COMMAND...: waits up to 30 seconds until the command succeeds.
until_true() {
    local what=$1 tries=300
    shift
    until "$@"; do
        ((tries-- > 0)) || fail "after 30 seconds: $what"
        sleep 0.1
    done
}
