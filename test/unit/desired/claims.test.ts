/** Who has an address and port that several Services claim. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Claims } from '../../../src/desired/claims.js';
import { type ExposureKind, type PortExposures } from '../../../src/desired/exposures.js';
import { type Address, parseAddress } from '../../../src/values/address.js';
import { addressServerKey } from '../../../src/values/virtual-server.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { fuzzRuns, fuzzSeeds } from '../../support/fuzz-seed.js';

const ip = (text: string): Address => parseAddress(text)!;

describe('two Services that claim one address and port', () => {
  const external = { externalIPs: ['192.0.2.1'] };
  const owner = async (cluster: TestCluster): Promise<string> =>
    (await cluster.table()).find((line) => line.startsWith('TCP 192.0.2.1:80'))!;

  test('the older has it, in whichever order they come, and the other keeps the rest', async () => {
    for (const order of [
      ['old', 'new'],
      ['new', 'old'],
    ]) {
      const cluster = new TestCluster();
      for (const name of order) {
        const created = name === 'old' ? '2023-01-01T00:00:00Z' : '2024-01-01T00:00:00Z';
        cluster.service(name, { ...external, clusterIP: name === 'old' ? '10.96.0.1' : '10.96.0.2' }, { created });
        cluster.slice(name, [name === 'old' ? '10.0.0.1' : '10.0.0.2']);
        await cluster.update();
      }
      assert.deepEqual(await cluster.table(), [
        'TCP 10.96.0.1:80 -> 10.0.0.1:8080',
        'TCP 10.96.0.2:80 -> 10.0.0.2:8080',
        'TCP 192.0.2.1:80 -> 10.0.0.1:8080',
      ]);
      assert.deepEqual(cluster.conflicts, ['default/new yields TCP 192.0.2.1:80 to default/old']);
    }
  });

  test('of one age, the first by name has it', async () => {
    const cluster = new TestCluster();
    cluster.service('b', { ...external, clusterIP: '10.96.0.2' });
    cluster.service('a', external);
    cluster.slice('a', ['10.0.0.1']);
    cluster.slice('b', ['10.0.0.2']);
    assert.match(await owner(cluster), /10\.0\.0\.1/);
  });

  test('the other has it as soon as the first lets go', async () => {
    const cluster = new TestCluster();
    cluster.service('a', external);
    cluster.service('b', { ...external, clusterIP: '10.96.0.2' });
    cluster.slice('a', ['10.0.0.1']);
    cluster.slice('b', ['10.0.0.2']);
    assert.match(await owner(cluster), /10\.0\.0\.1/);
    cluster.service('a');
    assert.match(await owner(cluster), /10\.0\.0\.2/);
    assert.equal(cluster.updater.claims.conflicts, 0);
    assert.ok((await cluster.addresses()).includes('192.0.2.1'));
    cluster.service('a', external);
    assert.match(await owner(cluster), /10\.0\.0\.1/);
    cluster.state.deleteService('default/a');
    assert.match(await owner(cluster), /10\.0\.0\.2/);
    cluster.state.deleteService('default/b');
    assert.deepEqual(await cluster.table(), []);
    assert.deepEqual(await cluster.addresses(), []);
  });

  test('may share an address on different ports, and it stays as long as one needs it', async () => {
    const cluster = new TestCluster();
    cluster.service('a', external);
    cluster.service('b', { ...external, clusterIP: '10.96.0.2', ports: [{ port: 81 }] });
    assert.equal(cluster.updater.claims.conflicts, 0);
    assert.ok((await cluster.addresses()).includes('192.0.2.1'));
    cluster.service('a');
    const touched = await cluster.update();
    assert.equal(touched.addresses.has(ip('192.0.2.1')), false);
    assert.ok((await cluster.addresses()).includes('192.0.2.1'));
    cluster.state.deleteService('default/b');
    assert.deepEqual(await cluster.addresses(), ['10.96.0.1']);
  });
});

describe('a claim that the control plane allocated beats one that a tenant wrote', () => {
  const OLD = { created: '2020-01-01T00:00:00Z' };

  /** The tenant's Service is older, and has 10.0.0.66 as its backend; the victim has 10.0.0.1. */
  async function contested(tenant: object, victim: object, ingress: { tenant?: string; victim?: string } = {}) {
    const tables: string[][] = [];
    for (const order of [
      ['tenant', 'victim'],
      ['victim', 'tenant'],
    ]) {
      const cluster = new TestCluster();
      cluster.slice('tenant', ['10.0.0.66']);
      cluster.slice('victim', ['10.0.0.1']);
      for (const name of order) {
        const ip = name === 'tenant' ? ingress.tenant : ingress.victim;
        const balancer = { ingress: ip === undefined ? [] : [{ ip }] };
        if (name === 'tenant') cluster.service(name, { clusterIP: '10.96.0.66', ...tenant }, { ...OLD, ...balancer });
        else cluster.service(name, { clusterIP: '10.96.0.10', ...victim }, balancer);
        await cluster.update();
      }
      tables.push(await cluster.table());
      assert.equal(cluster.conflicts.length, 1, cluster.conflicts.join());
      assert.match(cluster.conflicts[0]!, /^default\/tenant yields .* to default\/victim$/);
    }
    assert.deepEqual(tables[0], tables[1], 'whatever came first');
    return tables[0]!;
  }

  test('a cluster IP, to an external IP', async () => {
    const table = await contested({ externalIPs: ['10.96.0.10'] }, {});
    assert.ok(table.includes('TCP 10.96.0.10:80 -> 10.0.0.1:8080'));
  });

  test('a cluster IP, with every port of it', async () => {
    const table = await contested({ externalIPs: ['10.96.0.10'], ports: [{ port: 9090 }] }, {});
    assert.deepEqual(table, ['TCP 10.96.0.10:80 -> 10.0.0.1:8080', 'TCP 10.96.0.66:9090 -> 10.0.0.66:8080']);
  });

  test('a cluster IP, to the address of a load balancer', async () => {
    const table = await contested({ type: 'LoadBalancer' }, {}, { tenant: '10.96.0.10' });
    assert.ok(table.includes('TCP 10.96.0.10:80 -> 10.0.0.1:8080'));
  });

  test('a NodePort, to an external IP that is the node’s address', async () => {
    const ports = [{ port: 80, nodePort: 30080 }];
    const table = await contested(
      { externalIPs: ['10.200.0.2'], ports: [{ port: 30080 }] },
      { type: 'NodePort', ports },
    );
    assert.ok(table.includes('TCP 10.200.0.2:30080 -> 10.0.0.1:8080'));
  });

  test('a NodePort, to a load balancer whose address is the node’s', async () => {
    const ports = [{ port: 80, nodePort: 30080 }];
    const [tenant, victim] = [
      { type: 'LoadBalancer', ports: [{ port: 30080 }] },
      { type: 'NodePort', ports },
    ];
    const table = await contested(tenant, victim, { tenant: '10.200.0.2' });
    assert.ok(table.includes('TCP 10.200.0.2:30080 -> 10.0.0.1:8080'));
  });

  test('a load balancer, to an external IP', async () => {
    const table = await contested({ externalIPs: ['192.0.2.50'] }, { type: 'LoadBalancer' }, { victim: '192.0.2.50' });
    assert.ok(table.includes('TCP 192.0.2.50:80 -> 10.0.0.1:8080'));
  });

  test('but other ports of a load balancer’s address and of the node may be shared', async () => {
    const cluster = new TestCluster();
    cluster.service(
      'web',
      { type: 'LoadBalancer', ports: [{ port: 80, nodePort: 30080 }] },
      { ingress: [{ ip: '192.0.2.50' }] },
    );
    cluster.service('other', {
      clusterIP: '10.96.0.2',
      externalIPs: ['192.0.2.50', '10.200.0.2'],
      ports: [{ port: 81 }],
    });
    cluster.slice('other', ['10.0.0.2']);
    const table = await cluster.table();
    assert.ok(table.includes('TCP 192.0.2.50:81 -> 10.0.0.2:8080'));
    assert.ok(table.includes('TCP 10.200.0.2:81 -> 10.0.0.2:8080'));
    assert.deepEqual(cluster.conflicts, []);
  });

  test('an external IP that is the Service’s own cluster IP harms nobody', async () => {
    const cluster = new TestCluster();
    cluster.service('web', { externalIPs: ['10.96.0.1'] });
    cluster.slice('web', ['10.0.0.1']);
    assert.deepEqual(await cluster.table(), ['TCP 10.96.0.1:80 -> 10.0.0.1:8080']);
    assert.deepEqual(cluster.conflicts, []);
  });

  test('what was void counts again once the cluster IP is free, and is void again when it is allocated', async () => {
    const cluster = new TestCluster();
    cluster.slice('tenant', ['10.0.0.66']);
    cluster.service('tenant', { clusterIP: '10.96.0.66', externalIPs: ['10.96.0.10'], ports: [{ port: 81 }] }, OLD);
    for (let i = 1; i <= 3; i++) {
      assert.ok((await cluster.table()).includes('TCP 10.96.0.10:81 -> 10.0.0.66:8080'));
      cluster.service('victim', { clusterIP: '10.96.0.10' });
      assert.deepEqual(await cluster.table(), ['TCP 10.96.0.10:80 ->', 'TCP 10.96.0.66:81 -> 10.0.0.66:8080']);
      assert.deepEqual(await cluster.entries('EXTERNAL-IP'), []);
      assert.equal(cluster.conflicts.length, i);
      cluster.state.deleteService('default/victim');
      await cluster.update();
      assert.equal(cluster.updater.claims.pairs.size, 0);
      assert.equal(cluster.updater.claims.conflicts, 0);
    }
  });
});

