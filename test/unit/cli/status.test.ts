/** The command `status` against the page as the daemon serves it. */
import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { runStatus } from '../../../src/cli/status.js';
import { type Environment } from '../../../src/daemon/environment.js';
import { metricsHandler } from '../../../src/serve/metrics-server.js';
import { type StatusHealth, type StatusReport } from '../../../src/serve/status.js';
import { serve } from '../../support/http.js';

const AT = new Date('2026-11-21T07:00:00.000Z');
const HEALTHY: StatusHealth = { healthy: true, nodeEligible: true, lastUpdated: AT, reasons: [] };

async function status(t: TestContext, health: StatusHealth): Promise<{ code: number; text: string }> {
  const report: StatusReport = {
    ...{ node: 'node-0', version: '0.1.0', startedAt: AT, health },
    ...{ counts: { Services: 3 }, kernel: { counts: { 'virtual servers': 5 }, syncingFor: undefined } },
    ...{ lastSync: undefined, lastVerification: undefined, drains: [], notes: ['something to know'] },
  };
  const source = { status: () => report, services: () => ({ total: 0, services: [] }) };
  const metrics = { text: () => Promise.resolve(''), contentType: 'text/plain' };
  const handler = metricsHandler({ metrics, status: source, configz: () => ({}), access: 'loopback' });
  const port = await serve(t, { handler });
  let text = '';
  const environment = { out: (part: string) => void (text += part) } as Environment;
  const document = {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    metricsBindAddress: `127.0.0.1:${port}`,
  };
  const options = { configFile: undefined, document, overrides: {}, manifests: undefined, warnings: [], json: false };
  return { code: await runStatus(options, environment), text };
}

describe('status', () => {
  test('healthy: exit code 0, what is wanted and what is written, the notes', async (t) => {
    const { code, text } = await status(t, HEALTHY);
    assert.equal(code, 0);
    assert.match(text, /^node node-0, version 0\.1\.0: healthy\n/);
    assert.match(text, / 3 Services wanted\n/);
    assert.match(text, / 5 virtual servers written\n/);
    assert.match(text, /note: something to know\n/);
  });

  test('not healthy: exit code 1 and why', async (t) => {
    const { code, text } = await status(t, { ...HEALTHY, healthy: false, reasons: ['rules: they wait'] });
    assert.equal(code, 1);
    assert.match(text, /NOT HEALTHY\n {2}rules: they wait\n/);
  });

  test('a node that is going (D21): exit code 1 and why', async (t) => {
    const reasons = ['node: the node is being deleted'];
    const { code, text } = await status(t, { ...HEALTHY, nodeEligible: false, reasons });
    assert.equal(code, 1);
    assert.match(text, /NOT HEALTHY\n {2}node: the node is being deleted\n/);
  });
});
