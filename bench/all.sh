#!/bin/bash
# What are all figures of README.md now, and what were they when they were written?
#
#     bench/all.sh [WORDS ...]        as root, on a machine that does nothing else
#
# Runs every command in the tables of README.md's Numbers once, in their order, then those of its Under attack; with
# WORDS only the commands that have any of these. Prints the machine, then for each command the rows that it is for with
# the figures that stand there, and below them what it says now. A command that fails is told with its last words and
# does not end the others; the exit status tells.
#
# All of it takes an hour on two cores, most of which goodput, scale and idle-million take; it needs 9 GB of memory.
set -uo pipefail
cd "$(dirname "$0")/.."
is_wanted() {
    local words
    for words in "${wanted[@]}"; do
        [[ $1 != *"$words"* ]] || return 0
    done
    return 1
}
wanted=("${@:-}")
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT

# A line for each row of the tables: command, what it is, its figures.
rows() {
    awk -F ' *\\| *' '
        /^## / { is_in = $0 == "## Numbers" }
        is_in && /^\|.*` \|$/ {
            command = $(NF - 1)
            gsub(/`/, "", command)
            figures = $3
            for (column = 4; column < NF - 1; column++)
                if ($column != "") figures = figures "; " $column
            print command "\t" $2 "\t" figures
        }' README.md
    printf '%s\tall rows of Under attack\tsee there\n' "cargo bench --bench attacks"
    printf '%s\tthe text below Under attack\tsee there\n' tests/linux/flood.sh tests/linux/path-mtu.sh
}

echo "machine    $(lscpu | awk -F ': *' '/^Model name/ { print $2; exit }'), $(nproc) cores," \
    "$(free -h | awk '/^Mem/ { print $2 }') of memory, Linux $(uname -r)"
echo "date       $(date -u '+%Y-%m-%d %H:%M') UTC, load $(cut -d ' ' -f 1-3 /proc/loadavg)"
echo "tree       $(git describe --always --dirty)"
cargo build --quiet --release && cargo bench --quiet --no-run || exit

status=0
while IFS= read -r command; do
    is_wanted "$command" || continue
    echo
    echo "== $command"
    rows | awk -F '\t' -v command="$command" '$1 == command { print "   " $2 ": " $3 }'
    begun=$SECONDS
    # Each process of a bench has all cores and nobody beside it.
    if bash -c "$command" < /dev/null > "$said/out" 2> "$said/error"; then
        sed 's/^/ | /' "$said/out"
    else
        status=1
        echo " | failed:"
        tail -q -n 5 "$said/out" "$said/error" | sed 's/^/ | /'
    fi
    echo "   [$((SECONDS - begun)) s]"
done < <(rows | cut -f 1 | awk '!known[$0]++')
exit "$status"