test('a pair of Services in conflict is told once, however much they quarrel about, and anew only after it was over', async () => {
  const cluster = new TestCluster();
  const addresses = Array.from({ length: 50 }, (_, i) => `192.0.2.${i + 1}`);
  const spec = { externalIPs: addresses, ports: [80, 81, 82].map((port) => ({ name: `p${port}`, port })) };
  cluster.service('a', spec);
  cluster.service('b', { ...spec, clusterIP: '10.96.0.2' });
  cluster.service('c', { ...spec, clusterIP: '10.96.0.3' });
  await cluster.update();
  assert.deepEqual(cluster.conflicts.map((line) => line.replace(/yields .* to/, '<')).sort(), [
    'default/b < default/a',
    'default/c < default/a',
  ]);
  assert.equal(cluster.updater.claims.conflicts, 150);
  assert.equal(cluster.updater.claims.pairs.size, 2);
  cluster.service('b', { ...spec, clusterIP: '10.96.0.2', externalIPs: addresses.slice(1) });
  cluster.slice('b', ['10.0.0.1']);
  await cluster.update();
  assert.equal(cluster.conflicts.length, 2, 'less of it is nothing new');
  cluster.service('b', { clusterIP: '10.96.0.2' });
  await cluster.update();
  assert.equal(cluster.updater.claims.pairs.size, 1);
  cluster.service('b', { ...spec, clusterIP: '10.96.0.2' });
  await cluster.update();
  assert.equal(cluster.conflicts.length, 3);
  cluster.state.deleteService('default/a');
  await cluster.update();
  assert.match(cluster.conflicts.at(-1)!, /^default\/c yields .* to default\/b$/);
  for (const name of ['b', 'c']) cluster.state.deleteService(`default/${name}`);
  await cluster.update();
  assert.deepEqual([cluster.updater.claims.pairs.size, cluster.updater.claims.conflicts], [0, 0]);
});

