/** The nfnetlink family of the fake kernel: its subsystems, each of which a kernel may lack. */
import { NETLINK_NETFILTER } from '../../src/netlink/socket.js';
import { FakeConntrack } from './fake-kernel-conntrack.js';
import { FakeIpset } from './fake-kernel-ipset.js';
import { type FakeKernel } from './fake-kernel.js';

const [CTNETLINK, IPSET] = [1, 6];

export class FakeNetfilter {
  /** Undefined as on a kernel without the module. */
  ipset: FakeIpset | undefined = new FakeIpset();
  conntrack: FakeConntrack | undefined = new FakeConntrack();

  constructor(kernel: FakeKernel) {
    const handle: Parameters<FakeKernel['addFamily']>[1] = (request) => {
      const subsystem = { [CTNETLINK]: this.conntrack, [IPSET]: this.ipset }[request.type >> 8];
      return subsystem?.answer(request) ?? { error: 'EINVAL' };
    };
    // A set or an entry each: the client has to put the parts of a long one together.
    kernel.addFamily(NETLINK_NETFILTER, handle, 1);
  }
}
