// test-kernel: mem=2G timeout=600
/**
 * SIGTERM in the middle of the first sync of a large cluster: the process is gone in two seconds, and the next goes on.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { after, before } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { scaleCluster } from '../fakes/cluster-generator.js';
import { type Daemon } from './harness/daemon.js';
import { shell } from './harness/kernel-state.js';
import { patience, waitUntil } from './harness/wait.js';
import { node } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const SERVICES = 8000;
const LIMIT_MS = patience(2000);

const step = steps();
let rig: Rig;
let config: string;

before(async () => {
  await shell(`
    modprobe -q ipv6 || true; modprobe dummy; modprobe ip_vs
    ip link add eth0 type dummy && ip link set eth0 up && ip addr add 10.200.0.2/24 dev eth0`);
  rig = await Rig.create([node(), ...scaleCluster({ services: SERVICES, endpointsPerService: 10 })]);
  config = rig.config();
});

after(() => rig.close());

/** Virtual servers in the kernel. */
function tableSize(): number {
  return readFileSync('/proc/net/ip_vs', 'latin1').match(/^TCP /gm)?.length ?? 0;
}

/** True when some virtual servers are there; reads the table's beginning alone, which takes no time from the sync. */
function hasBegun(): boolean {
  const beginning = Buffer.alloc(4096);
  const file = openSync('/proc/net/ip_vs', 'r');
  const length = readSync(file, beginning, 0, beginning.length, 0);
  closeSync(file);
  return /^TCP /m.test(beginning.toString('latin1', 0, length));
}

async function stopped(daemon: Daemon): Promise<number> {
  const start = performance.now();
  const { code } = await daemon.stop('SIGTERM');
  assert.equal(code, 0, daemon.tail(5));
  return performance.now() - start;
}

step('during the first sync', async () => {
  // A machine that has other work may let the sync end before the signal is sent: then once more, from an empty table.
  for (let round = 1; ; round++) {
    const daemon = rig.launch(['--config', config]);
    const end = performance.now() + 120_000;
    while (!hasBegun()) {
      assert.ok(performance.now() < end, `no virtual server came\n${daemon.tail(5)}`);
      await sleep(5);
    }
    const ms = await stopped(daemon);
    const written = tableSize();
    console.log(
      `ended ${Math.round(ms)} ms after SIGTERM, with ${written} of ${SERVICES} virtual servers in the kernel`,
    );
    assert.ok(ms < LIMIT_MS, `${ms} ms`);
    if (written < SERVICES) return;
    assert.ok(round < 10, 'the sync was over before the signal came, ten times');
    await shell('ipvsadm -C');
  }
});

step('while it adopts and finishes what the first one left', async () => {
  const daemon = rig.launch(['--config', config]);
  await daemon.waitForLog('the caches', ({ msg }) => msg === 'caches synced');
  await sleep(50);
  const ms = await stopped(daemon);
  console.log(`ended ${Math.round(ms)} ms after SIGTERM`);
  assert.ok(ms < LIMIT_MS, `${ms} ms`);
});

step('the next start takes over what is there and makes the rest', async () => {
  await rig.start(config);
  assert.equal(tableSize(), SERVICES);
  const { log } = rig.daemon;
  await waitUntil('health', async () => (await rig.health()).status === 200);
  assert.deepEqual(
    log.filter(({ msg }) => msg.includes('failed')),
    [],
  );
});