test('a Service that claims what it claimed is looked at and no more: endpoints change by far the most often', () => {
  const claims = new Claims(1);
  const wishes = Array.from({ length: 20 }, (_, i): Wish[] => [
    { kind: 'clusterIP', address: '10.96.0.1', port: i + 1 },
    { kind: 'externalIP', address: '192.0.2.1', port: i + 1 },
    { kind: 'externalIP', address: '10.96.0.9', port: i + 1 },
  ]).flat();
  const steps = (service: string, createdAt: number, what: readonly Wish[]): number =>
    [...claims.update(service, createdAt, exposures(what), new Set())].length;
  steps('owner', 1, [{ kind: 'clusterIP', address: '10.96.0.9', port: 99 }]);
  const [first, again, anew] = [steps('web', 1, wishes), steps('web', 1, wishes), steps('web', 2, wishes)];
  // Read twice; what is claimed, 40 of them, is settled; and once more when all that was claimed is gone through.
  assert.deepEqual([first - again, anew - again], [40, 80]);
  assert.equal(steps('web', 2, wishes), again);
});

interface Wish {
  readonly kind: ExposureKind;
  readonly address: string;
  readonly port: number;
}

interface State {
  readonly created: number;
  readonly wishes: readonly Wish[];
}

/** The rule as issue 8 has it (C3), over the whole state: who has what, and who yields to whom. */
function oracle(state: ReadonlyMap<string, State>): { owners: Map<string, string>; pairs: Set<string> } {
  const order = ['clusterIP', 'nodePort', 'loadBalancer', 'externalIP'];
  const hasClusterIP = (service: string, address: string): boolean =>
    state.get(service)!.wishes.some((wish) => wish.kind === 'clusterIP' && wish.address === address);
  const pairs = new Set<string>();
  const claims = new Map<string, { service: string; sort: string }[]>();
  for (const [service, { created, wishes }] of state)
    for (const { kind, address, port } of wishes) {
      const owner = [...state.keys()].sort().find((other) => hasClusterIP(other, address));
      if (kind === 'externalIP' && owner !== undefined && !hasClusterIP(service, address)) {
        pairs.add(`${owner} over ${service}`);
        continue;
      }
      const name = `${address}:${port}`;
      const claim = { service, sort: `${order.indexOf(kind)} ${created} ${service}` };
      claims.set(name, [...(claims.get(name) ?? []), claim]);
    }
  const owners = new Map<string, string>();
  for (const [name, list] of claims) {
    const [first, ...rest] = list.sort((a, b) => (a.sort < b.sort ? -1 : 1));
    owners.set(name, first!.service);
    for (const { service } of rest) if (service !== first!.service) pairs.add(`${first!.service} over ${service}`);
  }
  return { owners, pairs };
}

