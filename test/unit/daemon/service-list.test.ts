/** Lists of Services at 50,000: the work between two turns of the event loop is bounded, whatever is asked. */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { listServices } from '../../../src/daemon/answer/service-list.js';
import { Turns, sortInTurns } from '../../../src/time/turns.js';
import { type ServicesQuery } from '../../../src/serve/inspection.js';
import { fetchText } from '../../support/http.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { PageRig } from '../../support/page-rig.js';

const SERVICES = 50_000;
const ALL: Omit<ServicesQuery, 'offset' | 'limit'> = {
  ...{ namespace: '', match: '', search: '', filter: 'all', order: 'name', descending: false },
};

/** In an order that is not theirs. */
async function large(): Promise<TestCluster> {
  const cluster = new TestCluster({ families: [4] });
  for (let i = 0; i < SERVICES; i++) {
    const name = `s${String((i * 7919) % SERVICES).padStart(5, '0')}`;
    cluster.service(name, { clusterIP: `10.${100 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}` });
  }
  await cluster.update();
  return cluster;
}

/** Counts what is done between two turns. */
class Counter {
  most = 0;
  turns = 0;
  #since = 0;

  count = (): void => {
    this.most = Math.max(this.most, ++this.#since);
  };

  readonly turn = (): Promise<void> => {
    this.turns++;
    this.#since = 0;
    return Promise.resolve();
  };
}

describe('at 50,000 Services', () => {
  let cluster: TestCluster;
  before(async () => (cluster = await large()));

  test('finding, counting and sorting let the event loop turn every thousand steps', async () => {
    const rig = new PageRig(cluster);
    const looked = new Counter();
    const values = cluster.state.services.values.bind(cluster.state.services);
    cluster.state.services.values = function* () {
      for (const service of values()) {
        looked.count();
        yield service;
      }
    } as typeof values;
    const queries = [
      {},
      { search: '0.0.1' },
      { search: '10.0.0.1' },
      { filter: 'noEndpoints', order: 'backends' },
    ] as const;
    for (const query of queries) {
      const turns = new Turns(looked.turn);
      const { services, counts } = await listServices(rig.dataPlane, { ...ALL, ...query }, turns);
      assert.ok(looked.most <= 1000, `${looked.most} Services between two turns`);
      assert.equal(counts.all, Object.hasOwn(query, 'search') ? services.length : SERVICES);
      const keys = services.map(({ key }) => key);
      assert.deepEqual(keys, [...keys].sort());
    }
    assert.ok(looked.turns >= (queries.length * SERVICES) / 1000, `${looked.turns} turns`);
  });

  test('a page is made in many turns, and is small', async (t) => {
    const rig = new PageRig(cluster);
    const port = await rig.listen(t);
    const during = async (path: string): Promise<{ turns: number; bytes: number }> => {
      let turns = 0;
      let isDone = false;
      const count = (): void => {
        turns++;
        if (!isDone) setImmediate(count);
      };
      setImmediate(count);
      const { status, body } = await fetchText(port, path);
      isDone = true;
      assert.equal(status, 200);
      return { turns, bytes: body.length };
    };
    for (const path of ['/status?page=400', '/status.json?search=s1&limit=1000', '/services.json?match=10.0.0.1']) {
      const { turns, bytes } = await during(path);
      assert.ok(turns >= SERVICES / 1000, `${path}: ${turns} turns`);
      assert.ok(bytes < 400_000, `${path}: ${bytes} bytes`);
    }
  });
});

test('sorting in turns is sorting: stable, whatever the order was', async () => {
  for (const shuffle of [(i: number) => i, (i: number) => -i, (i: number) => (i * 7919) % 10_007]) {
    const counter = new Counter();
    const items = Array.from({ length: 10_000 }, (_, i) => ({ rank: shuffle(i) >> 3, i }));
    const compare = (a: { rank: number }, b: { rank: number }): number => {
      counter.count();
      return a.rank - b.rank;
    };
    const sorted = await sortInTurns(items, compare, new Turns(counter.turn));
    assert.deepEqual(
      sorted,
      [...items].sort((a, b) => a.rank - b.rank),
    );
    assert.ok(counter.most < 12_000, `${counter.most} comparisons between two turns`);
  }
  assert.deepEqual(await sortInTurns([], () => 0, new Turns()), []);
});
