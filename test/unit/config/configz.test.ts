/**
 * /configz against what kube-proxy 1.36 answers for the same files: worked out from types.go, defaults.go and
 * conversion.go of its v1alpha1 configuration and their JSON tags, not from our own code.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { configz } from '../../../src/config/configz.js';
import { loadConfigText } from '../../../src/config/load.js';

const HEAD = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n';

function shown(text: string, overrides = {}): Record<string, Record<string, unknown>> {
  const { document } = loadConfigText(HEAD + text, 'test', overrides);
  return JSON.parse(JSON.stringify(configz(document))) as Record<string, Record<string, unknown>>;
}

const DEFAULTS = {
  kind: 'KubeProxyConfiguration',
  apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
  clientConnection: {
    kubeconfig: '',
    acceptContentTypes: '',
    contentType: 'application/vnd.kubernetes.protobuf',
    qps: 5,
    burst: 10,
  },
  logging: {
    format: 'text',
    flushFrequency: '5s',
    verbosity: 0,
    options: { text: { infoBufferSize: '0' }, json: { infoBufferSize: '0' } },
  },
  hostnameOverride: '',
  bindAddress: '0.0.0.0',
  healthzBindAddress: '0.0.0.0:10256',
  metricsBindAddress: '127.0.0.1:10249',
  bindAddressHardFail: false,
  enableProfiling: false,
  showHiddenMetricsForVersion: '',
  mode: 'ipvs',
  iptables: {
    masqueradeBit: 14,
    masqueradeAll: false,
    localhostNodePorts: true,
    syncPeriod: '0s',
    minSyncPeriod: '0s',
  },
  ipvs: {
    syncPeriod: '30s',
    minSyncPeriod: '0s',
    scheduler: 'rr', // kube-proxy shows an empty string and takes rr
    excludeCIDRs: null,
    strictARP: false,
    tcpTimeout: '0s',
    tcpFinTimeout: '0s',
    udpTimeout: '0s',
  },
  nftables: { masqueradeBit: 14, masqueradeAll: false, syncPeriod: '0s', minSyncPeriod: '0s' },
  winkernel: {
    networkName: '',
    sourceVip: '',
    enableDSR: false,
    rootHnsEndpointName: '',
    forwardHealthCheckVip: false,
  },
  detectLocalMode: 'ClusterCIDR',
  detectLocal: { bridgeInterface: '', interfaceNamePrefix: '' },
  clusterCIDR: '',
  nodePortAddresses: null,
  oomScoreAdj: -999,
  conntrack: {
    maxPerCore: 32768,
    min: 131072,
    tcpEstablishedTimeout: '24h0m0s',
    tcpCloseWaitTimeout: '1h0m0s',
    tcpBeLiberal: false,
    udpTimeout: '0s',
    udpStreamTimeout: '0s',
  },
  configSyncPeriod: '15m0s',
  portRange: '',
};

describe('configz', () => {
  test('an empty configuration is the v1alpha1 object with every default', () => {
    assert.deepEqual(shown('')['kubeproxy.config.k8s.io'], DEFAULTS);
  });

  test('what the file says is there, in the forms of the API', () => {
    const text = `
bindAddress: "::"
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
featureGates: { AllAlpha: false }
clientConnection: { kubeconfig: /var/lib/kube-proxy/kubeconfig.conf, qps: 20, burst: 0 }
ipvs: { scheduler: lc, syncPeriod: 90s, minSyncPeriod: 500ms, excludeCIDRs: [192.0.2.0/24], tcpTimeout: 15m }
iptables: { masqueradeAll: true, masqueradeBit: null, syncPeriod: 1m }
nodePortAddresses: [10.0.0.0/8]
conntrack: { maxPerCore: 0, tcpEstablishedTimeout: 0s, udpTimeout: 1m30s }
logging: { verbosity: 4 }
oomScoreAdj: -500
`;
    assert.deepEqual(shown(text)['kubeproxy.config.k8s.io'], {
      ...DEFAULTS,
      featureGates: { AllAlpha: false },
      bindAddress: '::',
      healthzBindAddress: '[::]:10256',
      metricsBindAddress: '[::1]:10249',
      clusterCIDR: '10.244.0.0/16,fd00:10:244::/56',
      clientConnection: {
        ...DEFAULTS.clientConnection,
        kubeconfig: '/var/lib/kube-proxy/kubeconfig.conf',
        qps: 20,
      },
      ipvs: {
        ...DEFAULTS.ipvs,
        scheduler: 'lc',
        syncPeriod: '1m30s',
        minSyncPeriod: '500ms',
        excludeCIDRs: ['192.0.2.0/24'],
        tcpTimeout: '15m0s',
      },
      iptables: { ...DEFAULTS.iptables, masqueradeAll: true },
      nodePortAddresses: ['10.0.0.0/8'],
      conntrack: { ...DEFAULTS.conntrack, maxPerCore: 0, tcpEstablishedTimeout: '0s', udpTimeout: '1m30s' },
      logging: { ...DEFAULTS.logging, verbosity: 4 },
      oomScoreAdj: -500,
    });
  });

  test('it is the configuration in use: the command line counts', () => {
    const flags = { hostnameOverride: 'Node-7', healthzBindAddress: '', metricsBindAddress: '10.0.0.7' };
    const { hostnameOverride, healthzBindAddress, metricsBindAddress } = shown('', flags)['kubeproxy.config.k8s.io']!;
    assert.deepEqual([hostnameOverride, healthzBindAddress, metricsBindAddress], ['node-7', '', '10.0.0.7:10249']);
  });

  test('the block of this daemon is beside it, not in it', () => {
    assert.deepEqual(shown('kubeProxyIpvs: { drainTimeout: 1m }').kubeProxyIpvs, {
      statusAccess: 'loopback',
      serviceMetrics: 0,
      drainTimeout: '1m0s',
      events: 'none',
      relistPeriod: '0s',
      acceptServiceTraffic: false,
      rules: 'auto',
      protectNodeAddresses: 'auto',
      estimation: 'auto',
      vips: 'addresses',
    });
    assert.deepEqual(Object.keys(shown('')), ['kubeproxy.config.k8s.io', 'kubeProxyIpvs']);
  });
});

describe('kubeProxyIpvs.statusAccess', () => {
  const access = (value: string): string =>
    loadConfigText(`${HEAD}kubeProxyIpvs: { statusAccess: ${value} }`, 'test').config.statusAccess;

  test('is loopback, all or off; nothing means loopback', () => {
    assert.deepEqual(['loopback', 'all', '"off"', '""'].map(access), ['loopback', 'all', 'off', 'loopback']);
    assert.throws(() => access('public'), /kubeProxyIpvs\.statusAccess.*loopback, all, off/);
  });
});

describe('kubeProxyIpvs.events', () => {
  const events = (value: string): string =>
    loadConfigText(`${HEAD}kubeProxyIpvs: { events: ${value} }`, 'test').config.events;

  test('is none, node or all; nothing means none', () => {
    assert.deepEqual(['none', 'node', 'all', '""'].map(events), ['none', 'node', 'all', 'none']);
    assert.throws(() => events('service'), /kubeProxyIpvs\.events.*none, node, all/);
  });
});

describe('kubeProxyIpvs.vips', () => {
  const vips = (value: string): string =>
    loadConfigText(`${HEAD}kubeProxyIpvs: { vips: ${value} }`, 'test').config.vips;

  test('is addresses unless it is routes, and nothing else', () => {
    assert.deepEqual(
      [vips('addresses'), vips('routes'), loadConfigText(HEAD, 'test').config.vips],
      [...['addresses', 'routes', 'addresses']],
    );
    assert.throws(() => vips('both'), /kubeProxyIpvs\.vips.*addresses, routes/);
  });
});