const ADDRESSES = ['10.96.0.1', '10.96.0.2', '192.0.2.1'];
const PORTS = [80, 81];
const NAMES = ['a', 'b', 'c', 'd'];

/**
 * Claims as the daemon keeps them: whoever is affected is looked at again, and each Service acts on what it saw last.
 */
class Kept {
  /** In the smallest steps that there are. */
  readonly claims = new Claims(1);
  readonly state = new Map<string, State>();
  readonly #seen = new Map<string, string>();
  readonly #dirty = new Set<string>();

  /** `breakAfter`: so many steps are made, and what is left is for the next call. */
  set(service: string, next: State | undefined, breakAfter = Infinity): void {
    if (next === undefined) this.state.delete(service);
    else this.state.set(service, next);
    let left = breakAfter;
    const dirty = this.#dirty.add(service);
    for (const key of dirty) {
      const { created = 0, wishes = [] } = this.state.get(key) ?? {};
      const steps = this.claims.update(key, created, this.state.has(key) ? exposures(wishes) : [], dirty);
      while (steps.next().done !== true) if (--left <= 0) return;
      dirty.delete(key);
      this.#seen.set(key, this.#owned(key));
    }
  }

  check(): void {
    const { owners, pairs } = oracle(this.state);
    for (const service of NAMES) {
      const expected = [...owners].filter(([, owner]) => owner === service).map(([name]) => name);
      assert.equal(this.#owned(service), expected.sort().join(' '), `what ${service} owns`);
      assert.equal(this.#seen.get(service) ?? '', expected.join(' '), `what ${service} last saw`);
    }
    const kept = [...this.claims.pairs].map(({ winner, loser }) => `${winner} over ${loser}`);
    assert.deepEqual(kept.sort(), [...pairs].sort());
    assert.equal(this.claims.conflicts > 0, pairs.size > 0);
  }

  #owned(service: string): string {
    const all = ADDRESSES.flatMap((address) => PORTS.map((port) => ({ address, port })));
    const own = all.filter(({ address, port }) =>
      this.claims.owns(service, addressServerKey('TCP', ip(address), port)),
    );
    return own
      .map(({ address, port }) => `${address}:${port}`)
      .sort()
      .join(' ');
  }
}

function exposures(wishes: readonly Wish[]): PortExposures[] {
  return wishes.map(({ kind, address, port }) => ({
    port: { name: '', protocol: 'TCP', port, nodePort: 0 },
    family: 4,
    exposures: [{ kind, address: ip(address), server: addressServerKey('TCP', ip(address), port) }],
  }));
}

const wish = fc.record({
  kind: fc.constantFrom<ExposureKind>('clusterIP', 'nodePort', 'loadBalancer', 'externalIP', 'externalIP'),
  address: fc.constantFrom(...ADDRESSES),
  port: fc.constantFrom(...PORTS),
});
const state = fc.record({ created: fc.nat(2), wishes: fc.array(wish, { maxLength: 5 }) });

for (const seed of fuzzSeeds('claims')) {
  test(`claims are decided as the rule has it after any history (seed ${seed})`, () => {
    const step = fc.tuple(fc.constantFrom(...NAMES), fc.option(state, { nil: undefined }));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (history) => {
        const kept = new Kept();
        for (const [service, next] of history) {
          kept.set(service, next);
          kept.check();
        }
        for (const service of NAMES) kept.set(service, undefined);
        kept.check();
      }),
      { seed, numRuns: fuzzRuns(1000) },
    );
  });

  test(`claims are decided as the rule has it after updates that broke off anywhere (seed ${seed})`, () => {
    const step = fc.tuple(fc.constantFrom(...NAMES), fc.option(state, { nil: undefined }), fc.nat(30));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (history) => {
        const kept = new Kept();
        for (const [service, next, breakAfter] of history) kept.set(service, next, breakAfter);
        kept.set('a', undefined);
        kept.check();
        for (const service of NAMES) kept.set(service, undefined);
        kept.check();
      }),
      { seed, numRuns: fuzzRuns(1000) },
    );
  });

  test(`claims are decided alike in every order of arrival (seed ${seed})`, () => {
    fc.assert(
      fc.property(fc.tuple(state, state, state, state), (states) => {
        for (const order of permutations(NAMES)) {
          const kept = new Kept();
          for (const service of order) kept.set(service, states[NAMES.indexOf(service)]);
          kept.check();
        }
      }),
      { seed, numRuns: fuzzRuns(200) },
    );
  });
}

function permutations<T>(values: readonly T[]): T[][] {
  if (values.length < 2) return [[...values]];
  return values.flatMap((value, i) => permutations(values.filter((_, j) => j !== i)).map((rest) => [value, ...rest]));
}
