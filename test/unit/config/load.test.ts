import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ConfigError } from '../../../src/config/errors.js';
import { loadConfigFile, loadConfigText } from '../../../src/config/load.js';
import { type ConfigOverrides } from '../../../src/config/resolve.js';
import { parseAddress } from '../../../src/values/address.js';
import { formatPrefix } from '../../../src/values/prefix.js';

const HEAD = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';

/** What kubeadm 1.3x writes into the ConfigMap kube-proxy, mode set to ipvs by the user. */
const KUBEADM = `${HEAD}bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack: { maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null,
  tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s }
detectLocal: { bridgeInterface: "", interfaceNamePrefix: "" }
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: { localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s }
ipvs: { excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s,
  tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s }
logging: { flushFrequency: 0, options: { json: { infoBufferSize: "0" }, text: { infoBufferSize: "0" } }, verbosity: 0 }
metricsBindAddress: ""
mode: ipvs
nftables: { masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s }
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: { enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: "" }
`;

/** What EKS writes into the ConfigMap kube-proxy-config, switched to ipvs. */
const EKS = `${HEAD}bindAddress: 0.0.0.0
clientConnection:
  acceptContentTypes: ""
  burst: 10
  contentType: application/vnd.kubernetes.protobuf
  kubeconfig: /var/lib/kube-proxy/kubeconfig
  qps: 5
clusterCIDR: ""
configSyncPeriod: 15m0s
conntrack: { maxPerCore: 32768, min: 131072, tcpCloseWaitTimeout: 1h0m0s, tcpEstablishedTimeout: 24h0m0s }
enableProfiling: false
healthzBindAddress: 0.0.0.0:10256
hostnameOverride: ""
iptables: { masqueradeAll: false, masqueradeBit: 14, minSyncPeriod: 0s, syncPeriod: 30s }
ipvs: { excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "rr", syncPeriod: 30s }
metricsBindAddress: 0.0.0.0:10249
mode: "ipvs"
nodePortAddresses: null
oomScoreAdj: -998
portRange: ""
udpIdleTimeout: 250ms
`;

function load(yaml: string, overrides: ConfigOverrides = {}) {
  return loadConfigText(HEAD + yaml, 'test.yaml', overrides);
}

function problemsOf(yaml: string, overrides: ConfigOverrides = {}): string[] {
  try {
    load(yaml, overrides);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.message.split('\n').length, error.problems.length, 'one line per problem');
    return error.problems.map((problem) => problem.path);
  }
  assert.fail('the configuration was accepted');
}

