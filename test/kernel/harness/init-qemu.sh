#!/bin/sh
# Process 1 under QEMU, in an overlay over the host's root (see initrd-init.sh): what is left of init.sh's work.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
mkdir -p "$RUN_DIR"
mount --bind /mnt/results "$RUN_DIR"
hostname test-kernel
ip link set lo up
stty -F /dev/ttyS1 raw -echo 2>/dev/null

# Through a pipe, so that the command does not take its output for a terminal.
{ sh /mnt/results/command.sh </dev/null 2>&1; echo $? >/mnt/results/exit; } | cat >/dev/ttyS1
sync
echo o >/proc/sysrq-trigger
sleep 60
