import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { withNodeDefaults } from '../../../src/cli/node-defaults.js';
import { type DaemonOptions } from '../../../src/daemon/daemon-options.js';

const HEAD = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration' };
const NOTHING: DaemonOptions = {
  ...{ configFile: undefined, document: HEAD, overrides: {}, manifests: undefined, warnings: [] },
};

function found(
  options: Partial<DaemonOptions>,
  variables: Record<string, string>,
  ...files: string[]
): { file: string | undefined; node: string | undefined; said: string } {
  let said = '';
  const around = { variables, exists: (path: string) => files.includes(path), err: (text: string) => (said += text) };
  const { configFile, overrides } = withNodeDefaults({ ...NOTHING, ...options }, around);
  return { file: configFile, node: overrides.hostnameOverride, said };
}

const USUAL = '/var/lib/kube-proxy/config.conf';

describe('a command without options', () => {
  it("takes the configuration of the environment, else the DaemonSet's, and says which", () => {
    const env = found({}, { KUBE_PROXY_CONFIG: '/etc/c', NODE_NAME: 'node-7' }, USUAL);
    assert.deepEqual(env, {
      file: '/etc/c',
      node: 'node-7',
      said: 'configuration: /etc/c (--config chooses another)\n',
    });
    assert.equal(found({}, { KUBE_PROXY_CONFIG: '' }, USUAL).file, USUAL);
    assert.equal(found({}, {}, '/var/lib/kube-proxy-config/config').file, '/var/lib/kube-proxy-config/config');
    assert.deepEqual(found({}, {}), { file: undefined, node: undefined, said: '' });
  });

  it('lets the command line win', () => {
    const overrides = { hostnameOverride: 'mine' };
    const given = found({ configFile: '/given', overrides }, { KUBE_PROXY_CONFIG: '/etc/c', NODE_NAME: 'n' }, USUAL);
    assert.deepEqual(given, { file: '/given', node: 'mine', said: '' });
    const flags = found({ document: { ...HEAD, ipvs: { scheduler: 'lc' } } }, { NODE_NAME: 'n' }, USUAL);
    assert.deepEqual(flags, { file: undefined, node: 'n', said: '' });
  });
});