describe('KubeProxyConfiguration', () => {
  it("takes kubeadm's ConfigMap without a warning and fills in kube-proxy's defaults", () => {
    const { config, warnings } = loadConfigText(KUBEADM, 'kubeadm');
    assert.deepEqual(warnings, []);
    assert.equal(config.kubeconfig, '/var/lib/kube-proxy/kubeconfig.conf');
    assert.equal(config.hostnameOverride, undefined);
    assert.deepEqual(config.healthzBindAddress, { host: '0.0.0.0', port: 10256 });
    assert.deepEqual(config.metricsBindAddress, { host: '127.0.0.1', port: 10249 });
    assert.equal(config.syncPeriodMs, 30_000);
    assert.equal(config.minSyncPeriodMs, 0);
    assert.equal(config.configSyncPeriodMs, 900_000);
    assert.equal(config.drainTimeoutMs, 0);
    assert.equal(config.scheduler, 'rr');
    assert.equal(config.masqueradeBit, 14);
    assert.equal(config.oomScoreAdj, -999);
    assert.equal(config.logLevel, 'info');
    assert.deepEqual(config.conntrack, {
      maxPerCore: 32_768,
      min: 131_072,
      tcpEstablishedTimeoutMs: 86_400_000,
      tcpCloseWaitTimeoutMs: 3_600_000,
      tcpBeLiberal: false,
      udpTimeoutMs: undefined,
      udpStreamTimeoutMs: undefined,
    });
    assert.deepEqual(config.nodePortAddresses[4], { all: true, primary: false, cidrs: [] });
    assert.equal(config.detectLocal.mode, 'ClusterCIDR');
    assert.ok(config.detectLocal.mode === 'ClusterCIDR');
    assert.deepEqual(config.detectLocal.cidrs[4].map(formatPrefix), ['10.244.0.0/16']);
    assert.deepEqual(config.detectLocal.cidrs[6].map(formatPrefix), ['fd00:10:244::/56']);
  });

  it('accepts Service traffic against a firewall only where that is asked for', () => {
    assert.equal(loadConfigText(KUBEADM, 'kubeadm').config.acceptServiceTraffic, false);
    const { config, warnings } = load('clusterCIDR: 10.0.0.0/8\nkubeProxyIpvs: {acceptServiceTraffic: true}');
    assert.deepEqual([config.acceptServiceTraffic, warnings], [true, []]);
    assert.deepEqual(problemsOf('kubeProxyIpvs: {acceptServiceTraffic: "yes"}'), [
      'kubeProxyIpvs.acceptServiceTraffic',
    ]);
  });

  it('has metrics by Service only where they are asked for, and no more than a thousand', () => {
    assert.equal(loadConfigText(KUBEADM, 'kubeadm').config.serviceMetrics, 0);
    const asked = (value: string): string => `clusterCIDR: 10.0.0.0/8\nkubeProxyIpvs: {serviceMetrics: ${value}}`;
    assert.equal(load(asked('1000')).config.serviceMetrics, 1000);
    assert.deepEqual(
      [load(asked('0')), load(asked('1'))].map(({ config }) => config.estimation),
      ['auto', 'on'],
    );
    for (const wrong of ['1001', '-1', '1.5', '"all"'])
      assert.deepEqual(problemsOf(asked(wrong)), ['kubeProxyIpvs.serviceMetrics'], wrong);
  });

  it("takes the EKS ConfigMap; an empty clusterCIDR is worth kube-proxy's warning", () => {
    const { config, warnings } = loadConfigText(EKS, 'eks');
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]!, /^clusterCIDR is empty/);
    assert.equal(config.oomScoreAdj, -998);
    assert.deepEqual(config.metricsBindAddress, { host: '0.0.0.0', port: 10249 });
  });

  it('binds to IPv6 when bindAddress is IPv6, and adds missing ports', () => {
    const { config } = load('bindAddress: "::"\nclusterCIDR: fd00::/48');
    assert.deepEqual(config.healthzBindAddress, { host: '::', port: 10256 });
    assert.deepEqual(config.metricsBindAddress, { host: '::1', port: 10249 });
    const given = load('healthzBindAddress: 192.0.2.1\nmetricsBindAddress: "[fd00::1]"').config;
    assert.deepEqual(given.healthzBindAddress, { host: '192.0.2.1', port: 10256 });
    assert.deepEqual(given.metricsBindAddress, { host: 'fd00::1', port: 10249 });
  });

  it('takes the periods from ipvs or from the top level, the top level winning with a warning', () => {
    const nested = load('ipvs: {syncPeriod: 1m0s, minSyncPeriod: 5s}').config;
    assert.deepEqual([nested.syncPeriodMs, nested.minSyncPeriodMs], [60_000, 5_000]);
    const top = load('syncPeriod: 10s\nminSyncPeriod: 100ms\nclusterCIDR: 10.0.0.0/8').config;
    assert.deepEqual([top.syncPeriodMs, top.minSyncPeriodMs], [10_000, 100]);
    const both = load('syncPeriod: 10s\nclusterCIDR: 10.0.0.0/8\nipvs: {syncPeriod: 20s}');
    assert.equal(both.config.syncPeriodMs, 10_000);
    assert.deepEqual(both.warnings, [
      'syncPeriod at the top level differs from ipvs.syncPeriod; the top level is used',
    ]);
    assert.deepEqual(problemsOf('ipvs: {syncPeriod: 1s, minSyncPeriod: 2s}'), ['ipvs.minSyncPeriod']);
  });

  it('warns of unknown fields with their path and uses the rest', () => {
    const { config, warnings } = load(
      'clusterCIDR: 10.0.0.0/8\nipvs: {schedulr: lc, scheduler: lc}\ncolour: red\nconntrack: {max: 4}',
    );
    assert.equal(config.scheduler, 'lc');
    assert.deepEqual([...warnings].sort(), [
      'unknown field colour is ignored (line 5)',
      'unknown field conntrack.max is ignored (line 6)',
      'unknown field ipvs.schedulr is ignored (line 4)',
    ]);
  });

  it('refuses wrong values with path, value and what is allowed, all at once', () => {
    const yaml = `
ipvs: {scheduler: fastest, tcpTimeout: 10ms, excludeCIDRs: [10.0.0.0/8, nonsense], strictARP: "yes"}
iptables: {masqueradeBit: 32}
conntrack: {maxPerCore: -1, udpTimeout: 5}
oomScoreAdj: 2000
bindAddress: 300.1.1.1
detectLocalMode: Guess
nodePortAddresses: [10.0.0.1]
unknownToo: 1
`;
    assert.deepEqual(problemsOf(yaml).sort(), [
      'bindAddress',
      'conntrack.maxPerCore',
      'conntrack.udpTimeout',
      'detectLocalMode',
      'iptables.masqueradeBit',
      'ipvs.excludeCIDRs[1]',
      'ipvs.scheduler',
      'ipvs.strictARP',
      'ipvs.tcpTimeout',
      'nodePortAddresses[0]',
      'oomScoreAdj',
    ]);
    assert.throws(() => load('ipvs: {scheduler: fastest}'), {
      message: /^test\.yaml:3: ipvs\.scheduler: "fastest" is not allowed; allowed: rr, wrr, .*mh.*$/,
    });
    assert.throws(() => load('iptables: {masqueradeBit: 32}'), { message: /: 32 is not .* an integer from 0 to 31$/ });
  });

  it('checks what is right of a document whatever else is wrong in it', () => {
    const yaml = `
conntrack: {min: abc, colour: red}
clusterCIDR: nonsense
healthzBindAddress: localhost
iptables: 5
nodePortAddresses: [10.0.0.0/8, nonsense, 300.0.0.0/8]
ipvs: {tcpTimeout: 10ms, excludeCIDRs: [a, 10.0.0.0/8, b]}
`;
    assert.deepEqual(problemsOf(yaml).sort(), [
      'clusterCIDR',
      'conntrack.min',
      'healthzBindAddress',
      'iptables',
      'ipvs.excludeCIDRs[0]',
      'ipvs.excludeCIDRs[2]',
      'ipvs.tcpTimeout',
      'nodePortAddresses[1]',
      'nodePortAddresses[2]',
    ]);
    assert.throws(
      () => load(yaml),
      (error) => {
        assert.ok(error instanceof ConfigError);
        assert.deepEqual(error.warnings, ['unknown field conntrack.colour is ignored (line 4)']);
        return true;
      },
    );
  });

  it('does not blame a field for the default that stands in for a wrong one', () => {
    assert.deepEqual(problemsOf('syncPeriod: often\nminSyncPeriod: 1m'), ['syncPeriod']);
    assert.deepEqual(problemsOf('ipvs: {syncPeriod: 7, minSyncPeriod: 1m}'), ['ipvs.syncPeriod']);
    assert.deepEqual(problemsOf('detectLocalMode: Guess\nclusterCIDR: none'), ['detectLocalMode']);
    const bridge = 'detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: 5}';
    assert.deepEqual(problemsOf(bridge), ['detectLocal.bridgeInterface']);
  });

  it('says on which line a problem stands', () => {
    const yaml = `
ipvs:
  scheduler: rr
  excludeCIDRs:
    - 10.0.0.0/8
    - nonsense
conntrack:
  min: -1
`;
    assert.throws(() => load(yaml), {
      message:
        /^test\.yaml:8: ipvs\.excludeCIDRs\[1\]: "nonsense" .*\ntest\.yaml:10: conntrack\.min: -1 is not allowed/,
    });
    assert.throws(() => loadConfigText('a: 1\nb: [\n', 'bad'), { message: /^bad:3: not valid YAML: / });
    assert.throws(() => loadConfigText('', 'bad'), {
      message: 'bad: it is empty; a KubeProxyConfiguration is expected',
    });
    assert.throws(() => loadConfigText(`${HEAD}---\n${HEAD}`, 'bad'), {
      message: 'bad: it holds 2 KubeProxyConfigurations; one is expected',
    });
  });

  it("refuses 'primary' beside other nodePortAddresses, as kube-proxy does", () => {
    assert.deepEqual(problemsOf('nodePortAddresses: [primary, 10.0.0.0/8]'), ['nodePortAddresses[0]']);
    assert.deepEqual(problemsOf('nodePortAddresses: [fd00::/8, primary]'), ['nodePortAddresses[1]']);
    assert.deepEqual(problemsOf('nodePortAddresses: [primary, primary]'), ['nodePortAddresses[0]']);
  });

  it('cuts durations to what a timer can hold: a longer one would fire without a pause', () => {
    const { config, warnings } = load(
      'clusterCIDR: 10.0.0.0/8\nsyncPeriod: 1000h\nminSyncPeriod: 700h\nconfigSyncPeriod: 2562047h\n' +
        'kubeProxyIpvs: {drainTimeout: 597h}',
    );
    const periods = [config.syncPeriodMs, config.minSyncPeriodMs, config.configSyncPeriodMs, config.drainTimeoutMs];
    assert.deepEqual(periods, Array<number>(4).fill(2 ** 31 - 1));
    assert.equal(warnings.length, 4);
    assert.match(
      warnings.join('\n'),
      /^syncPeriod: 1000h0m0s is longer than a timer can be; 596h31m23\.647s is used$/m,
    );
    assert.deepEqual(load('clusterCIDR: 10.0.0.0/8\nsyncPeriod: 596h').warnings, []);
  });

  it('refuses wrong combinations', () => {
    assert.deepEqual(problemsOf('clusterCIDR: 10.0.0.0/8,10.1.0.0/16'), ['clusterCIDR']);
    assert.deepEqual(problemsOf('clusterCIDR: 10.0.0.0/8,,'), ['clusterCIDR']);
    assert.deepEqual(problemsOf('detectLocalMode: BridgeInterface'), ['detectLocal.bridgeInterface']);
    assert.deepEqual(problemsOf('detectLocalMode: InterfaceNamePrefix'), ['detectLocal.interfaceNamePrefix']);
    assert.deepEqual(problemsOf('detectLocal: {bridgeInterface: sixteen-letters-}'), ['detectLocal.bridgeInterface']);
    assert.deepEqual(problemsOf('healthzBindAddress: localhost:1\nmetricsBindAddress: 127.0.0.1:0'), [
      'healthzBindAddress',
      'metricsBindAddress',
    ]);
    assert.deepEqual(problemsOf('ipvs: {udpTimeout: 500ms}'), ['ipvs.udpTimeout']);
  });

  it('refuses other modes, kinds and versions, and says so for a whole ConfigMap', () => {
    assert.deepEqual(problemsOf('mode: iptables'), ['mode']);
    assert.equal(load('mode: ""\nclusterCIDR: 10.0.0.0/8').warnings.length, 0);
    assert.throws(() => loadConfigText('kind: ConfigMap\napiVersion: v1\ndata: {}', 'cm'), {
      message:
        /^cm:1: kind: "ConfigMap" .*; give the file inside the ConfigMap.*\ncm:2: apiVersion: "v1" is not allowed/,
    });
    for (const text of ['', '[]', '42', 'a: [', 'a: 1\na: 2', '%', `${HEAD}---\n${HEAD}`]) {
      assert.throws(() => loadConfigText(text, 'bad'), ConfigError, JSON.stringify(text));
    }
  });

  it('resists alias bombs and prototype keys', () => {
    const bomb = ['a: &a [x,x,x,x,x,x,x,x,x]'];
    for (const [name, previous] of ['ba', 'cb', 'dc', 'ed', 'fe', 'gf'].map((pair) => [...pair])) {
      bomb.push(`${name}: &${name} [${`*${previous},`.repeat(9)}]`);
    }
    assert.throws(() => loadConfigText(bomb.join('\n'), 'bomb'), ConfigError);
    const { warnings } = load('clusterCIDR: 10.0.0.0/8\n__proto__: {mode: iptables}\nconstructor: 1');
    assert.equal(warnings.length, 2);
  });

  it('ignores documents of other kinds in the file, with a warning', () => {
    const { config, warnings } = loadConfigText(`kind: Other\n---\n${HEAD}clusterCIDR: 10.0.0.0/8\n---\n`, 'two');
    assert.equal(config.scheduler, 'rr');
    assert.deepEqual(warnings, ['a document of another kind is ignored: Other']);
  });

  it('splits nodePortAddresses by family; a family without any CIDR is served on all addresses', () => {
    const { config } = load('nodePortAddresses: [10.0.0.0/8, 10.1.2.3/8]\nclusterCIDR: 10.0.0.0/8');
    assert.deepEqual(config.nodePortAddresses[4].cidrs.map(formatPrefix), ['10.0.0.0/8']);
    assert.equal(config.nodePortAddresses[4].all, false);
    assert.equal(config.nodePortAddresses[6].all, true);
    const primary = load('nodePortAddresses: [primary]\nclusterCIDR: 10.0.0.0/8').config.nodePortAddresses;
    for (const family of [4, 6] as const) assert.deepEqual(primary[family], { all: false, primary: true, cidrs: [] });
  });

  it('takes bindAddress for the address of the node, unless it is unspecified', () => {
    const nodeIP = (text: string) => load(`clusterCIDR: 10.0.0.0/8\nbindAddress: "${text}"`).config.nodeIP;
    assert.equal(nodeIP('192.0.2.1'), parseAddress('192.0.2.1'));
    assert.equal(nodeIP('fd00::1'), parseAddress('fd00::1'));
    assert.deepEqual(['0.0.0.0', '::', ''].map(nodeIP), [undefined, undefined, undefined]);
  });

  it('takes numbers as far as the API, int32, and no further', () => {
    const burst = (value: string) => load(`clusterCIDR: 10.0.0.0/8\nclientConnection: {burst: ${value}}`);
    assert.deepEqual(burst('2147483647').warnings, []);
    for (const value of ['2147483648', '-1', '1.5'])
      assert.throws(() => burst(value), /clientConnection\.burst/, value);
  });

  it('knows the gate AllowServiceExternalIPs', () => {
    const gates = (text: string) => load(`clusterCIDR: 10.0.0.0/8\nfeatureGates: {${text}}`);
    const { config, warnings } = gates('AllowServiceExternalIPs: false');
    assert.deepEqual([config.allowsExternalIPs, warnings], [false, []]);
    assert.equal(gates('').config.allowsExternalIPs, true);
  });

  it('warns of feature gates that it does not have', () => {
    const { warnings } = load('clusterCIDR: 10.0.0.0/8\nfeatureGates: {NFTablesProxyMode: true, AllAlpha: false}');
    assert.deepEqual(warnings, ['featureGates.NFTablesProxyMode is ignored: this daemon has no such gate']);
  });

  it('lets the command line win, and an empty bind address switch a server off', () => {
    const { config } = load('hostnameOverride: a\nclusterCIDR: 10.0.0.0/8\nkubeProxyIpvs: {drainTimeout: 1m}', {
      hostnameOverride: ' Node-7 ',
      kubeconfig: '/k',
      master: 'https://api:6443',
      healthzBindAddress: '',
      metricsBindAddress: '0.0.0.0:9',
      logLevel: 'debug',
    });
    assert.equal(config.hostnameOverride, 'node-7');
    assert.equal(config.kubeconfig, '/k');
    assert.equal(config.master, 'https://api:6443');
    assert.equal(config.healthzBindAddress, undefined);
    assert.deepEqual(config.metricsBindAddress, { host: '0.0.0.0', port: 9 });
    assert.equal(config.logLevel, 'debug');
    assert.equal(config.drainTimeoutMs, 60_000);
    assert.equal(load('kubeProxyIpvs: {drainTimeout: 1m}', { drainTimeoutMs: 5 }).config.drainTimeoutMs, 5);
    assert.deepEqual(problemsOf('', { hostnameOverride: '  ' }), ['hostnameOverride']);
  });

  it('reads a file, and names the file that it cannot read', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'config-'));
    t.after(() => rm(directory, { recursive: true }));
    const path = join(directory, 'config.conf');
    await writeFile(path, KUBEADM);
    assert.equal((await loadConfigFile(path)).config.scheduler, 'rr');
    await assert.rejects(loadConfigFile(join(directory, 'absent')), (error) => {
      assert.ok(error instanceof ConfigError && error.cause instanceof Error);
      assert.match(error.message, /absent: it cannot be read: ENOENT/);
      return true;
    });
  });
});
