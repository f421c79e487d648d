/** A kube-proxy beside this program is noticed and named, and this program is never taken for one. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { type AddressInfo, type Socket, createServer as createNetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { type Sign, lookForKubeProxy } from '../../../src/daemon/takeover/kube-proxy-signs.js';
import { KubeProxyWatch } from '../../../src/daemon/takeover/kube-proxy-watch.js';
import { findKubeProxy } from '../../../src/kernel/node/kube-proxy-process.js';
import { Drift } from '../../../src/reconcile/drift.js';
import { type HealthSource, healthHandler } from '../../../src/serve/health.js';
import { metricsHandler } from '../../../src/serve/metrics-server.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { type RulesOutcome } from '../../../src/reconcile/rules-keeper.js';
import { HandClock } from '../../fakes/hand-clock.js';

const ID = '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef';

/** A /proc of these processes. */
function procOf(
  t: TestContext,
  processes: Record<number, { comm: string; cmdline: string[]; cgroup?: string }>,
): string {
  const root = mkdtempSync(join(tmpdir(), 'proc-'));
  t.after(() => rmSync(root, { recursive: true }));
  writeFileSync(join(root, 'stat'), '');
  for (const [pid, { comm, cmdline, cgroup = '0::/' }] of Object.entries(processes)) {
    mkdirSync(join(root, pid));
    writeFileSync(join(root, pid, 'comm'), `${comm}\n`);
    writeFileSync(join(root, pid, 'cmdline'), cmdline.map((word) => `${word}\0`).join(''));
    writeFileSync(join(root, pid, 'cgroup'), `${cgroup}\n`);
  }
  return root;
}

describe('the process', () => {
  test('is found by its name, with its container, whatever the runtime', async (t) => {
    const command = ['/usr/local/bin/kube-proxy', '--config=/var/lib/kube-proxy/config.conf'];
    const cgroups = [
      `0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-${ID}.scope`,
      `0::/../../kubepods-pod1.slice/crio-${ID}.scope`,
      `12:cpu,cpuacct:/kubepods/besteffort/pod1/${ID}\n0::/`,
    ];
    for (const cgroup of cgroups)
      assert.deepEqual(await findKubeProxy(procOf(t, { 4711: { comm: 'kube-proxy', cmdline: command, cgroup } })), [
        { pid: 4711, command: command.join(' '), container: '0123456789ab' },
      ]);
    const bare = procOf(t, {
      12: { comm: 'kube-proxy', cmdline: ['kube-proxy'], cgroup: '0::/system.slice/kube-proxy.service' },
    });
    assert.deepEqual(await findKubeProxy(bare), [{ pid: 12, command: 'kube-proxy', container: undefined }]);
  });

  test('is none of ours, however that was started, and none that only has the word in its arguments', async (t) => {
    const root = procOf(t, {
      [process.pid]: { comm: 'kube-proxy', cmdline: ['kube-proxy'] },
      20: { comm: 'node', cmdline: ['node', '/usr/local/bin/kube-proxy', '--config=x'] },
      21: { comm: 'kube-proxy', cmdline: ['/usr/bin/env', '-S', 'node', '/usr/local/bin/kube-proxy'] },
      22: { comm: 'MainThread', cmdline: ['node', '/usr/local/bin/kube-proxy-ipvs'] },
      23: { comm: 'kube-proxy-ipvs', cmdline: ['/usr/local/bin/kube-proxy-ipvs'] },
      24: { comm: 'vim', cmdline: ['vim', 'kube-proxy'] },
      25: { comm: 'kube-proxy', cmdline: [] },
      26: { comm: 'pause', cmdline: ['/pause'] },
    });
    assert.deepEqual(await findKubeProxy(root), []);
    assert.deepEqual(await findKubeProxy('/nonexistent'), []);
  });
});

async function listen(t: TestContext, handler: RequestListener): Promise<number> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** As kube-proxy 1.36 answers. */
const REFERENCE: RequestListener = ({ url }, response) => {
  const answers: Record<string, string> = {
    '/healthz': '{"lastUpdated": "2026-11-21 04:07:13","currentTime": "2026-11-21 04:07:14", "nodeEligible": true}',
    '/livez': '{"lastUpdated": "2026-11-21 04:07:13","currentTime": "2026-11-21 04:07:14"}',
    '/proxyMode': 'iptables',
    '/metrics': '',
  };
  const body = answers[url ?? ''];
  response.statusCode = body === undefined ? 404 : 200;
  response.end(body ?? '404 page not found\n');
};

