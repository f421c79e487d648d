#!/bin/sh
# Process 1 of the test kernel. The kernel starts it with RUN_DIR (a directory of the host, made by run.mjs) in its
# environment. It puts an overlay over the host's root, so that nothing written here reaches the host, makes it the
# root of the whole machine (module autoload runs /sbin/modprobe in process 1's root), runs RUN_DIR/command.sh with
# its output on console 1, leaves the exit code in RUN_DIR/exit, and powers off.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
release=$(uname -r)

mount -t proc proc /proc
mount -t tmpfs -o size=100% tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
if ! mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root 2>/dev/null; then
  modprobe -d /usr/lib/uml overlay 2>/dev/null || insmod /usr/lib/uml/modules/"$release"/kernel/fs/overlayfs/overlay.ko
  mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root || echo "init: no overlay"
fi
cd /mnt/root || exit 1
umount /proc
mkdir -p mnt run sys proc dev lib/modules
mount -t tmpfs -o mode=755 tmpfs mnt
mkdir mnt/results mnt/old
pivot_root . mnt/old 2>/dev/null || echo "init: pivot_root failed"
cd /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
[ -e "/lib/modules/$release" ] || ln -s "/usr/lib/uml/modules/$release" "/lib/modules/$release"
mount -t hostfs -o "$RUN_DIR" none /mnt/results
# Directories of the host that the command may write to (run.mjs --share).
while read -r shared; do
  [ -n "$shared" ] && mkdir -p "$shared" && mount -t hostfs -o "$shared" none "$shared"
done </mnt/results/shares
umount -l /mnt/old
hostname test-kernel
ip link set lo up
stty -F /dev/tty1 raw -echo 2>/dev/null

# Through a pipe, so that the command does not take its output for a terminal.
{ sh /mnt/results/command.sh </dev/null 2>&1; echo $? >/mnt/results/exit; } | cat >/dev/tty1
sync /mnt/results/exit 2>/dev/null
echo o >/proc/sysrq-trigger
sleep 60
