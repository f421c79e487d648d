#!/bin/sh
# npm run chaos -- [--minutes N] [--seed S]: set-up, then rounds of faults (test/kernel/chaos.ts) in the test kernel.
set -eu
cd "$(dirname "$0")/.."
sh scripts/compile.sh
minutes=5
next=
for argument in "$@"; do
  [ "$next" = --minutes ] && minutes=$argument
  case $argument in --minutes=*) minutes=${argument#--minutes=} ;; esac
  next=$argument
done
exec node test/kernel/harness/run.mjs --mem 3G --timeout $((${minutes%.*} * 60 + 600)) -- \
  node --enable-source-maps build/test/kernel/chaos.js "$@"
