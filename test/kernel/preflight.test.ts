// test-kernel: timeout=300 seconds=30
/**
 * A node as it boots: what preflight and plan say of it without touching it, what --fix does, what the daemon then may
 * lack.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { ROOT } from './harness/agent.js';
import { iptablesBackend } from './harness/iptables-programs.js';
import { ipvsRules, kubeIpvs0Addresses, loadModules, run, shell } from './harness/kernel-state.js';
import { waitUntil } from './harness/wait.js';
import { steps } from './reliability-steps.js';

interface Check {
  readonly name: string;
  readonly state: 'ok' | 'todo' | 'warn' | 'failed';
  readonly detail: string;
}

const step = steps();
const directory = mkdtempSync(join(tmpdir(), 'preflight-'));
const config = join(directory, 'config.yaml');
writeFileSync(
  config,
  `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ipvs
clusterCIDR: 10.128.0.0/9
`,
);
writeFileSync(
  join(directory, 'shop.yaml'),
  `apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec: {clusterIPs: [10.96.4.4, 'fd00:96::4'], clusterIP: 10.96.4.4, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: '', port: 8080}]
endpoints: [{addresses: [10.128.3.3]}]
`,
);
let daemon: ChildProcess | undefined;

after(() => daemon?.kill('SIGKILL'));

const modules = (): string[] =>
  readFileSync('/proc/modules', 'latin1')
    .split('\n')
    .map((line) => line.split(' ', 1)[0]!)
    .sort();
const forwarding = (): string => readFileSync('/proc/sys/net/ipv4/ip_forward', 'latin1').trim();
/** NET_ADMIN and NET_RAW, as the container has. */
const AS_SHIPPED = ['setpriv', '--bounding-set=-all,+net_admin,+net_raw', '--inh-caps=-all,+net_admin,+net_raw'];

async function command(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const child = spawn(process.execPath, [`${ROOT}dist/main.js`, ...args]);
  const [out, err] = [child.stdout, child.stderr].map((stream) => {
    const chunks: string[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk.toString()));
    return chunks;
  });
  const code = await new Promise<number>((resolve) => child.on('close', (exit) => resolve(exit ?? -1)));
  return { code, out: out!.join(''), err: err!.join('') };
}

async function preflight(...args: string[]): Promise<{ code: number; checks: Check[] }> {
  const { code, out } = await command('preflight', '--config', config, '--json', ...args);
  return { code, checks: (JSON.parse(out) as { checks: Check[] }).checks };
}

const inState = (checks: readonly Check[], state: Check['state']): string[] =>
  checks.filter((check) => check.state === state).map(({ name }) => name);

step('preflight and plan look at a fresh node and change nothing: no module, no sysctl', async () => {
  const before = modules();
  assert.ok(!before.includes('ip_vs'), 'the test kernel is fresh');
  const { code, checks } = await preflight();
  assert.deepEqual(inState(checks, 'failed'), []);
  assert.equal(code, 0, 'nothing that --fix cannot set right');
  const todo = inState(checks, 'todo');
  for (const name of ['module ip_vs', 'module ip_vs_rr', 'sysctl net.ipv4.vs.conntrack', 'sysctl net.ipv4.ip_forward'])
    assert.ok(todo.includes(name), `${name} not in ${todo.join()}`);
  for (const name of ['plan', 'verify']) {
    const { code: refused, err } = await command(name, '--config', config, '--manifests', directory);
    assert.equal(refused, 1);
    assert.match(err, /would make the kernel load ip_vs, .*run preflight --fix/);
  }
  assert.deepEqual(modules(), before);
  assert.equal(forwarding(), '0');
});

step('preflight --fix with a scheduler that the kernel lacks: FAIL, and exit 1', async () => {
  writeFileSync(`${config}.twos`, readFileSync(config, 'utf8').concat('ipvs: {scheduler: twos}\n'));
  const { code, out } = await command('preflight', '--config', `${config}.twos`, '--fix');
  assert.equal(code, 1);
  assert.match(out, /^FAIL module ip_vs_twos: /m);
  const init = await command('--config', `${config}.twos`, '--init-only');
  assert.equal(init.code, 1, init.out);
});

