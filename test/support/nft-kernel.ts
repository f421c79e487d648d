/** The kernel of fakes, with the real kernel's netfilter: for tests in a network namespace of their own. */
import { openNetlinkSocket } from '../../native/libc.js';
import { NETLINK_NETFILTER, type NetlinkSocket, type OpenNetlinkSocket } from '../../src/netlink/socket.js';
import { TestKernel } from '../fakes/test-kernel.js';

export function nftKernel(): TestKernel {
  const kernel = new TestKernel();
  const fakes = kernel.open;
  const open: OpenNetlinkSocket = (protocol, groups): NetlinkSocket =>
    (protocol === NETLINK_NETFILTER ? openNetlinkSocket : fakes)(protocol, groups);
  return Object.assign(kernel, { open });
}
