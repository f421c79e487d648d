/** How the daemon is asked, and in what words a row of `services` ends. */
import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { DaemonApi } from '../../../src/cli/daemon-api.js';
import { serviceState } from '../../../src/cli/service-view.js';
import { type VirtualServerReport } from '../../../src/serve/inspection.js';
import { serve } from '../../support/http.js';

test('the state of an address is the worst that is to be said of it', () => {
  const FINE = { contestedBy: null, written: true, ready: 2, noLocalEndpoint: false } as VirtualServerReport;
  const state = (change: Partial<VirtualServerReport>): unknown => serviceState({ ...FINE, ...change });
  assert.deepEqual(
    [
      serviceState(undefined),
      state({ contestedBy: 'shop/early', written: false }),
      state({ written: false, ready: 0 }),
      state({ ready: 0, noLocalEndpoint: true }),
      state({ noLocalEndpoint: true }),
      state({ ready: 1 }),
    ],
    [
      { text: 'no address served', colour: 'red' },
      { text: 'contested: shop/early has it', colour: 'red' },
      { text: 'not written: see status', colour: 'red' },
      { text: 'no endpoints: refused', colour: 'yellow' },
      { text: 'no endpoint on this node: outside clients are dropped', colour: 'yellow' },
      { text: 'ok', colour: 'green' },
    ],
  );
});

describe('the daemon that is asked', () => {
  const answering = async (
    t: TestContext,
    ...answers: readonly (readonly [number, string])[]
  ): Promise<[DaemonApi, () => number]> => {
    let asked = 0;
    const port = await serve(t, {
      handler: (_request, response) => {
        const [status, body] = answers[Math.min(asked++, answers.length - 1)]!;
        response.writeHead(status).end(body);
      },
    });
    const metricsBindAddress = { host: '127.0.0.1', port };
    return [new DaemonApi({ metricsBindAddress, statusAccess: 'loopback' }), () => asked];
  };

  test('and is busy is asked again, a second later', async (t) => {
    const [api, asked] = await answering(t, [503, 'too many'], [200, JSON.stringify({ total: 0, services: [] })]);
    const start = performance.now();
    assert.deepEqual([await api.services('', ''), asked()], [[], 2]);
    assert.ok(performance.now() - start > 900);
  });

  test('is asked for page after page, however small they are, until it has told all or has no more', async (t) => {
    const page = (total: number, ...names: string[]): readonly [number, string] => [
      200,
      JSON.stringify({ total, services: names.map((name) => ({ namespace: 'a', name })) }),
    ];
    const names = async (...answers: readonly (readonly [number, string])[]): Promise<[string, number]> => {
      const [api, asked] = await answering(t, ...answers);
      return [(await api.services('', '')).map(({ name }) => name).join(), asked()];
    };
    assert.deepEqual(await names(page(3, 'x'), page(3, 'y'), page(3, 'z')), ['x,y,z', 3]);
    assert.deepEqual(await names(page(5, 'x', 'y'), page(5)), ['x,y', 2]);
    assert.deepEqual(await names(page(0)), ['', 1]);
  });

  test('and says something else is told with its answer, cut where it is long', async (t) => {
    const [busy, asked] = await answering(t, [500, `oh ${'x'.repeat(500)}`]);
    await assert.rejects(busy.services('', ''), /answers HTTP 500: oh x{197}$/);
    assert.equal(asked(), 1);
    const [old] = await answering(t, [404, '404 page not found']);
    await assert.rejects(old.services('', ''), /answers HTTP 404: is it kube-proxy, or an older version\?$/);
    const [gone] = await answering(t, [404, 'no such Service']);
    assert.equal(await gone.backends('a/b'), undefined);
    const [other] = await answering(t, [200, '<html>']);
    await assert.rejects(other.services('', ''), /is no JSON: is something else on that port\?$/);
  });
});
