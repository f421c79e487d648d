/**
 * The pure core on random clusters: as the oracle of the chaos test has it, and the same whatever way it came there.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type ApiObject } from '../../fakes/api-server-store.js';
import { RandomCluster } from '../../fakes/cluster-generator-random.js';
import { seededRandom } from '../../fakes/cluster-generator.js';
import { type RawObject, expectedState } from '../../kernel/chaos-oracle.js';
import {
  CoreCluster,
  LOCAL_ADDRESSES,
  NODE,
  differences,
  isSelected,
  keyOf,
  printExpected,
} from '../../support/fuzz-cluster.js';
import { assertReach, fuzzSeeds } from '../../support/fuzz-seed.js';

const SCHEDULER = { scheduler: 'rr', nodeName: NODE, zone: 'zone-a', nodeIPs: ['10.200.0.2', 'fd00:200::2'] };

function oracle(objects: readonly ApiObject[], localAddresses: readonly string[] = LOCAL_ADDRESSES): string[] {
  const ofKind = (kind: string): RawObject[] => objects.filter((object) => object.kind === kind);
  return printExpected(
    expectedState({ ...SCHEDULER, services: ofKind('Service'), slices: ofKind('EndpointSlice'), localAddresses }),
  );
}

async function fromScratch(objects: readonly ApiObject[], localAddresses?: readonly string[]): Promise<string[]> {
  const core = new CoreCluster(localAddresses);
  for (const object of objects) core.set(object);
  await core.update();
  return core.print();
}

test('the oracle gives the tables that kube-proxy 1.36 made of the recorded cluster', () => {
  const fixture = (path: string): string =>
    readFileSync(new URL(`../../../../test/fixtures/${path}`, import.meta.url), 'utf8');
  const items = (name: string, kind: string): ApiObject[] =>
    (JSON.parse(fixture(`cluster/${name}.json`)) as { items: ApiObject[] }).items.map((item) => ({ ...item, kind }));
  const objects = [...items('services', 'Service'), ...items('endpointslices', 'EndpointSlice')];
  const lines = (path: string): string[] => fixture(`kube-proxy-1.36/${path}`).split('\n').filter(Boolean);
  const recorded = [
    ...lines('ipvs.txt').map((line) => line.replace(/ -m -w 1$/, '')),
    ...lines('kube-ipvs0.txt').map((line) => line.replace(/^inet6? (.*)\/\d+$/, 'address $1')),
    ...lines('ipset-add.txt'),
  ];
  const expected = oracle(objects, ['10.200.0.2', 'fd00:200::2', '127.0.0.1', '::1']);
  const own = /^add KUBE-(6-)?NO-(LOCAL-)?ENDPOINTS /;
  const comparable = expected.filter((line) => !own.test(line));
  assert.deepEqual(differences(comparable, recorded), []);
  assert.equal(comparable.length, recorded.length);
});

for (const seed of fuzzSeeds('desired state')) {
  test(`desired state equals the oracle's, incrementally as from scratch (seed ${seed})`, async () => {
    const random = seededRandom(seed);
    const generator = new RandomCluster({ seed, conflicts: true, badFields: true });
    const core = new CoreCluster();
    const objects = new Map<string, ApiObject>();
    let local = LOCAL_ADDRESSES;
    let created = 0;
    const apply = (changes: ReturnType<RandomCluster['step']>): void => {
      for (const change of changes) {
        const kind = change.op === 'set' ? change.object.kind : KINDS[change.resource]!;
        const name = change.op === 'set' ? keyOf(change.object) : change.key;
        const id = `${kind} ${name}`;
        if (change.op === 'set') {
          const creationTimestamp =
            objects.get(id)?.metadata['creationTimestamp'] ?? new Date(++created * 1000).toISOString();
          const object = { ...change.object, metadata: { ...change.object.metadata, creationTimestamp } };
          objects.set(id, object);
          core.set(object);
        } else {
          const [namespace = '', bare = ''] = name.split('/');
          objects.delete(id);
          core.delete({ kind: kind!, metadata: { namespace, name: bare } });
        }
      }
    };
    for (let i = 0; i < 40; i++) apply(generator.create());
    for (let round = 0; round < 40; round++) {
      const steps = 1 + Math.floor(random() * 6);
      for (let i = 0; i < steps; i++) apply(generator.step());
      if (random() < 0.2) {
        local = random() < 0.5 ? LOCAL_ADDRESSES : [...LOCAL_ADDRESSES, '10.200.0.77', '198.51.100.9', 'fd00:200::77'];
        core.setLocal(local);
      }
      await core.update();
      const all = shuffled([...objects.values()], random);
      const printed = core.print();
      assert.deepEqual(differences(printed, oracle(all, local)), [], `round ${round} against the oracle`);
      const fresh = await fromScratch(all, local);
      assert.deepEqual(differences(printed, fresh), [], `round ${round} against a fresh start`);
    }
    assertReach(seed, core.problems.length, 1, 'bad fields');
    assertReach(
      seed,
      [...objects.values()].filter((object) => !isSelected(object)).length,
      1,
      'objects labelled for others',
    );
  });
}

const KINDS: Readonly<Record<string, string>> = { services: 'Service', endpointslices: 'EndpointSlice' };

function shuffled<T>(values: T[], random: () => number): T[] {
  for (let i = values.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [values[i], values[j]] = [values[j]!, values[i]!];
  }
  return values;
}
