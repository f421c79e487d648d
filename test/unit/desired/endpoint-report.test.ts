/** Why an endpoint gets no traffic, against what the endpoint's own fields say, over random Services. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { endpointKeys, reportEndpoints } from '../../../src/desired/endpoint-report.js';
import { portEndpoints } from '../../../src/desired/service.js';
import { formatRealServer, realServerKeys } from '../../../src/values/virtual-server.js';
import { type Fields, TERMINATING, TestCluster, type TestEndpoint } from '../../support/desired-cluster.js';

const TOPOLOGY = { nodeName: 'node-0', zone: 'a' };

/** `10.0.0.1: cluster reason/local reason`; `-` where it gets traffic. */
function reasons(endpoints: readonly TestEndpoint[], spec: Record<string, unknown> = {}, more: TestEndpoint[] = []) {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web', spec);
  cluster.slice('web', endpoints);
  if (more.length > 0) cluster.slice('web', more, { name: 'web-2' });
  const service = cluster.state.services.get('default/web')!;
  const [slices, port] = [cluster.state.slicesOf('default/web'), service.ports[0]!];
  const choice = portEndpoints(service, slices, 4, port, TOPOLOGY);
  const reported = reportEndpoints(slices, 4, port, choice, TOPOLOGY);
  return { reported, choice, known: endpointKeys(slices, 4, port).size };
}

function lines(...args: Parameters<typeof reasons>): string[] {
  return reasons(...args).reported.map(
    ({ key, cluster, local }) =>
      `${formatRealServer(key).replace(/^10\.0\.0\.|:8080$/g, '')} ${cluster ?? '-'}/${local ?? '-'}`,
  );
}

const LOCAL = { type: 'NodePort', externalTrafficPolicy: 'Local', ports: [{ port: 80, nodePort: 30080 }] };
const ip = (last: number): string => `10.0.0.${last}`;

describe('an endpoint is left out', () => {
  test('because it is not ready, or terminates while others are ready; not when none is', () => {
    const down = { ready: false, serving: false };
    const some = [
      { ip: ip(1) },
      { ip: ip(2), ...down },
      { ip: ip(3), ...TERMINATING },
      { ip: ip(4), ...down, terminating: true },
    ];
    assert.deepEqual(
      lines(some).map((line) => line.split('/')[0]),
      ['1 -', '2 notReady', '3 terminating', '4 notReady'],
    );
    assert.deepEqual(
      lines(some.slice(1)).map((line) => line.split('/')[0]),
      ['2 notReady', '3 -', '4 notReady'],
    );
  });

  test('under policy Local because it is on another node, or not ready here', () => {
    const here = { node: 'node-0' };
    const all = [
      { ip: ip(1), ...here },
      { ip: ip(2) },
      { ip: ip(3), ...here, ready: false, serving: false },
      { ip: ip(4), ...here, ...TERMINATING },
    ];
    assert.deepEqual(lines(all, LOCAL), ['1 -/-', '2 -/otherNode', '3 notReady/notReady', '4 terminating/terminating']);
  });

  test('because it is hinted for another zone or node', () => {
    const zones = [
      { ip: ip(1), zones: ['a'] },
      { ip: ip(2), zones: ['b'] },
    ];
    assert.deepEqual(
      lines(zones).map((line) => line.split('/')[0]),
      ['1 -', '2 otherZone'],
    );
    const nodes = [
      { ip: ip(1), nodes: ['node-0'], zones: ['b'] },
      { ip: ip(2), nodes: ['node-1'], zones: ['a'] },
    ];
    assert.deepEqual(
      lines(nodes).map((line) => line.split('/')[0]),
      ['1 -', '2 otherNodeHint'],
    );
    const unhinted = [{ ip: ip(1), zones: ['a'] }, { ip: ip(2) }];
    assert.deepEqual(
      lines(unhinted).map((line) => line.split('/')[0]),
      ['1 -', '2 -'],
    );
  });

  test('because another slice has it, and that one counts', () => {
    const found = lines([{ ip: ip(1), ready: false, serving: false }], {}, [{ ip: ip(1) }]);
    assert.deepEqual(found, ['1 duplicate/duplicate', '1 -/otherNode']);
  });

  test('if and only if it is in no list, whatever the cluster is like', () => {
    let seed = 7;
    const random = (below: number): number => (seed = (seed * 48271) % 2147483647) % below;
    const pick = <T>(...from: T[]): T => from[random(from.length)]!;
    const endpoint = (): TestEndpoint => ({
      ip: ip(1 + random(6)),
      node: pick('node-0', 'node-1'),
      ...pick<Partial<TestEndpoint>>({}, {}, { ready: false, serving: false }, TERMINATING, {
        ready: false,
        serving: true,
      }),
      ...pick<Partial<TestEndpoint>>({}, { zones: ['a'] }, { zones: ['b'] }, { nodes: ['node-0'], zones: ['a'] }),
    });
    const seen = new Set<string>();
    for (let round = 0; round < 500; round++) {
      const slice = (): TestEndpoint[] => Array.from({ length: 1 + random(5) }, endpoint);
      const { reported, choice, known } = reasons(
        slice(),
        pick<Fields>({}, LOCAL, { internalTrafficPolicy: 'Local' }),
        slice(),
      );
      const isExternal = choice.cluster !== '';
      for (const list of ['cluster', 'local'] as const) {
        const used = reported.filter((one) => one[list] === undefined).map(({ key }) => key);
        assert.deepEqual(used.sort(), realServerKeys(choice[list], 4), `${round} ${list}`);
        if (list === 'local' || isExternal) for (const one of reported) seen.add(`${list} ${one[list] ?? '-'}`);
      }
      const counted = reported.filter(({ cluster }) => cluster !== 'duplicate').map(({ key }) => key);
      assert.deepEqual([new Set(counted).size, counted.length], [known, known]);
    }
    assert.ok(seen.size >= 10, [...seen].join());
  });
});
