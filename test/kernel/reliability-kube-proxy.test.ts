// test-kernel: timeout=400 seconds=75 waits
/** A kube-proxy that runs on the node, too: seen by its process, and by the chain that it makes again and again. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { loadModules, run, shell } from './harness/kernel-state.js';
import { patience, waitUntil } from './harness/wait.js';
import { type ServiceSpec, node, serviceWithEndpoints } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const WEB: ServiceSpec = { name: 'web', address: '10.96.1.1', port: 80 };

const step = steps();
let rig: Rig;
let config: string;
let other: ChildProcess | undefined;
let isMaking = true;

before(async () => {
  loadModules('ipv6', 'ip_vs');
  rig = await Rig.create([node(), ...serviceWithEndpoints(WEB, ['10.128.0.11'])]);
  config = rig.config({}, { syncPeriod: '2s' });
});

after(async () => {
  isMaking = false;
  other?.kill('SIGKILL');
  await rig.close();
});

async function seenBy(): Promise<string> {
  const scrape = await rig.scrape();
  const sources = ['process', 'port', 'rules'];
  return sources.filter((seen_by) => scrape.sum('kubeproxy_ipvs_kube_proxy_running', { seen_by }) > 0).join();
}

const warnings = (): number =>
  rig.daemon.log.filter(({ msg }) => msg.startsWith('kube-proxy runs on this node')).length;

step('its process is named by preflight, the log, the status page and the metric; ours is not one', async () => {
  const clean = await rig.command('preflight', '--config', config);
  assert.match(clean.output, /ok {3}kube-proxy: none is seen/);
  const program = join(rig.directory, 'kube-proxy');
  copyFileSync((await run('sh', '-c', 'command -v sleep')).trim(), program);
  await shell(`chmod 755 ${program}`);
  other = spawn(program, ['600']);
  const seen = new RegExp(`process ${other.pid} \\(${program} 600\\)`);
  const preflight = await rig.command('preflight', '--config', config);
  assert.match(preflight.output, /WARN kube-proxy: runs on this node: /);
  assert.match(preflight.output, seen);
  await rig.start(config);
  await waitUntil('the metric', async () => (await seenBy()) === 'process');
  assert.match((await rig.status()).notes, seen);
  assert.equal(warnings(), 1);
});

step(
  'when it has ended, that is seen, too; and beside the running daemon preflight takes nobody for kube-proxy',
  async () => {
    other!.kill('SIGKILL');
    await waitUntil('the end of it', async () => (await seenBy()) === '', patience(120_000));
    assert.doesNotMatch((await rig.status()).notes, /kube-proxy runs/);
    const { output } = await rig.command('preflight', '--config', config);
    assert.match(output, /ok {3}kube-proxy: none is seen/);
  },
);

step('a chain of its that comes back whenever it is removed is a sign without hostPID', async () => {
  const making = (async () => {
    while (isMaking) await shell('$IPTABLES -w -t mangle -N KUBE-PROXY-CANARY 2>/dev/null || true; sleep 1');
  })();
  await waitUntil('the metric', async () => (await seenBy()) === 'rules', patience(150_000));
  assert.match((await rig.status()).notes, /KUBE-PROXY-CANARY comes back/);
  assert.equal(warnings(), 2);
  isMaking = false;
  await making;
});
