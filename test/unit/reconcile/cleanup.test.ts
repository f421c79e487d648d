/** `cleanup`: all of ours and of kube-proxy goes, nothing else; said first by a dry run, and done twice the same. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { IpsetBackend } from '../../../src/kernel/ipset/backend.js';
import { CommandError } from '../../../src/kernel/command.js';
import { Iptables } from '../../../src/kernel/iptables/iptables.js';
import {
  type CleanupReport,
  type KernelCleanupOptions,
  cleanup,
  cleanupIptables,
  cleanupOwn,
} from '../../../src/reconcile/cleanup.js';
import { formatAddress, parseAddress } from '../../../src/values/address.js';
import { parsePrefix } from '../../../src/values/prefix.js';
import { addressServerKey, realServerKey } from '../../../src/values/virtual-server.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { RR } from '../../support/netlink-sessions.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

const ip = (text: string) => parseAddress(text)!;
const SERVERS = ['TCP 10.200.0.2:30080', 'TCP 10.96.0.1:80', 'TCP 192.0.2.1:80'];

/** What the daemon has made for a Service with a node port and an external IP, beside things of others. */
async function served(): Promise<ReconcileRig> {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web', {
    ...{ type: 'NodePort', ports: [{ port: 80, nodePort: 30_080 }], externalIPs: ['192.0.2.1'] },
  });
  cluster.slice('web', ['10.0.0.1', '10.0.0.2']);
  const rig = new ReconcileRig(cluster);
  await rig.sync();
  await rig.dataPlane.rules.settled();
  foreign(rig);
  return rig;
}

const THEIRS = addressServerKey('TCP', ip('203.0.113.7'), 80);

function foreign({ kernel, clients, iptables }: ReconcileRig): void {
  clients.ipvs.addVirtualServer(THEIRS, RR);
  clients.ipvs.addRealServer(THEIRS, realServerKey(ip('10.0.0.1'), 8080), 1);
  assert.deepEqual(clients.ipvs.flush(), []);
  kernel.links.addAddress('eth0', '203.0.113.7', 32);
  const nat = iptables.tables['save-4']!.get('nat')!;
  nat.set('MINE', ['-j RETURN']);
  nat.get('PREROUTING')!.push('-j MINE');
}

const optionsOf = (
  { clients, iptables }: ReconcileRig,
  more: Partial<KernelCleanupOptions> = {},
): KernelCleanupOptions => ({
  ...{ ipvs: clients.ipvs, links: clients.links, ipset: clients.ipset, excludeCIDRs: [], dryRun: false },
  iptables: [new Iptables(iptables.tools, iptables.run)],
  ...more,
});

const chainsLeft = ({ iptables }: ReconcileRig, family: 4 | 6 = 4): string[] =>
  [...iptables.tables[`save-${family}`]!].flatMap(([table, chains]) =>
    [...chains.keys()].filter((name) => name.startsWith('KUBE-')).map((name) => `${table} ${name}`),
  );
const NOTHING: CleanupReport = {
  ...{ virtualServers: [], addresses: [], chains: [], sets: [], kept: [], failures: [], remarks: [] },
};

