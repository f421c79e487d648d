#!/bin/sh
# npm run bench -- [--rows 10000x10] [--json FILE] [--quick]: set-up, then the benchmark (test/bench/bench.ts), which boots
# test kernels. BENCH_MEM changes their memory.
set -eu
cd "$(dirname "$0")/.."
sh scripts/compile.sh
exec node --enable-source-maps build/test/bench/bench.js "$@"
