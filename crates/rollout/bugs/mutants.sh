#!/bin/bash
# Mutation testing of the planner: 200 of the mutants that cargo-mutants knows, drawn by a published
# seed, so that everybody tries the same ones. Writes INVIVO_CACHE/mutants/mutants.out and names the
# survivors; bugs/README.md says why each of them may live.
#
# MUTANTS_SEED and MUTANTS_COUNT choose others.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${INVIVO_CACHE:?where built things are kept}/mutants
version=27.1.0
tools=$INVIVO_CACHE/cargo-mutants-$version
seed=${MUTANTS_SEED:-2026-11-28}
count=${MUTANTS_COUNT:-200}
# Each copy of the tree has its own target folder.
unset CARGO_TARGET_DIR
export INVIVO_CASES=${INVIVO_CASES:-800} INVIVO_STATES=${INVIVO_STATES:-40000} PROPTEST_MAX_SHRINK_ITERS=0

[ -x "$tools/bin/cargo-mutants" ] || cargo install cargo-mutants --version "$version" --locked --root "$tools"
mkdir -p "$work"
cd "$root"
mutants() {
  "$tools/bin/cargo-mutants" mutants --package invivo-rollout \
    --exclude 'crates/rollout/src/tests/**' --exclude 'crates/rollout/examples/**' "$@"
}
mutants --list | LC_ALL=C sort >"$work/all"
shuf -n "$count" --random-source=<(yes "$seed") "$work/all" >"$work/drawn"
echo "$(wc -l <"$work/drawn") of $(wc -l <"$work/all") mutants, drawn by the seed $seed" >&2
chosen=()
while IFS= read -r line; do
  chosen+=(--re "^$(sed 's/[][\.*^$+?(){}|]/\\&/g' <<<"$line")\$")
done <"$work/drawn"
status=0
mutants "${chosen[@]}" --jobs "${MUTANTS_JOBS:-2}" --timeout 240 --output "$work" --no-shuffle \
  -- --lib --locked || status=$?
out=$work/mutants.out
caught=$(cat "$out/caught.txt" "$out/timeout.txt" | wc -l)
missed=$(wc -l <"$out/missed.txt")
echo "$caught caught, $missed survived, $(wc -l <"$out/unviable.txt") did not compile"
sed 's/^/survived: /' "$out/missed.txt"
# 2: some survived, 3: some ran into the time limit; both are told above.
[ "$status" -eq 0 ] || [ "$status" -eq 2 ] || [ "$status" -eq 3 ] || exit "$status"
[ $((caught * 100)) -ge $(((caught + missed) * 95)) ]