/** Signs by ports alone; the usual ports are those of this process. */
async function byPort(t: TestContext, healthz: number, metrics: number): Promise<string[]> {
  const signs = await lookForKubeProxy({
    healthzBindAddress: { host: '0.0.0.0', port: healthz },
    metricsBindAddress: { host: '127.0.0.1', port: metrics },
    ownPorts: new Set([10256, 10249]),
    procRoot: procOf(t, {}),
  });
  assert.ok(signs.every(({ source }) => source === 'port'));
  return signs.map(({ text }) => text);
}

describe('its ports', () => {
  test('what answers as kube-proxy does is one', async (t) => {
    const port = await listen(t, REFERENCE);
    assert.deepEqual(await byPort(t, port, port), [
      `what answers http://127.0.0.1:${port}/healthz as kube-proxy does`,
      `what answers http://127.0.0.1:${port}/proxyMode with iptables`,
    ]);
  });

  test('this program is none: this version, and one before it that did not say its name', async (t) => {
    const metrics = new Metrics({ version: '0' });
    t.after(() => metrics.close());
    const report = { healthy: true, nodeEligible: true, lastUpdated: new Date(), reasons: [], families: [] };
    const source: HealthSource = { healthz: () => report, livez: () => report, readyz: () => report };
    const health = healthHandler(source, metrics);
    const never = (): never => {
      throw new Error('not asked for');
    };
    const pages = metricsHandler({
      ...{ metrics: { contentType: 'text/plain', text: async () => '' }, status: never, inspection: never },
      ...{ configz: () => ({ kubeProxyIpvs: {} }), events: never, access: 'off' },
    } as unknown as Parameters<typeof metricsHandler>[0]);
    const nameless =
      (handler: RequestListener): RequestListener =>
      (request, response) => {
        const writeHead = response.writeHead.bind(response);
        response.writeHead = ((status: number, headers: Record<string, string>) => {
          const { Server: _name, ...others } = headers;
          return writeHead(status, others);
        }) as never;
        handler(request, response);
      };
    for (const wrap of [(handler: RequestListener) => handler, nameless]) {
      const ports = [await listen(t, wrap(health)), await listen(t, wrap(pages))] as const;
      assert.deepEqual(await byPort(t, ...ports), []);
    }
  });

  test('others are none: another program, one that hangs up, one that never ends, nobody', async (t) => {
    const ports = [
      await listen(t, (_request, response) => response.end('hello')),
      await listen(t, (_request, response) => void response.writeHead(404).end()),
      await listen(t, (request) => request.socket.destroy()),
      await listen(t, (_request, response) => {
        response.writeHead(404);
        const flood = (): void => void (response.write('x'.repeat(1000)) && setImmediate(flood));
        flood();
      }),
      1,
    ];
    for (const port of ports) assert.deepEqual(await byPort(t, port, port), []);
  });

  test('its own are not asked', async (t) => {
    let asked = 0;
    const port = await listen(t, (request, response) => {
      asked++;
      REFERENCE(request, response);
    });
    const address = { host: '127.0.0.1', port };
    const signs = await lookForKubeProxy({
      ...{ healthzBindAddress: address, metricsBindAddress: address },
      ownPorts: new Set([port, 10256, 10249]),
      procRoot: procOf(t, {}),
    });
    assert.deepEqual([signs, asked], [[], 0]);
  });
});

class WatchRig {
  readonly clock = new HandClock();
  readonly logged: string[] = [];
  readonly running = new Map<string, boolean>();
  seen: Sign[] = [];
  areTablesBack = false;
  looks = 0;
  readonly watch = new KubeProxyWatch({
    look: async () => {
      this.looks++;
      return this.seen;
    },
    areTablesBack: () => this.areTablesBack,
    clock: this.clock,
    random: () => 0.5,
    log: {
      warn: (text: string) => void this.logged.push(text),
      info: (text: string) => void this.logged.push(text),
    } as never,
    metrics: { kubeProxyRunning: (seenBy, isSeen) => void this.running.set(seenBy, isSeen) },
  });

  get seenBy(): string {
    return [...this.running].flatMap(([name, isSeen]) => (isSeen ? [name] : [])).join();
  }
}

