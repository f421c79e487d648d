/** Packets refused, counted on over what happens to the kernel's own counters; and which rules those are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusedPackets } from '../../../src/daemon/rules/refused-packets.js';
import { proxyRules } from '../../../src/desired/proxy-rules.js';
import { refusalRules } from '../../../src/desired/refusal-rules.js';
import { type RuleConfig } from '../../../src/desired/rule-config.js';
import { type ChainPackets } from '../../../src/kernel/iptables/rule-counters.js';
import { parsePrefix } from '../../../src/values/prefix.js';

const CONFIG: RuleConfig = {
  ...{ family: 4, masqueradeMark: 0x4000, masqueradeAll: false, randomFully: true, acceptServiceTraffic: undefined },
  detectLocal: { mode: 'ClusterCIDR', cidrs: [parsePrefix('10.0.0.0/8')!, parsePrefix('172.16.0.0/12')!] },
  uplinks: [],
};

test('every rule that drops or rejects has a reason, and no other rule has', () => {
  const { tables } = proxyRules(CONFIG);
  const found = refusalRules({ family: 4, tables }).map(({ chain, reason }) => `${chain} ${reason}`);
  assert.deepEqual(found, [
    ...['KUBE-IPVS-FILTER host_port', 'KUBE-IPVS-FILTER host_port'],
    ...['KUBE-PROXY-FIREWALL no_endpoints', 'KUBE-PROXY-FIREWALL no_endpoints', 'KUBE-PROXY-FIREWALL no_endpoints'],
    ...['KUBE-PROXY-FIREWALL no_local_endpoints', 'KUBE-PROXY-FIREWALL no_local_endpoints'],
    ...['KUBE-SOURCE-RANGES-FIREWALL source_range'],
    ...['KUBE-IPVS-OUT-FILTER no_local_endpoints', 'KUBE-IPVS-OUT-FILTER source_range'],
  ]);
  const refusing = tables
    .flatMap(({ chains }) => chains.flatMap(({ rules }) => rules))
    .filter(({ verdict }) => verdict.do === 'drop' || verdict.do === 'reject');
  assert.equal(found.length, refusing.length);
  const undetected = refusalRules(proxyRules({ ...CONFIG, detectLocal: { mode: 'none' } }));
  assert.equal(undetected.filter(({ chain }) => chain === 'KUBE-PROXY-FIREWALL').length, 3);
});

class Counted {
  chains: Record<string, number[]> | undefined = {};
  reads = 0;
  now = 0;
  sum = 0;
  readonly packets = new RefusedPackets({
    counters: {
      keepMs: 5000,
      read: () => {
        this.reads++;
        return this.chains === undefined
          ? Promise.reject(new Error('cannot be read'))
          : Promise.resolve<ChainPackets>(new Map(Object.entries(this.chains)));
      },
      close: () => undefined,
    },
    rules: () => new Map([[4, [{ table: 'filter', chain: 'C', index: 1, count: 2, reason: 'host_port' }]]]),
    count: (_family, _reason, packets) => {
      assert.ok(packets >= 0);
      this.sum += packets;
    },
    now: () => this.now,
  });

  async after(chains: Record<string, number[]> | undefined): Promise<number> {
    this.chains = chains;
    this.now += 5000;
    await this.packets.collect();
    return this.sum;
  }
}

test('the sum grows as the counter grows, also after the rule was written anew, and never falls', async () => {
  const counted = new Counted();
  assert.equal(await counted.after({ C: [100, 7] }), 7, 'what the kernel has counted before this process began');
  assert.equal(await counted.after({ C: [500, 10] }), 10);
  assert.equal(await counted.after({ C: [0, 0] }), 10, 'written anew');
  assert.equal(await counted.after({ C: [0, 4] }), 14);
  assert.equal(await counted.after({ C: [0, 3] }), 17, 'written anew, and three since');
});

test('rules that are not ours, not there, or cannot be read are not counted; what comes later is', async () => {
  const counted = new Counted();
  assert.equal(await counted.after({ C: [1, 2, 3] }), 0, 'somebody put a rule in');
  assert.equal(await counted.after({}), 0);
  assert.equal(await counted.after(undefined), 0);
  assert.equal(await counted.after({ C: [1, 2] }), 2);
});

test('scrapers that come at the same time, or a moment later, cost one read', async () => {
  const counted = new Counted();
  counted.now = 5000;
  await Promise.all([counted.packets.collect(), counted.packets.collect()]);
  await counted.packets.collect();
  assert.equal(counted.reads, 1);
  counted.now += 5000;
  await counted.packets.collect();
  assert.equal(counted.reads, 2);
});
