#!/bin/bash
# Mutants: plants each fault of tests/mutants/mutants.txt, one at a time, in a copy of the tree, runs the quick tests on
# it and demands that one fails. Prints a table; ends with an error if a mutant survives, does not build or no longer
# applies. `tests/mutants.sh WORDS` plants only the mutants whose heading has these words.
#
# The copy and what is built of it stay in target/mutants, so that a second run builds little.
set -euo pipefail
cd "$(dirname "$0")/.."

list=tests/mutants/mutants.txt
wanted=${1:-}
scratch=$PWD/target/mutants
tree=$scratch/tree
log=$scratch/log
export CARGO_TARGET_DIR=$scratch/target CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=1 RUST_BACKTRACE=0
test_seconds_max=300

# Brings the copy to the state of the tree; files that are the same keep their times.
copy_tree() {
    local file
    mkdir -p "$tree"
    while IFS= read -r file; do
        if ! cmp -s "$file" "$tree/$file"; then
            mkdir -p "$tree/$(dirname "$file")"
            cat "$file" > "$tree/$file"
        fi
    done < <(files .)
    while IFS= read -r file; do
        if [[ ! -e "$file" ]]; then
            rm "$tree/$file"
        fi
    done < <(files "$tree")
}

files() {
    (cd "$1" && find Cargo.toml Cargo.lock src tests bench xdp -type f)
}

# Writes the mutant of a file: line $4 of those that are exactly $2 (without indentation) becomes $3. Fails if there is
# no such line, or more than one and no `nth`.
plant() {
    local path=$1 old=$2 new=$3 nth=$4
    old=$old new=$new nth=$nth awk '
        BEGIN { old = ENVIRON["old"]; new = ENVIRON["new"]; nth = ENVIRON["nth"] }
        { text = $0; sub(/^[ \t]+/, "", text) }
        text == old {
            found += 1
            if (nth == 0 || found == nth) {
                indent = substr($0, 1, length($0) - length(text))
                print indent new
                planted += 1
                next
            }
        }
        { print }
        END { if (planted != 1) exit 1 }
    ' "$path" > "$scratch/mutant" && cat "$scratch/mutant" > "$tree/$path"
}

# Runs the quick tests on the copy. Says on standard output what became of the mutant.
judge() {
    local build=(cargo test --quiet --offline --lib --test segments --no-run)
    if ! (cd "$tree" && "${build[@]}" > "$log" 2>&1); then
        echo "does not build"
        return
    fi
    if ! (cd "$tree" && timeout "$test_seconds_max" cargo test --offline --lib --test segments > "$log" 2>&1); then
        echo "caught by $(grep -m 1 -oP '^test \K.*(?= \.\.\. FAILED)' "$log" || echo 'a test that never ends')"
        return
    fi
    local simulate=(cargo run --quiet --offline -- sim --seeds 0..100 --first)
    if ! (cd "$tree" && timeout "$test_seconds_max" "${simulate[@]}" > "$log" 2>&1); then
        echo "caught by holdline sim$(grep -m 1 -oP '^seed\s+\K.*' "$log" | sed 's/^/ of seed /' || true)"
        return
    fi
    echo "SURVIVES"
}

planted=0
failed=0

# Plants one mutant, judges it and prints its line of the table.
try() {
    local heading=$1 path=$2 old=$3 new=$4 nth=$5 verdict
    if [[ "$heading" != *"$wanted"* ]]; then
        return
    fi
    planted=$((planted + 1))
    if plant "$path" "$old" "$new" "$nth"; then
        verdict=$(judge)
    else
        verdict="no longer applies to $path"
    fi
    cat "$path" > "$tree/$path"
    if [[ "$verdict" != "caught by"* ]]; then
        failed=$((failed + 1))
    fi
    printf '%-66s %s\n' "$heading" "$verdict"
}

copy_tree
: > "$log"
if [[ "$(judge)" != SURVIVES ]]; then
    cat "$log"
    echo "the tests fail without a mutant: nothing can be said of mutants" >&2
    exit 1
fi

heading='' path='' old='' nth=0
while IFS= read -r line <&3; do
    case "$line" in
        '== '*) heading=${line#== } path='' old='' nth=0 ;;
        'file '*) path=${line#file } ;;
        'nth '*) nth=${line#nth } ;;
        '- '*) old=${line#- } ;;
        '+ '*) try "$heading" "$path" "$old" "${line#+ }" "$nth" ;;
    esac
done 3< "$list"

echo "$planted mutants planted, $failed of them not caught"
if [[ "$planted" -lt 1 || "$failed" -gt 0 ]]; then
    exit 1
fi