/** A check of the rules that found its chain, which was not there before (`back`) or at the start. */
function canary(back: boolean): RulesOutcome {
  const drift = new Drift();
  if (back) drift.add('rule', 'extra', () => 'IPv4 mangle KUBE-PROXY-CANARY');
  const difference = { kind: 'extra', table: 'mangle', chain: 'KUBE-PROXY-CANARY', what: 'chain', family: 4 } as const;
  return { backend: 'iptables', differences: [difference], drift, error: undefined, family: 4, heldBack: [] };
}

describe('what an operator hears', () => {
  test('one log line, a note and a metric for as long as it lasts; then that it is gone', async () => {
    const rig = new WatchRig();
    assert.deepEqual(
      [...rig.running],
      [
        ['process', false],
        ['port', false],
        ['rules', false],
      ],
    );
    rig.seen = [{ source: 'process', text: 'process 4711 (kube-proxy)' }];
    rig.watch.start();
    await rig.clock.advance(0);
    for (let i = 0; i < 5; i++) await rig.clock.advance(60_000);
    assert.equal(rig.seenBy, 'process');
    assert.match(rig.watch.note!, /^kube-proxy runs on this node, too, .*: process 4711 \(kube-proxy\)\. Take it off/);
    assert.deepEqual(rig.logged, [rig.watch.note]);
    assert.equal(rig.looks, 6, 'about once a minute');
    rig.seen = [];
    await rig.clock.advance(60_000);
    assert.deepEqual([rig.seenBy, rig.watch.note], ['', undefined]);
    assert.deepEqual(rig.logged.slice(1), ['the other kube-proxy is gone']);
    await rig.watch.close();
    assert.equal(rig.clock.pending, 0);
  });

  test('its chain is a sign when it comes back again and again, not when it was left, nor once', async () => {
    const rig = new WatchRig();
    rig.watch.start();
    rig.watch.rulesChecked(canary(false));
    rig.watch.rulesChecked(canary(false));
    await rig.clock.advance(60_000);
    rig.watch.rulesChecked(canary(true));
    await rig.clock.advance(60_000);
    assert.equal(rig.seenBy, '', 'somebody loaded an old dump, perhaps');
    rig.watch.rulesChecked(canary(true));
    assert.equal(rig.seenBy, 'rules', 'at once');
    assert.match(rig.watch.note!, /KUBE-PROXY-CANARY comes back/);
    assert.deepEqual(rig.logged, [rig.watch.note]);
    await rig.clock.advance(60_000);
    assert.equal(rig.seenBy, 'rules');
    await rig.clock.advance(400_000);
    assert.equal(rig.seenBy, '', 'it came back no more');
    await rig.watch.close();
  });

  test('what a look saw stays when the rules tell, too, and is not said again', async () => {
    const rig = new WatchRig();
    rig.seen = [{ source: 'process', text: 'process 4711 (kube-proxy)' }];
    rig.watch.start();
    await rig.clock.advance(0);
    rig.watch.rulesChecked(canary(true));
    assert.equal(rig.seenBy, 'process');
    rig.watch.rulesChecked(canary(true));
    assert.equal(rig.seenBy, 'process,rules');
    assert.equal(rig.logged.length, 1, 'said once');
    await rig.watch.close();
    rig.watch.rulesChecked(canary(true));
  });

  test('the tables of its nftables mode are one when they are back', async () => {
    const rig = new WatchRig();
    rig.areTablesBack = true;
    rig.watch.start();
    await rig.clock.advance(0);
    assert.equal(rig.seenBy, 'rules');
    await rig.watch.close();
  });
});

test('a port that takes the connection and never answers is looked at for two seconds, and is no sign', async (t) => {
  const sockets: Socket[] = [];
  const silent = createNetServer((socket) => void sockets.push(socket));
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  const { port } = silent.address() as AddressInfo;
  const address = { host: '127.0.0.1', port };
  const others = new Set([10_249, 10_256]);
  const looked = lookForKubeProxy({
    healthzBindAddress: address,
    metricsBindAddress: address,
    ownPorts: others,
    procRoot: '/nonexistent',
  });
  const late = new Promise((resolve) => setTimeout(resolve, 30_000, 'it waits on').unref());
  assert.deepEqual(await Promise.race([looked, late]), []);
});
