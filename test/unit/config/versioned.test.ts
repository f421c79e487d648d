/** What `config print` and --write-config-to write: v1alpha1, complete, and the same configuration when read again. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { stringify } from 'yaml';
import { type LogLevel } from '../../../src/config/proxy-config.js';
import { loadConfigDocument, loadConfigText } from '../../../src/config/load.js';

const HEAD = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration' };

function printed(fields: Record<string, unknown>): Record<string, unknown> {
  return loadConfigDocument({ ...HEAD, ...fields }, 'test').document;
}

describe('a configuration as v1alpha1', () => {
  it("has kube-proxy's defaults (pkg/proxy/apis/config/v1alpha1/defaults.go) and the field names of its Go type", () => {
    const document = printed({});
    assert.deepEqual(Object.keys(document), [
      ...['apiVersion', 'kind', 'clientConnection', 'logging', 'hostnameOverride', 'bindAddress', 'healthzBindAddress'],
      ...['metricsBindAddress', 'bindAddressHardFail', 'enableProfiling', 'showHiddenMetricsForVersion', 'mode'],
      ...['iptables', 'ipvs', 'nftables', 'winkernel', 'detectLocalMode', 'detectLocal', 'clusterCIDR'],
      ...['nodePortAddresses', 'oomScoreAdj', 'conntrack', 'configSyncPeriod', 'portRange', 'kubeProxyIpvs'],
    ]);
    assert.equal(document.bindAddress, '0.0.0.0');
    assert.equal(document.healthzBindAddress, '0.0.0.0:10256');
    assert.equal(document.metricsBindAddress, '127.0.0.1:10249');
    assert.equal(document.configSyncPeriod, '15m0s');
    assert.equal(document.oomScoreAdj, -999);
    assert.deepEqual(document.conntrack, {
      maxPerCore: 32768,
      min: 131072,
      tcpEstablishedTimeout: '24h0m0s',
      tcpCloseWaitTimeout: '1h0m0s',
      tcpBeLiberal: false,
      udpTimeout: '0s',
      udpStreamTimeout: '0s',
    });
    assert.deepEqual(document.ipvs, {
      syncPeriod: '30s',
      minSyncPeriod: '0s',
      scheduler: 'rr',
      excludeCIDRs: null,
      strictARP: false,
      tcpTimeout: '0s',
      tcpFinTimeout: '0s',
      udpTimeout: '0s',
    });
    assert.deepEqual(document.clientConnection, {
      kubeconfig: '',
      acceptContentTypes: '',
      contentType: 'application/vnd.kubernetes.protobuf',
      qps: 5,
      burst: 10,
    });
  });

  it('is the same configuration when it is read again', () => {
    for (const fields of [
      {},
      { bindAddress: 'fd00::1', detectLocalMode: 'NodeCIDR', featureGates: { AllAlpha: true } },
      { ipvs: { scheduler: 'mh', excludeCIDRs: ['192.0.2.0/24', 'fd00::/8'], strictARP: true, tcpTimeout: '15m0.5s' } },
      {
        syncPeriod: '90s',
        minSyncPeriod: '100ms',
        nodePortAddresses: ['10.0.0.0/8'],
        clusterCIDR: '10.1.0.0/16,fd00::/48',
      },
      { conntrack: { maxPerCore: 0, tcpEstablishedTimeout: '0s', udpTimeout: '45s' }, oomScoreAdj: 0 },
      { detectLocalMode: 'BridgeInterface', detectLocal: { bridgeInterface: 'cni0' }, mode: 'ipvs' },
      { hostnameOverride: 'Node-1', logging: { verbosity: 5 }, kubeProxyIpvs: { drainTimeout: '3m0s' } },
      { iptables: { masqueradeAll: true, masqueradeBit: 0, localhostNodePorts: false }, portRange: '0-0' },
    ]) {
      const first = loadConfigDocument({ ...HEAD, ...fields }, 'test');
      const again = loadConfigText(stringify(first.document), 'again');
      assert.deepEqual(again.config, first.config);
      assert.deepEqual(again.document, first.document);
      assert.deepEqual(again.warnings, first.warnings);
    }
  });

  it('leaves out what was not understood', () => {
    const document = printed({ colour: 'red', ipvs: { schedulr: 'lc' } });
    assert.ok(!('colour' in document));
    assert.ok(!JSON.stringify(document).includes('schedulr'));
  });

  it('has the verbosity that means the level which the command line chose', () => {
    const verbosity = (logLevel: LogLevel, written?: number): unknown => {
      const logging = written === undefined ? {} : { verbosity: written };
      return (loadConfigDocument({ ...HEAD, logging }, 'test', { logLevel }).document.logging as typeof logging)
        .verbosity;
    };
    const levels = ['error', 'warn', 'info', 'debug', 'trace'] as const;
    assert.deepEqual(
      levels.map((level) => verbosity(level, 2)),
      [0, 0, 2, 4, 6],
    );
    assert.deepEqual(
      levels.map((level) => verbosity(level)),
      [0, 0, 0, 4, 6],
    );
    assert.deepEqual([verbosity('info', 7), verbosity('trace', 9), verbosity('debug', 5)], [0, 9, 5]);
  });

  it('has a level for every verbosity: info below 4, debug below 6, then trace', () => {
    const level = (verbosity: number): string =>
      loadConfigDocument({ ...HEAD, logging: { verbosity } }, 'test').config.logLevel;
    assert.deepEqual([0, 3, 4, 5, 6, 10].map(level), ['info', 'info', 'debug', 'debug', 'trace', 'trace']);
  });

  it('takes the bounds of a number, and nothing beyond', () => {
    const score = (oomScoreAdj: number): unknown => printed({ oomScoreAdj }).oomScoreAdj;
    assert.deepEqual([score(-1000), score(1000)], [-1000, 1000]);
    for (const beyond of [-1001, 1001]) assert.throws(() => score(beyond), /oomScoreAdj: -?1001 .*from -1000 to 1000/);
  });
});
