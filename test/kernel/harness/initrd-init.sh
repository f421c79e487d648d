#!/bin/busybox sh
# Process 1 of the initrd under QEMU. The kernel's command line gives RUN_DIR, KERNEL_DIR and INIT (all paths of the host).
# The host's root comes read-only through 9p, an overlay goes over it, and INIT goes on in there.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
# The order of the files is almost that of their dependencies; a few rounds do the rest.
for _ in 1 2 3; do
  for module in /modules/*.ko; do insmod "$module" 2>/dev/null; done
done
for word in $(cat /proc/cmdline); do
  case $word in RUN_DIR=* | KERNEL_DIR=* | INIT=*) export "${word?}" ;; esac
done
p9=trans=virtio,version=9p2000.L,msize=524288
mkdir -p /low /over
mount -t 9p -o "$p9,cache=loose,ro" host /low || { echo 'initrd: no 9p'; echo o >/proc/sysrq-trigger; sleep 60; }
mount -t tmpfs -o size=80% tmpfs /over
mkdir -p /over/upper /over/work
mount -t overlay -o lowerdir=/low,upperdir=/over/upper,workdir=/over/work overlay /new
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
rm -rf /new/usr/lib/modules
ln -s "$KERNEL_DIR/lib/modules" /new/usr/lib/modules
mkdir -p /new/mnt
mount -t tmpfs -o mode=755 tmpfs /new/mnt
mkdir -p /new/mnt/results
mount -t 9p -o "$p9,cache=none" results /new/mnt/results
number=0
while read -r shared; do
  [ -n "$shared" ] || continue
  mkdir -p "/new$shared"
  mount -t 9p -o "$p9,cache=none" "share$number" "/new$shared"
  number=$((number + 1))
done </new/mnt/results/shares
exec switch_root /new /bin/sh "$INIT"
