#!/bin/sh
# npm test: set-up, type check, lint, unit tests, bundle, kernel tests; the last line counts all tests.
# A failing stage fails the whole, but the stages that can still run do, so that one run shows everything.
set -u
cd "$(dirname "$0")/.."
sh scripts/setup.sh || exit 1
counts=$(mktemp)
lint=$(mktemp)
trap 'rm -f "$counts" "$lint"' EXIT
failed=

stage() {
  echo "--- $1"
  shift
  "$@"
}
# It takes longest of what uses one CPU and only reads the sources: beside the others.
stage 'lint' node_modules/.bin/eslint --max-warnings 0 . >"$lint" 2>&1 &
linting=$!
stage 'type check' node_modules/.bin/tsc -p tsconfig.json || failed="$failed type-check"
stage 'format' node_modules/.bin/prettier --check --log-level warn . || failed="$failed format"
stage 'unit tests' node scripts/run-tests.mjs unit --counts "$counts" || failed="$failed unit-tests"
wait $linting || failed="$failed lint"
cat "$lint"
if stage 'bundle' node scripts/bundle.mjs; then
  stage 'kernel tests' node scripts/run-tests.mjs kernel --counts "$counts" || failed="$failed kernel-tests"
else
  failed="$failed bundle (kernel tests not run)"
fi

[ -z "$failed" ] || echo "failed:$failed"
node -e '
  const total = { pass: 0, fail: 0, skipped: 0 };
  for (const line of require("node:fs").readFileSync(process.argv[1], "utf8").split("\n").filter(Boolean)) {
    const counts = JSON.parse(line);
    for (const name of Object.keys(total)) total[name] += counts[name];
    for (const failure of counts.failures) console.log(`failed: ${failure}`);
  }
  console.log(`${total.pass} passed, ${total.fail} failed, ${total.skipped} skipped`);' "$counts"
[ -z "$failed" ]
