/** What is wrong with a configuration is said all at once, in the order of its lines. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError } from '../../../src/config/errors.js';
import { loadConfigText } from '../../../src/config/load.js';

test('a long value is cut at 120 characters, a shorter one is shown whole', () => {
  const shown = (length: number): string =>
    new ConfigError('f', [{ path: 'p', value: 'x'.repeat(length), allowed: 'y' }]).message;
  assert.ok(shown(118).includes(`"${'x'.repeat(118)}"`));
  assert.ok(shown(119).includes(`"${'x'.repeat(116)}...`) && !shown(119).includes('x'.repeat(117)));
});

test('problems come in the order of the lines, whatever found them', () => {
  const text = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
nodePortAddresses: [primary, 10.0.0.0/8]
conntrack:
  min: abc
clusterCIDR: 10.0.0.0/99
ipvs:
  syncPeriod: 30
healthzBindAddress: nowhere
`;
  assert.throws(
    () => loadConfigText(text, 'test'),
    (error) => {
      assert.ok(error instanceof ConfigError);
      const lines = error.problems.map(({ line }) => line ?? 0);
      assert.ok(lines.length >= 5, error.message);
      assert.deepEqual(
        lines,
        lines.toSorted((a, b) => a - b),
      );
      assert.deepEqual([...new Set(lines)], [3, 5, 6, 8, 9]);
      return true;
    },
  );
});
