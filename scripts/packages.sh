#!/bin/sh
# Makes sure that the named groups of programs are there; asks apt only for what is missing.
#   sh scripts/packages.sh build     what npm needs to compile the FFI addon
#   sh scripts/packages.sh kernel    the test kernel and the tools that the tests drive and read it with
#   sh scripts/packages.sh image     what proves the Dockerfile without a container engine (scripts/image-check.mjs)
#   sh scripts/packages.sh image-foreign   the same for another architecture (--arch)
#   sh scripts/packages.sh browser   the browser that looks at the status page
#   sh scripts/packages.sh qemu      what boots a distribution's kernel (npm run test:kernels)
# Without root it prints one line that names the missing packages and the command, and exits 1.
set -eu
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

node_major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
if [ "$node_major" -lt 20 ]; then
  echo "set-up: Node.js 20 or newer is needed, found $(node --version 2>/dev/null || echo none): https://nodejs.org/en/download" >&2
  exit 1
fi

missing=
# need TEST PACKAGE: the package is missing when the program (or absolute file) is.
need() {
  case $1 in
    /*) [ -e "$1" ] || missing="$missing $2" ;;
    *) command -v "$1" >/dev/null 2>&1 || missing="$missing $2" ;;
  esac
}
# True when the tests will run on this machine's own kernel (see test/kernel/harness/run.mjs).
uses_host_kernel() {
  [ "${KERNEL:-}" != uml ] && [ "$(id -u)" = 0 ] && { [ "${KERNEL:-}" = host ] || [ -e /proc/net/ip_vs ] || modprobe -n -q ip_vs 2>/dev/null; }
}

for group in "$@"; do
  case $group in
    build)
      need python3 python3
      need make make
      need g++ g++
      ;;
    kernel)
      uses_host_kernel || need /usr/bin/linux.uml user-mode-linux
      need ipvsadm ipvsadm
      need ipset ipset
      need iptables iptables
      need ip iproute2
      need conntrack conntrack
      need modprobe kmod
      need unshare util-linux
      need sysctl procps
      need python3 python3
      need gcc gcc
      need /usr/include/linux/netlink.h linux-libc-dev
      need strace strace
      need openssl openssl
      ;;
    qemu)
      need qemu-system-x86_64 qemu-system-x86
      need cpio cpio
      need xz xz-utils
      need zstd zstd
      need depmod kmod
      need nft nftables
      ;;
    browser)
      need chromium chromium
      need chromedriver chromium-driver
      ;;
    image)
      need debootstrap debootstrap
      ;;
    image-foreign)
      need debootstrap debootstrap
      need qemu-aarch64-static qemu-user-static
      ;;
    *)
      echo "packages.sh: no such group: $group" >&2
      exit 2
      ;;
  esac
done
[ -n "$missing" ] || exit 0

missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ' | sed 's/ $//')
if ! command -v apt-get >/dev/null 2>&1; then
  echo "set-up: install these first (names as in Debian): $missing" >&2
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  echo "set-up: missing Debian packages and no root to install them; run: sudo apt-get install -y $missing" >&2
  exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >"$log" 2>&1
}
echo "set-up: installing Debian packages: $missing"
# With the package lists at hand the update, the slow part, is not needed.
if ! install; then
  echo "set-up: apt-get update"
  apt-get update -q >"$log" 2>&1 || true
  if ! install; then
    tail -n 20 "$log" >&2
    echo "set-up: could not install: $missing" >&2
    exit 1
  fi
fi
