/**
 * The kernel clients against answers that were damaged on their way: a result or a typed error, and then business as
 * usual.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { ConntrackClient, ConntrackUnavailableError, StaleFlows } from '../../../src/kernel/conntrack/client.js';
import { IpsetClient } from '../../../src/kernel/ipset/client.js';
import { IpsetError, IpsetUnavailableError } from '../../../src/kernel/ipset/error.js';
import { IpvsClient } from '../../../src/kernel/ipvs/client.js';
import { LinkClient } from '../../../src/kernel/rtnetlink/client.js';
import { NetlinkError, NetlinkProtocolError } from '../../../src/netlink/errors.js';
import { parseAddress } from '../../../src/values/address.js';
import { type IpsetDefinition, addressPortEntry } from '../../../src/values/ipset.js';
import { addressServerKey, realServerKey } from '../../../src/values/virtual-server.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { assertReach, fuzzRuns, fuzzSeeds } from '../../support/fuzz-seed.js';

const TYPED = [NetlinkError, NetlinkProtocolError, IpsetError, IpsetUnavailableError, ConntrackUnavailableError];
const VIP = addressServerKey('TCP', parseAddress('10.96.0.1')!, 80);
const UDP_VIP = addressServerKey('UDP', parseAddress('10.96.0.1')!, 53);
const REAL = realServerKey(parseAddress('10.128.0.1')!, 8080);
const RR = { scheduler: 'rr', flags: 0, timeout: 0 };
const SET: IpsetDefinition = { name: 'KUBE-CLUSTER-IP', type: 'hash:ip,port', family: 4 };

/** Damage to one datagram: where, and the byte that is put there; a cut when there is no byte. */
const damage = fc.record({ nth: fc.nat(6), at: fc.nat(400), byte: fc.option(fc.nat(255)) });
type Damage = typeof damage extends fc.Arbitrary<infer T> ? T : never;

function damaged(datagram: Buffer, { at, byte }: Damage): Buffer {
  const index = at % datagram.length;
  if (byte === null) return datagram.subarray(0, index);
  const copy = Buffer.from(datagram);
  copy[index] = byte;
  return copy;
}

class World {
  readonly kernel = new TestKernel();
  readonly ipvs = new IpvsClient(this.kernel.open);
  readonly link = new LinkClient(this.kernel.open);
  readonly ipset = new IpsetClient(this.kernel.open);
  readonly conntrack = new ConntrackClient(this.kernel.open);

  constructor() {
    for (let i = 0; i < 3; i++)
      this.ipvs.addVirtualServer(addressServerKey('TCP', parseAddress(`10.96.1.${i}`)!, 80), RR);
    this.ipvs.addVirtualServer(VIP, RR);
    this.ipvs.addRealServer(VIP, REAL, 1);
    assert.deepEqual(this.ipvs.flush(), []);
    this.ipset.createSet(SET);
    this.ipset.addEntries(SET, [addressPortEntry(VIP)]);
    const tuple = { source: '\n\x80\0\x05', sourcePort: 999, destination: '\n`\0\x01', destinationPort: 53 };
    const reply = { source: '\n\x80\0\x01', sourcePort: 8080, destination: '\n\x80\0\x05', destinationPort: 999 };
    this.kernel.netfilter.conntrack!.flows = [{ protocol: 17, original: tuple, reply, id: 1 }];
  }

  /** Each call of a client, by name. */
  readonly calls: Readonly<Record<string, () => unknown>> = {
    'list virtual servers': () => this.ipvs.listVirtualServers(),
    'list real servers': () => this.ipvs.listRealServers(VIP),
    timeouts: () => this.ipvs.getTimeouts(),
    info: () => this.ipvs.getInfo(),
    'find link': () => this.link.findLink('lo'),
    'list addresses': () => this.link.listAddresses(),
    'list sets': () => this.ipset.listSets(),
    'list entries': () => this.ipset.listEntries(SET),
    'add an entry': () => this.ipset.addEntries(SET, [addressPortEntry(VIP)]).map(({ entry }) => entry),
    'stale flows': async () => {
      const flows = new StaleFlows();
      flows.addPair(UDP_VIP, realServerKey(parseAddress('10.128.0.77')!, 53));
      return await this.conntrack.deleteStale(flows);
    },
  };

  /** Damages the answers to come. */
  harm(damages: readonly Damage[]): void {
    const answers = Array.from({ length: 7 }, (_, nth) => damages.filter((one) => one.nth === nth));
    for (const list of answers)
      this.kernel.faults.push({ at: 'answer', change: (datagram) => list.reduce(safely, datagram) });
  }

  heal(): void {
    this.kernel.faults.length = 0;
  }
}

function safely(datagram: Buffer, one: Damage): Buffer {
  return datagram.length === 0 ? datagram : damaged(datagram, one);
}

/** False when the call threw one of the errors that it may throw. */
async function answers(name: string, call: () => unknown): Promise<boolean> {
  try {
    await call();
    return true;
  } catch (error) {
    const isTyped = TYPED.some((type) => error instanceof type);
    assert.ok(isTyped, `${name}: ${String(error)}`);
    return false;
  }
}

for (const seed of fuzzSeeds('kernel clients')) {
  test(`damaged answers give typed errors, and soon all is answered as ever (seed ${seed})`, async () => {
    const world = new World();
    const baseline: Record<string, unknown> = {};
    for (const [name, call] of Object.entries(world.calls)) baseline[name] = await call();
    const scenario = fc.tuple(
      fc.constantFrom(...Object.keys(world.calls)),
      fc.array(damage, { minLength: 1, maxLength: 4 }),
    );
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(scenario, async ([name, damages]) => {
        world.harm(damages);
        if (!(await answers(name, world.calls[name]!))) refused++;
        world.heal();
        // An answer that was wrong without showing it can leave damaged rest behind, which costs one more call.
        await answers(name, world.calls[name]!);
        assert.deepEqual(await world.calls[name]!(), baseline[name], `${name} afterwards`);
      }),
      { seed, numRuns: fuzzRuns(3000) },
    );
    assertReach(seed, refused, 201, 'calls refused for damage');
  });
}
