/** Every netlink length is padded to four bytes (NLMSG_ALIGN, NLA_ALIGN: include/uapi/linux/netlink.h). */
export function align(length: number): number {
  return (length + 3) & ~3;
}