step(
  'preflight --fix makes the node fit: modules of both families and of every table, sysctls; looking then agrees',
  async () => {
    loadModules('ipv6'); // without `shell`, which would try nf_tables out and so load it
    const { code, checks } = await preflight('--fix');
    assert.deepEqual([code, inState(checks, 'failed'), inState(checks, 'todo')], [0, [], []]);
    const loaded = modules();
    const tables = ['filter', 'nat', 'mangle'].flatMap((table) => [`iptable_${table}`, `ip6table_${table}`]);
    const ofRules = iptablesBackend() === 'nft' ? ['nf_tables'] : ['ip_tables', 'ip6_tables', ...tables];
    for (const name of ['ip_vs', 'ip_vs_rr', 'xt_set', ...ofRules])
      assert.ok(loaded.includes(name), `${name} is not loaded`);
    assert.equal(forwarding(), '1');
    const again = await preflight();
    assert.deepEqual([again.code, inState(again.checks, 'ok').length], [0, again.checks.length]);
    const { code: planned, out } = await command('plan', '--config', config, '--manifests', directory);
    assert.equal(planned, 0);
    assert.match(out, /add virtual server TCP 10\.96\.4\.4:80/);
  },
);

step('without NET_RAW or NET_ADMIN preflight says so, and blames nothing else', async () => {
  for (const [has, lacks] of [
    ['net_admin', 'NET_RAW'],
    ['net_raw', 'NET_ADMIN'],
  ] as const) {
    const only = `-all,+${has}`;
    const args = [`--bounding-set=${only}`, `--inh-caps=${only}`, process.execPath, `${ROOT}dist/main.js`, 'preflight'];
    const out = await run('sh', '-c', 'setpriv "$@"; echo "exit $?"', 'sh', ...args);
    assert.match(out, new RegExp(`^FAIL permissions: .*CAP_${lacks} is missing`, 'm'));
    assert.doesNotMatch(out, /load ip_tables|no iptables backend/);
    assert.match(out, /exit 1$/m);
  }
});

step(
  'a family whose iptables cannot be had is left out: IPv4 is served, /healthz is green, /status says why',
  async (context) => {
    if (iptablesBackend() === 'nft') {
      context.skip('SKIPPED: about iptables-legacy, nf_tables serves both families or none');
      return;
    }
    await shell(`
    ip6tables-legacy -t nat -F; rmmod ip6table_filter ip6table_nat ip6table_mangle ip6t_REJECT ip6_tables 2>/dev/null || true`);
    assert.ok(!modules().includes('ip6_tables'), 'ip6_tables is gone');
    const args = [process.execPath, `${ROOT}dist/main.js`, '--config', config, '--manifests', directory];
    daemon = spawn(AS_SHIPPED[0]!, [...AS_SHIPPED.slice(1), ...args], { stdio: 'inherit' });
    const fetched = async (url: string): Promise<{ status: number; text: string } | undefined> => {
      try {
        const response = await fetch(url);
        return { status: response.status, text: await response.text() };
      } catch {
        return undefined;
      }
    };
    await waitUntil('a green /healthz', async () => (await fetched('http://127.0.0.1:10256/healthz'))?.status === 200);
    await waitUntil('the IPv4 Service', async () => {
      const [servers, bound] = [await ipvsRules(), await kubeIpvs0Addresses()];
      return servers.some((line) => line.includes('10.96.4.4:80')) && bound.join().includes('10.96.4.4');
    });
    const addresses = (await kubeIpvs0Addresses()).join();
    assert.equal((await fetched('http://127.0.0.1:10256/healthz'))?.status, 200);
    assert.doesNotMatch(addresses, /fd00:96::4/, 'of a family that is left out');
    const status = await fetched('http://127.0.0.1:10249/status?format=json');
    assert.match(status!.text, /IPv6 is not served on this node: its iptables do not work/);
    const metrics = (await fetched('http://127.0.0.1:10249/metrics'))!.text;
    for (const [name, family, value] of [
      ['family_served', 'IPv4', 1],
      ['family_served', 'IPv6', 0],
      ['unserved_services', 'IPv4', 0],
      ['unserved_services', 'IPv6', 1],
    ] as const)
      assert.match(metrics, new RegExp(`^kubeproxy_ipvs_${name}\\{ip_family="${family}"\\} ${value}$`, 'm'), name);
  },
);
