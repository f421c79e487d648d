import { FakeIpvs } from './fake-kernel-ipvs.js';
import { FakeLinks } from './fake-kernel-links.js';
import { FakeNetfilter } from './fake-kernel-netfilter.js';
import { FakeKernel } from './fake-kernel.js';
import { fakeOptionSocket } from './fake-option-socket.js';

/** A node's kernel with all that the daemon uses of one; it outlives a data plane, as a kernel outlives a restart. */
export class TestKernel extends FakeKernel {
  readonly ipvs = new FakeIpvs(this);
  readonly links = new FakeLinks(this);
  readonly netfilter = new FakeNetfilter(this);
  readonly openOptionSocket = fakeOptionSocket(this.ipvs, sameRights(this));

  constructor() {
    super();
    this.links.addLink('eth0');
    this.links.addAddress('eth0', '10.200.0.2', 24);
    this.links.addAddress('eth0', 'fd00:200::2', 64);
  }
}

function sameRights(kernel: FakeKernel): { readonly permitted: boolean } {
  return {
    get permitted() {
      return kernel.permitted;
    },
  };
}
