#!/bin/sh
# Prints where promtool is: on the PATH, or unpacked from Debian's package prometheus into node_modules/.cache. The package is
# not installed, since that would start a Prometheus on this machine; and no root is needed.
set -eu
cd "$(dirname "$0")/.."
command -v promtool && exit 0
cached=$PWD/node_modules/.cache/promtool/usr/bin/promtool
if [ ! -x "$cached" ]; then
  command -v apt-get >/dev/null 2>&1 || { echo 'promtool is missing (package prometheus)' >&2; exit 1; }
  echo "set-up: unpacking promtool from Debian's package prometheus (about 30 MB)" >&2
  mkdir -p node_modules/.cache
  work=$(mktemp -d node_modules/.cache/promtool.XXXXXX)
  trap 'rm -rf "$work"' EXIT
  cd "$work"
  apt-get download -q prometheus >log 2>&1 || { apt-get update -q >log 2>&1 && apt-get download -q prometheus >log 2>&1; } || {
    tail -n 5 log >&2
    exit 1
  }
  dpkg -x prometheus_*.deb root
  cd ../../..
  mkdir -p "${cached%/*}"
  mv "$work/root/usr/bin/promtool" "$cached"
fi
echo "$cached"
