#!/bin/sh
# Everything that demo, tests and benchmark need on a fresh Debian machine with Node >= 20: Debian packages and npm's.
# Each step runs only when something is missing and says what it does; with nothing to do it takes well under a second.
set -eu
cd "$(dirname "$0")/.."
sh scripts/packages.sh build kernel
# Tests in a browser say that they are skipped where there is none.
sh scripts/packages.sh browser || true
sh scripts/npm-ci.sh
