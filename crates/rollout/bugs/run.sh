#!/bin/bash
# Breaks the planner on purpose, one rule at a time, and demands that its tests notice: each patch of
# this folder is applied to a copy of the tree, which must still compile, and whose tests must fail
# by an assertion. Prints a table. Arguments choose patches by the beginning of their names.
#
# Works in INVIVO_CACHE/seeded-bugs. INVIVO_CASES and INVIVO_STATES bound the random and the
# exhaustive tests, so that each bug costs seconds; both are caught at far fewer than a whole run.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${INVIVO_CACHE:?where built things are kept}/seeded-bugs
tree=$work/tree
export CARGO_TARGET_DIR=$work/target
export INVIVO_CASES=${INVIVO_CASES:-4000} INVIVO_STATES=${INVIVO_STATES:-20000} PROPTEST_MAX_SHRINK_ITERS=0

# Made anew: cargo goes by the age of files, and what was deleted must not stay.
rm -rf "$tree"
mkdir -p "$tree"
(cd "$root" && git ls-files -z --cached --others --exclude-standard) >"$work/files"
(cd "$root" && xargs -0a "$work/files" sh -c 'for f; do [ -e "$f" ] && printf "%s\0" "$f"; done' sh) |
  tar -C "$root" --null -T - -cf - | tar -C "$tree" -xmf -
cd "$tree"

compile() {
  cargo test -p invivo-rollout --lib --locked --no-run >"$work/compile.log" 2>&1 ||
    { cat "$work/compile.log"; echo "$1 does not compile"; exit 1; }
}

run() {
  timeout 600 cargo test -p invivo-rollout --lib --locked >"$work/test.log" 2>&1
}

echo "as it is: compiling and testing" >&2
compile "the tree as it is"
run || { tail -n 40 "$work/test.log"; echo "the tests fail without any bug"; exit 1; }

missed=0 tried=0
printf '%-44s %-7s %5s  %s\n' bug result tests "one that fails"
for patch in "$here"/*.patch; do
  name=$(basename "$patch" .patch)
  [ $# -eq 0 ] || [[ " $* " == *" ${name%%-*} "* ]] || continue
  tried=$((tried + 1))
  patch --quiet -p1 <"$patch"
  compile "$name"
  result=caught
  if run; then
    result=MISSED
  else
    grep -q '^test result: FAILED' "$work/test.log" && grep -q 'panicked at' "$work/test.log" ||
      { tail -n 20 "$work/test.log"; echo "$name ended without a verdict"; exit 1; }
  fi
  failed=$(sed -n 's/^test \(tests::.*\|[a-z]*::tests::.*\) \.\.\. FAILED$/\1/p' "$work/test.log" | sed 's/^tests:://')
  count=$(grep -c . <<<"$failed" || true)
  [ $result = caught ] || missed=$((missed + 1))
  printf '%-44s %-7s %5s  %s\n' "$name" "$result" "$count" "$(head -n 1 <<<"$failed")"
  patch --quiet -R -p1 <"$patch"
done
echo "$((tried - missed)) of $tried bugs were caught"
[ "$missed" -eq 0 ] && [ "$tried" -gt 0 ]
