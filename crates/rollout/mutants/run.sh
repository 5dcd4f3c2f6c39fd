#!/bin/bash
# Changes the planner in 200 small ways, one at a time, and asks whether its tests notice. Which 200 of
# all that are possible is drawn by SEED. Prints those that nobody noticed; fails below 95 %.
# Why some cannot be noticed is told in survivors.md.
#
# The random and the exhaustive tests are cut short (INVIVO_CASES, INVIVO_STATES): what they notice at
# all they notice early.
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
work=${INVIVO_CACHE:?where built things are kept}/mutants
seed=${SEED:-invivo}
count=${COUNT:-200}
export INVIVO_CASES=${INVIVO_CASES:-400} INVIVO_STATES=${INVIVO_STATES:-3000} PROPTEST_MAX_SHRINK_ITERS=0
# Each worker has a copy of the tree with a target folder of its own.
unset CARGO_TARGET_DIR

mkdir -p "$work"
cd "$root"
cargo mutants --list --package invivo-rollout --line-col=true --colors never >"$work/all"
shuf --random-source=<(yes "$seed") -n "$count" "$work/all" >"$work/chosen"
echo "$(wc -l <"$work/chosen") of $(wc -l <"$work/all") possible changes, SEED=$seed" >&2

# Their names as expressions that mean just them.
sed -E 's/[][\\.*^$+?(){}|]/\\&/g; s/^/^/; s/$/$/' "$work/chosen" >"$work/expressions"
names=()
while IFS= read -r name; do names+=(--re "$name"); done <"$work/expressions"

# 2: some were missed, 3: some ran out of time; how many may be is judged below.
code=0
cargo mutants --package invivo-rollout "${names[@]}" --output "$work" --jobs 2 --timeout 300 --no-times \
  --colors never -- --lib --locked || code=$?
case $code in 0 | 2 | 3) ;; *) exit "$code" ;; esac

found() { wc -l <"$work/mutants.out/$1.txt"; }
caught=$(($(found caught) + $(found timeout))) missed=$(found missed)
echo "missed:"
cat "$work/mutants.out/missed.txt"
echo "$caught caught, $missed missed, $(found unviable) do not compile"
# Several changes of one place may have one name.
[ $((caught + missed + $(found unviable))) -ge "$(wc -l <"$work/chosen")" ] || { echo "not all were tried"; exit 1; }
[ $((caught + missed)) -gt 0 ] && [ $((caught * 100)) -ge $(((caught + missed) * 95)) ]
