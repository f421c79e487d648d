import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { stringify } from 'yaml';
import { ConfigError } from '../../../src/config/errors.js';
import { type LoadedConfig, loadConfigDocument, loadConfigText } from '../../../src/config/load.js';
import { kubeProxyConfiguration } from '../../../src/config/schema.js';

const HEAD = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration' };
const FIELDS = Object.keys(kubeProxyConfiguration.shape).filter((field) => !(field in HEAD));
const SUBFIELDS = ['syncPeriod', 'minSyncPeriod', 'scheduler', 'excludeCIDRs', 'masqueradeBit', 'maxPerCore', 'min'];

/** Values near what the fields want, so that more than the outermost type check is reached. */
const value = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    '',
    0,
    -1,
    2 ** 53,
    '30s',
    '-1s',
    '1h',
    '10.0.0.0/8',
    '::/0',
    '10.0.0.0/8,::/0',
    'rr',
    true,
  ),
  fc.constantFrom<unknown>('primary', 'NodeCIDR', 'BridgeInterface', '0.0.0.0:1', '[::1]:65536', {}, [], [null], '\0'),
  fc.jsonValue(),
  fc.array(fc.constantFrom('10.0.0.0/8', 'fd00::/8', 'primary', 'all', '1.2.3.4', '')),
  fc.dictionary(fc.constantFrom(...SUBFIELDS), fc.oneof(fc.constantFrom('1s', '2s', 'lc', 3), fc.jsonValue())),
);
const document = fc.dictionary(fc.oneof(fc.constantFrom(...FIELDS), fc.string()), value, { maxKeys: 12 });

/** Accepts, or refuses with a ConfigError that names at least one problem: nothing else may happen. */
function outcome(load: () => LoadedConfig): 'accepted' | 'refused' {
  try {
    const { config, document } = load();
    assert.deepEqual(loadConfigDocument(document, 'printed').config, config, 'it is another when it was printed');
    assert.ok(config.syncPeriodMs > 0 && config.minSyncPeriodMs >= 0 && config.minSyncPeriodMs <= config.syncPeriodMs);
    assert.ok(config.masqueradeBit >= 0 && config.masqueradeBit <= 31);
    return 'accepted';
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    assert.ok(error.problems.length > 0 && error.problems.every(({ allowed }) => allowed !== ''));
    return 'refused';
  }
}

describe('a hostile configuration', () => {
  it('is accepted whole or refused with ConfigError, whatever its fields hold', () => {
    const seen = { accepted: 0, refused: 0 };
    const property = fc.property(document, (fields) => {
      seen[outcome(() => loadConfigDocument({ ...fields, ...HEAD }, 'fuzz'))]++;
    });
    fc.assert(property, { seed: 20_261_121, numRuns: 3000 });
    fc.assert(property, { numRuns: 500 });
    assert.ok(seen.accepted > 100 && seen.refused > 100, JSON.stringify(seen));
  });

  it('never gets through as text either', () => {
    const mutated = fc.tuple(document, fc.nat(), fc.string({ maxLength: 6 })).map(([fields, at, noise]) => {
      const yaml = stringify({ ...HEAD, ...fields });
      const cut = at % (yaml.length + 1);
      return yaml.slice(0, cut) + noise + yaml.slice(cut + noise.length);
    });
    fc.assert(
      fc.property(fc.oneof(mutated, fc.string()), (text) => void outcome(() => loadConfigText(text, 'fuzz'))),
      { seed: 20_261_121, numRuns: 1500 },
    );
  });
});