describe('cleanup', () => {
  test('a dry run says all that goes, and changes nothing; the run does just that, and a second one nothing', async () => {
    const rig = await served();
    const before = [rig.state(), chainsLeft(rig), chainsLeft(rig, 6)];
    const said = await cleanup(optionsOf(rig, { dryRun: true }));
    assert.deepEqual([rig.state(), chainsLeft(rig), chainsLeft(rig, 6)], before);
    assert.deepEqual([...said.virtualServers].sort(), SERVERS);
    assert.deepEqual([...said.addresses].sort(), ['10.96.0.1', '192.0.2.1']);
    assert.ok(said.sets.length >= 30 && said.sets.includes('KUBE-CLUSTER-IP'), said.sets.join());
    assert.ok(said.chains.includes('IPv4 nat KUBE-SERVICES (legacy)'), said.chains.join());
    assert.ok(said.chains.includes('IPv6 nat KUBE-SERVICES (legacy)'), said.chains.join());
    assert.ok(said.chains.every((name) => name.includes(' KUBE-')));
    assert.deepEqual(await cleanup(optionsOf(rig)), said);
    assert.deepEqual(
      rig.kernel.ipvs.dump().map((line) => line.split(' ').slice(0, 2).join(' ')),
      ['TCP 203.0.113.7:80', 'TCP 203.0.113.7:80'],
    );
    assert.equal(rig.kernel.links.find('kube-ipvs0'), undefined);
    assert.equal(rig.kernel.netfilter.ipset!.sets.size, 0);
    assert.deepEqual([chainsLeft(rig), chainsLeft(rig, 6)], [[], []]);
    assert.deepEqual(rig.iptables.tables['save-4']!.get('nat')!.get('PREROUTING'), ['-j MINE']);
    const calls = rig.iptables.restores;
    assert.deepEqual(await cleanup(optionsOf(rig)), NOTHING);
    assert.equal(rig.iptables.restores, calls, 'nothing to write');
  });

  test('virtual servers in excludeCIDRs stay', async () => {
    const rig = await served();
    const excludeCIDRs = [parsePrefix('192.0.2.0/24')!];
    const { virtualServers } = await cleanup(optionsOf(rig, { excludeCIDRs }));
    assert.deepEqual(
      [...virtualServers].sort(),
      SERVERS.filter((name) => !name.includes('192.0.2.1')),
    );
    assert.ok(rig.kernel.ipvs.table.has(addressServerKey('TCP', ip('192.0.2.1'), 80)));
  });

  test('VIPs that are routes go with them', async () => {
    const rig = await served();
    const lo = 1;
    rig.clients.links.routes.add(lo, ip('192.0.2.77'));
    assert.deepEqual(rig.clients.links.routes.flush(), []);
    const dry = await cleanup(optionsOf(rig, { dryRun: true }));
    assert.ok(dry.addresses.includes('192.0.2.77'), dry.addresses.join());
    assert.equal(rig.clients.links.routes.list().length, 1);
    await cleanup(optionsOf(rig));
    assert.deepEqual(rig.clients.links.routes.list(), []);
  });

  test('a node port on an address that is no longer here is ours if it serves endpoints, and not if it serves others', async () => {
    const rig = await served();
    const gone = (last: number, ...reals: string[]): void => {
      const key = addressServerKey('TCP', ip(`198.51.100.${last}`), 30_080);
      rig.clients.ipvs.addVirtualServer(key, RR);
      for (const real of reals) rig.clients.ipvs.addRealServer(key, realServerKey(ip(real), 8080), 1);
    };
    gone(1, '10.0.0.1', '10.0.0.2');
    gone(2, '10.0.0.1', '10.9.9.9');
    gone(3);
    assert.deepEqual(rig.clients.ipvs.flush(), []);
    const { virtualServers } = await cleanup(optionsOf(rig));
    assert.deepEqual([...virtualServers].sort(), ['TCP 198.51.100.1:30080', ...SERVERS].sort());
  });

  test('chains that rules of somebody else lead to stay, emptied but for the mark, and their users are named', async () => {
    const rig = await served();
    const nat = rig.iptables.tables['save-4']!.get('nat')!;
    nat.set('MINE', ['-p tcp -j KUBE-MARK-MASQ', '-p udp -j KUBE-SERVICES']);
    const { kept, chains, failures } = await cleanup(optionsOf(rig));
    assert.deepEqual([...kept].sort(), [
      'IPv4 nat KUBE-MARK-MASQ (legacy), used by -A MINE -p tcp -j KUBE-MARK-MASQ',
      'IPv4 nat KUBE-SERVICES (legacy), used by -A MINE -p udp -j KUBE-SERVICES',
    ]);
    assert.deepEqual(failures, []);
    assert.ok(!chains.some((name) => /^IPv4 nat KUBE-(MARK-MASQ|SERVICES) /.test(name)));
    assert.deepEqual(chainsLeft(rig).sort(), ['nat KUBE-MARK-MASQ', 'nat KUBE-SERVICES']);
    assert.deepEqual([nat.get('KUBE-SERVICES'), nat.get('KUBE-MARK-MASQ')?.length], [[], 1]);
  });

  test('what fails is named, and all else is removed', async () => {
    const rig = await served();
    rig.iptables.before = (command) => {
      if (command === 'restore-6') throw new CommandError(command, [], 4, 'the lock is held');
    };
    const isDestroy = 3;
    rig.kernel.faults.push({ at: 'message', code: 'EBUSY', when: ([first]) => first!.type === ((6 << 8) | isDestroy) });
    const deletes = 3;
    let refused = 0;
    rig.kernel.faults.push({
      ...{ at: 'message', code: 'EPERM' },
      when: ([first]) => first!.type > 20 && first!.type < 256 && first!.body[0] === deletes && refused++ === 0,
    });
    const { failures, sets } = await cleanup(optionsOf(rig));
    assert.equal(failures.length, 3, failures.join('\n'));
    assert.ok(
      failures.some((line) => line.startsWith('IPv6 rules: ')),
      failures.join('\n'),
    );
    assert.ok(
      failures.some((line) => line.includes('EPERM')),
      failures.join('\n'),
    );
    assert.equal(rig.kernel.netfilter.ipset!.sets.size, 1);
    assert.ok(!sets.includes([...rig.kernel.netfilter.ipset!.sets.keys()][0]!));
    assert.deepEqual(chainsLeft(rig), []);
  });

  test('without IPVS and ipsets in the kernel the rest is removed', async () => {
    const rig = await served();
    const report = await cleanup(optionsOf(rig, { ipvs: undefined, ipset: undefined }));
    assert.deepEqual([report.virtualServers, report.sets, report.failures], [[], [], []]);
    assert.deepEqual([...report.addresses].sort(), ['10.96.0.1', '192.0.2.1']);
    assert.deepEqual(chainsLeft(rig), []);
  });
});

