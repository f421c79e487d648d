#!/bin/sh
# Unpacks one of Debian's kernels for QEMU; installs nothing, and does nothing when it is there already.
#   sh scripts/debian-kernel.sh release   linux-image-amd64 of the release that this machine has
#   sh scripts/debian-kernel.sh newest    linux-image-amd64 of Debian's unstable distribution
# Prints the directory: boot/vmlinuz-*, lib/modules/VERSION and initrd.gz (for test/kernel/harness/run.mjs, KERNEL=qemu:NAME).
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"
name=${1:-}
case $name in release | newest) ;; *)
  echo "usage: debian-kernel.sh release|newest" >&2
  exit 2
  ;;
esac
cache=$PWD/node_modules/.cache/kernels
kernel=$cache/$name
if [ -e "$kernel/initrd.gz" ]; then
  echo "$kernel"
  exit 0
fi
sh scripts/packages.sh qemu >&2
mkdir -p "$cache"
work=$(mktemp -d "$cache/unpacking.XXXXXX")
trap 'rm -rf "$work"' EXIT

# apt with lists of its own: the machine's own lists and sources stay as they are.
if [ "$name" = newest ]; then
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | sort -u | head -n 1)
  [ -n "$site" ] || { echo "debian-kernel.sh: apt knows no Debian archive (apt-get update?)" >&2; exit 1; }
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
  echo "deb [signed-by=$keyring] $site sid main" >"$work/apt/sources.list"
  set -- -o "Dir::State::lists=$work/apt/lists" -o "Dir::Etc::sourcelist=$work/apt/sources.list" \
    -o Dir::Etc::sourceparts=- -o "Dir::Cache=$work/apt/cache"
else
  set --
fi
echo "set-up: Debian's $name kernel (about 70 to 130 MB)" >&2
apt-get "$@" update -q >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; exit 1; }
# The kernel and what newer archives have split off it; never an installer of boot loaders or initrds.
packages=$(apt-cache "$@" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
  --no-enhances linux-image-amd64 | grep -E '^linux-(image|modules|binary|base)-[0-9]' | sort -u)
mkdir "$work/debs"
# shellcheck disable=SC2086
(cd "$work/debs" && apt-get "$@" download -q $packages >"$work/log" 2>&1 && apt-get download -q busybox-static >>"$work/log" 2>&1) || {
  tail -n 5 "$work/log" >&2
  exit 1
}
mkdir "$work/kernel"
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/kernel"; done
# Newer packages put modules and the kernel's image under usr/lib.
if [ -d "$work/kernel/usr/lib/modules" ]; then
  mkdir -p "$work/kernel/lib/modules"
  cp -a "$work/kernel/usr/lib/modules/." "$work/kernel/lib/modules/"
fi
version=$(ls "$work/kernel/lib/modules")
mkdir -p "$work/kernel/boot"
ls "$work"/kernel/boot/vmlinuz-* >/dev/null 2>&1 ||
  find "$work/kernel" -name 'vmlinuz*' -type f -exec cp {} "$work/kernel/boot/vmlinuz-$version" \;
depmod -b "$work/kernel" "$version"

# An initrd that finds the host's files through 9p and puts an overlay over them.
root=$work/initrd
mkdir -p "$root/bin" "$root/modules" "$root/proc" "$root/sys" "$root/new"
cp "$work/kernel/bin/busybox" "$root/bin/busybox" 2>/dev/null || cp "$work/kernel/usr/bin/busybox" "$root/bin/busybox"
order=0
for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci netfs fscache 9pnet 9pnet_virtio 9p overlay; do
  file=$(find "$work/kernel/lib/modules/$version" -name "$module.ko*" | head -n 1)
  [ -n "$file" ] || continue # built in
  order=$((order + 1))
  target=$root/modules/$(printf %02d $order)-$module.ko
  case $file in
    *.xz) xz -dc "$file" >"$target" ;;
    *.zst) zstd -qdc "$file" >"$target" ;;
    *) cp "$file" "$target" ;;
  esac
done
cp test/kernel/harness/initrd-init.sh "$root/init"
chmod 755 "$root/init"
(cd "$root" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/kernel/initrd.gz"
rm -rf "$kernel"
mv "$work/kernel" "$kernel"
echo "$kernel"
