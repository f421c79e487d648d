/** Who we are to the API server: bounded in time, ended at once when nobody waits any more, and nothing left behind. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Credentials } from '../../../src/kube/credentials.js';
import { KubeError } from '../../../src/kube/errors.js';
import { systemClock } from '../../../src/time/clock.js';

/** Of a kubeconfig whose user is this. */
function credentialsOf(t: TestContext, user: object): Credentials {
  const directory = mkdtempSync(join(tmpdir(), 'credentials-'));
  const file = join(directory, 'kubeconfig');
  const document = {
    clusters: [{ name: 'c', cluster: { server: 'https://203.0.113.1:6443' } }],
    users: [{ name: 'u', user }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  writeFileSync(file, JSON.stringify(document));
  const credentials = new Credentials({ kubeconfig: file }, systemClock);
  t.after(() => {
    credentials.close();
    rmSync(directory, { recursive: true });
  });
  return credentials;
}

const HANGS = { exec: { apiVersion: 'client.authentication.k8s.io/v1', command: '/bin/sleep', args: ['600'] } };
const timers = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;

test('a thousand requests of one caller leave neither a timer nor a listener', async (t) => {
  const credentials = credentialsOf(t, { token: 'one' });
  const before = timers();
  const { signal } = new AbortController();
  for (let i = 0; i < 1000; i++) {
    const { headers } = await credentials.connection(signal);
    assert.equal(headers['Authorization'], 'Bearer one');
  }
  assert.deepEqual([getEventListeners(signal, 'abort').length, timers()], [0, before]);
});

for (const [when, stop] of [
  ['before', (caller: AbortController) => caller.abort()],
  ['while', (caller: AbortController) => void setImmediate(() => caller.abort())],
] as const) {
  test(`stopped ${when} it is asked: it says so at once, whatever the plugin does, and leaves nothing`, async (t) => {
    const credentials = credentialsOf(t, HANGS);
    const caller = new AbortController();
    stop(caller);
    await assert.rejects(
      credentials.connection(caller.signal),
      (error) => error instanceof KubeError && error.reason === 'Aborted' && /stopped/.test(error.message),
    );
    assert.equal(getEventListeners(caller.signal, 'abort').length, 0);
  });
}
