/**
 * `npm run demo`, inside the test kernel: the daemon serves deploy/demo/*.yaml, a client asks, a backend goes away.
 * Ends with exit code 0 only when everything that it shows is as it should be.
 */
import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, type Histogram, type Target } from './harness/agent.js';
import { Daemon } from './harness/daemon.js';
import { ipvsRules, realServerWeights, run } from './harness/kernel-state.js';
import { Lab, NODE } from './harness/lab.js';
import { OUTSIDE, type PodSpec } from './harness/layout.js';
import { waitUntil } from './harness/wait.js';

const PODS: readonly PodSpec[] = [
  { name: 'web-1', addresses: ['10.128.0.11', 'fd00:10:128::11'] },
  { name: 'web-2', addresses: ['10.128.0.12', 'fd00:10:128::12'] },
  { name: 'web-3', addresses: ['10.128.1.13', 'fd00:10:128:1::13'], place: 'other' },
  { name: 'dns-1', addresses: ['10.128.0.21', 'fd00:10:128::21'] },
  { name: 'dns-2', addresses: ['10.128.1.22', 'fd00:10:128:1::22'], place: 'other' },
];
const CLIENT = 'client';

function title(text: string): void {
  console.log(`\n\x1b[1m== ${text}\x1b[0m`);
}

async function startServers(lab: Lab): Promise<void> {
  for (const { name, addresses } of PODS) {
    for (const address of addresses) {
      const ports = name.startsWith('dns') ? [5353] : [8080, 8443, 9090];
      for (const port of ports) await lab.agent.serve(name, { protocol: 'TCP', address, port, by: name });
      if (name.startsWith('dns')) await lab.agent.serve(name, { protocol: 'UDP', address, port: 5353, by: name });
    }
  }
}

/** Types a command of the program, as somebody does who looks after the node. */
async function type(directory: string, ...command: string[]): Promise<string> {
  const config = join(directory, 'config/kube-proxy.yaml');
  const text = await run(process.execPath, `${ROOT}dist/main.js`, ...command, '--config', config);
  console.log(`$ kube-proxy-ipvs ${command.join(' ')}\n${text.trimEnd()}`);
  return text;
}

async function ask(lab: Lab, from: string, count: number, what: string, target: Target): Promise<Histogram> {
  const counts = await lab.agent.many(from, count, target);
  const address = target.address.includes(':') ? `[${target.address}]` : target.address;
  const results = Object.entries({ ...counts.by, ...counts.failed })
    .sort()
    .map(([name, times]) => `${name} ${times}x`);
  const source = Object.keys(counts.seen).join(', ');
  const place = `${from === OUTSIDE ? 'outside host' : from === NODE ? 'the node' : 'client pod'}`;
  const asked = `${count} x ${target.protocol} ${address}:${target.port}`;
  console.log(
    `${place.padEnd(13)}${asked.padEnd(32)} ${what.padEnd(34)} -> ${results.join(', ')}${source && `  (source seen: ${source})`}`,
  );
  return counts;
}

async function showRequests(lab: Lab): Promise<void> {
  const tcp = { protocol: 'TCP', port: 80 } as const;
  const web = await ask(lab, CLIENT, 12, 'shop/web', { ...tcp, address: '10.96.0.20' });
  assert.deepEqual(web.by, { 'web-1': 4, 'web-2': 4, 'web-3': 4 });
  const web6 = await ask(lab, CLIENT, 12, 'shop/web, IPv6', { ...tcp, address: 'fd00:96::20' });
  assert.deepEqual(web6.by, { 'web-1': 4, 'web-2': 4, 'web-3': 4 });
  const dns = await ask(lab, CLIENT, 6, 'kube-system/dns, UDP', { protocol: 'UDP', address: '10.96.0.10', port: 53 });
  assert.deepEqual(dns.by, { 'dns-1': 3, 'dns-2': 3 });
  const node = await ask(lab, NODE, 6, 'shop/web, from the node', { ...tcp, address: '10.96.0.20' });
  assert.equal(node.answered, 6);
  const cart = await ask(lab, CLIENT, 6, 'shop/cart, session affinity', { ...tcp, address: '10.96.0.30' });
  assert.equal(Object.keys(cart.by).length, 1);
  const https = { protocol: 'TCP', port: 443 } as const;
  const gateway = await ask(lab, OUTSIDE, 6, 'shop/gateway, load balancer', { ...https, address: '192.0.2.40' });
  assert.equal(gateway.answered, 6);
  const port = { ...https, address: '10.200.0.2', port: 30443 };
  assert.equal((await ask(lab, OUTSIDE, 6, 'shop/gateway, node port', port)).answered, 6);
  const batch = await ask(lab, CLIENT, 1, 'shop/batch, no endpoints', { ...tcp, address: '10.96.0.50' });
  assert.deepEqual(batch.failed, { refused: 1 });
}

