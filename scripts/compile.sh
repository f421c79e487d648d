#!/bin/sh
# Set-up, the type-checked build/ (tests, fakes, drivers) and the shipped dist/main.js.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
node_modules/.bin/tsc -p tsconfig.json
node scripts/bundle.mjs
