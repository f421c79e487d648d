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
# What every start of a small program opens, copied into memory (that is what touch does in an overlay): through 9p a
# program takes four times as long to start, and ipset opens /etc/protocols for every element.
files='/etc/protocols /etc/ld.so.cache /etc/nsswitch.conf'
for program in sh cat grep sed awk ip nft iptables-nft iptables-legacy ipset ipvsadm modprobe sysctl conntrack; do
  files="$files $(command -v "$program")"
done
for library in c m dl pthread mnl nftnl nftables xtables ip4tc ip6tc ipset popt nl-3 nl-genl-3 bpf elf cap selinux \
  pcre2-8 jansson gmp edit readline tinfo bsd md z lzma zstd crypto nfnetlink netfilter_conntrack proc2; do
  files="$files /usr/lib/*-linux-gnu/lib$library.so.*"
done
# shellcheck disable=SC2086 # patterns and words
touch -c $files /usr/lib/*-linux-gnu/ld-linux* /usr/lib/*-linux-gnu/xtables/*.so /usr/lib/modules/*/modules.*.bin
hostname test-kernel
ip link set lo up
stty -F /dev/ttyS1 raw -echo 2>/dev/null

# Through a pipe, so that the command does not take its output for a terminal.
{ sh /mnt/results/command.sh </dev/null 2>&1; echo $? >/mnt/results/exit; } | cat >/dev/ttyS1
sync
mkfifo /run/never
echo o >/proc/sysrq-trigger
# Nothing that would have to be read through 9p any more: process 1 must not end.
read -r _ </run/never
