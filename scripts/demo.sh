#!/bin/sh
# npm run demo: set-up, then the main job without a cluster, in the test kernel (test/kernel/demo.ts).
set -eu
cd "$(dirname "$0")/.."
sh scripts/compile.sh
exec node test/kernel/harness/run.mjs --timeout 120 -- node --enable-source-maps build/test/kernel/demo.js "$@"