describe('cleanup of a part', () => {
  test('--own-only leaves what kube-proxy takes over: the table, its sets and chains; routes, which it does not know, go', async () => {
    const rig = await served();
    rig.clients.links.routes.add(1, ip('192.0.2.77'));
    assert.deepEqual(rig.clients.links.routes.flush(), []);
    const sets = [...rig.kernel.netfilter.ipset!.sets.keys()];
    const dry = await cleanupOwn(optionsOf(rig, { dryRun: true }));
    assert.deepEqual([...rig.kernel.netfilter.ipset!.sets.keys()], sets);
    assert.deepEqual(dry.addresses, ['192.0.2.77']);
    assert.equal(rig.clients.links.routes.list().length, 1);
    assert.deepEqual([...dry.sets].sort(), [
      ...['KUBE-6-NO-ENDPOINTS', 'KUBE-6-NO-LOCAL-ENDPOINTS', 'KUBE-NO-ENDPOINTS', 'KUBE-NO-LOCAL-ENDPOINTS'],
    ]);
    const done = await cleanupOwn(optionsOf(rig));
    assert.deepEqual(done, dry);
    assert.deepEqual(rig.clients.links.routes.list(), []);
    const left = await cleanup(optionsOf(rig, { dryRun: true }));
    assert.deepEqual([...left.virtualServers].sort(), SERVERS);
    assert.deepEqual([...left.addresses].sort(), ['10.96.0.1', '192.0.2.1']);
    assert.equal(left.sets.length, sets.length - done.sets.length);
    assert.ok(left.chains.includes('IPv4 nat KUBE-SERVICES (legacy)'));
  });

  test('once the rules are in nf_tables, chains and sets of iptables go, and what they served stays', async () => {
    const rig = await served();
    const { chains, sets, kept, failures } = await cleanupIptables(optionsOf(rig));
    assert.ok(chains.length > 10 && sets.length > 30);
    assert.deepEqual([kept, failures], [[], []]);
    assert.deepEqual([chainsLeft(rig), rig.kernel.netfilter.ipset!.sets.size], [[], 0]);
    assert.ok(rig.kernel.ipvs.table.has(addressServerKey('TCP', ip('10.96.0.1'), 80)));
    const bound = rig.clients.links.listAddresses(rig.clients.links.findLink('kube-ipvs0')!.index);
    assert.deepEqual(bound.map(({ address }) => formatAddress(address)).sort(), ['10.96.0.1', '192.0.2.1']);
    assert.equal(new IpsetBackend(rig.clients.ipset!).present([]).size, 0);
  });
});