/** Sets the endpoint's `ready` to false in the manifest, as the API server has it after a failing readiness probe. */
async function makeUnready(directory: string, address: string): Promise<void> {
  const path = join(directory, 'web.yaml');
  const before = await readFile(path, 'utf8');
  const line = `- addresses: [${address}]\n    conditions: { ready: `;
  const after = before.replace(`${line}true`, `${line}false`);
  assert.notEqual(after, before);
  await writeFile(path, after);
}

async function showChange(lab: Lab, directory: string): Promise<void> {
  const web2 = 'TCP 10.96.0.20:80 -> 10.128.0.12:8080 1';
  assert.equal((await realServerWeights()).includes(web2), true);
  await makeUnready(directory, '10.128.0.12');
  const begun = performance.now();
  await waitUntil('the table without web-2', async () => !(await realServerWeights()).includes(web2));
  console.log(`(the table followed within ${Math.round(performance.now() - begun)} ms of the file's change)`);
  assert.match(await type(directory, 'backends', 'shop/web'), /10\.128\.0\.12:8080 .* not ready$/m);
  console.log('(weight 0: it keeps the connections that it has, gets no new ones, and is deleted when they are gone)');
  const counts = await ask(lab, CLIENT, 12, 'shop/web', { protocol: 'TCP', address: '10.96.0.20', port: 80 });
  assert.deepEqual(counts.by, { 'web-1': 6, 'web-3': 6 });
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'demo-'));
  await cp(join(ROOT, 'deploy/demo'), directory, { recursive: true });
  const lab = await Lab.create({ pods: [{ name: CLIENT, addresses: ['10.128.0.10', 'fd00:10:128::10'] }, ...PODS] });
  await startServers(lab);

  title("the daemon's log (kube-proxy-ipvs --config deploy/demo/config/kube-proxy.yaml --manifests deploy/demo)");
  const config = join(directory, 'config/kube-proxy.yaml');
  const daemon = new Daemon({
    args: ['--config', config, '--manifests', directory],
    onLine: (line) => console.log(line),
  });
  await daemon.waitForLog('the first sync', ({ msg }) => /\bsynced\b/.test(msg) && !msg.includes('caches'));
  await daemon.waitForLog('the rules', ({ msg }) => msg.includes('rules written'));
  const rules = await ipvsRules();
  assert.equal(rules.includes('-a -t [fd00:96::20]:80 -r [fd00:10:128:1::13]:8080 -m -w 1'), true);
  assert.equal(rules.filter((rule) => rule.startsWith('-A')).length, 11);

  title('the IPVS table (ipvsadm -Ln), Service names beside it');
  assert.match(await type(directory, 'table'), /^TCP {2}10\.96\.0\.20:80 .* # shop\/web:http$/m);
  title('kube-ipvs0: the addresses that make the node accept the packets');
  console.log((await run('ip', '-o', 'addr', 'show', 'dev', 'kube-ipvs0')).replace(/\\.*$/gm, '').trimEnd());
  title('requests, and who answered them');
  await showRequests(lab);
  title('one backend of shop/web goes away (web-2 is no longer ready)');
  await showChange(lab, directory);
  title('SIGTERM: the daemon goes, the data plane stays');
  const exit = await daemon.stop('SIGTERM');
  console.log(`exit code ${exit.code ?? exit.signal}`);
  assert.equal(exit.code, 0);
  const after = await ask(lab, CLIENT, 6, 'shop/web, without the daemon', {
    protocol: 'TCP',
    address: '10.96.0.20',
    port: 80,
  });
  assert.equal(after.answered, 6);
  lab.close();
  console.log('\ndemo: all as expected');
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.stack : error);
  process.exit(1);
});
