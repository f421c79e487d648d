#!/bin/sh
# Runs `npm ci` when node_modules is missing or was made from another package-lock.json.
set -eu
cd "$(dirname "$0")/.."
stamp=node_modules/.made-from
lock=$(cksum <package-lock.json)
[ "$(cat "$stamp" 2>/dev/null)" = "$lock" ] && exit 0
# Somebody ran npm by hand since the lock file changed: npm keeps its own record.
if [ -e node_modules/.package-lock.json ] && [ node_modules/.package-lock.json -nt package-lock.json ]; then
  echo "$lock" >"$stamp"
  exit 0
fi
sh scripts/packages.sh build
echo 'set-up: npm ci (compiles the FFI addon, about half a minute)'
npm ci --no-audit --no-fund --loglevel=error
echo "$lock" >"$stamp"
