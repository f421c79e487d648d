/**
 * Rounds of chaos: API events, API faults, vandalism in the kernel and kill -9 at once; then quiet, and the kernel must
 * be what the oracle makes of the API objects when one whole verification has run. The seed decides what happens in
 * which order; when exactly it strikes is the machine's business.
 */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FakeApiServer } from '../fakes/api-server.js';
import { ChaosApi } from './chaos-api.js';
import { Convergence } from './chaos-convergence.js';
import { type Comparison, type Foreign, type KernelState, compareKernel, readKernel } from './chaos-kernel.js';
import { type Expected, type RawObject, expectedState } from './chaos-oracle.js';
import { type Act, type Prey, anyAct, foreignSetup, pick, tableAct } from './chaos-vandal.js';
import { seededRandom } from '../fakes/cluster-generator.js';
import { Daemon } from './harness/daemon.js';
import { shell } from './harness/kernel-state.js';
import { nftTable } from './harness/rules-damage.js';
import { isNftables, rulesBackend, rulesUnderTest } from './harness/rules-under-test.js';
import { waitUntil } from './harness/wait.js';

export interface ChaosOptions {
  readonly seed: number;
  readonly services: number;
  /** Acts in one round. */
  readonly acts: number;
  readonly onLine: (line: string) => void;
}

export interface ChaosCounts {
  rounds: number;
  faults: number;
  compared: number;
  differences: number;
}

const NODE = 'node-0';
const NODE_IPS = ['10.200.0.2', 'fd00:200::2'];
const SYNC_PERIOD = process.env['CHAOS_SYNC_PERIOD'] ?? '2s';
const METRICS_PORT = 10249;
const LIMIT_MS = 60_000;
/** An empty kernel, whatever ran in it before. */
const WIPE = `modprobe ip_vs
modprobe sctp 2>/dev/null || true
ipvsadm -C
for link in kube-ipvs0 eth0; do ip link del $link 2>/dev/null || true; done
for program in $IPTABLES-restore $IP6TABLES-restore; do
  printf '*%s\\nCOMMIT\\n' nat filter mangle | $program
done
ipset destroy
${isNftables() ? [4, 6].map((family) => `nft delete table ${nftTable(family as 4 | 6)} 2>/dev/null || true`).join('\n') : ''}`;

export class Chaos {
  readonly counts: ChaosCounts = { rounds: 0, faults: 0, compared: 0, differences: 0 };
  readonly #random: () => number;
  readonly #server = new FakeApiServer({ bookmarkEveryMs: 1000, realObjects: true });
  readonly #api: ChaosApi;
  readonly #foreign: Foreign = { servers: new Set(), elements: new Set(), rules: new Set() };
  readonly #scheduler: string;
  readonly #directory = mkdtempSync(join(tmpdir(), 'chaos-'));
  #daemon: Daemon | undefined;
  /** Rules and chains as they were after a start on an empty kernel: they never depend on the Services. */
  #rules: KernelState['rules'] = new Map();
  #tracesErased = false;
  #history: string[] = [];
  readonly #repaired = new Map<Daemon, number>();

  constructor(readonly options: ChaosOptions) {
    this.#random = seededRandom(options.seed);
    this.#scheduler = pick(['rr', 'rr', 'wlc', 'sh', 'mh'], this.#random);
    this.#api = new ChaosApi(this.#server, options.seed, this.#random);
  }

  /** A node with its addresses, a cluster, things of others, and the daemon; the first state must be right. */
  async start(): Promise<void> {
    await shell(`${WIPE}
ip link add eth0 type dummy
ip addr add 10.200.0.2/24 dev eth0
ip addr add fd00:200::2/64 dev eth0 nodad
ip link set eth0 up
${foreignSetup(this.#foreign)}`);
    this.#api.createCluster(this.options.services);
    await this.#server.start();
    this.#writeConfig();
    await this.#startDaemon();
    await this.daemon.waitForLog('the first rules', ({ msg }) => msg === `${rulesBackend()} rules written`, LIMIT_MS);
    await this.#quiet();
    const state = await readKernel();
    this.#rules = new Map([...state.rules].map(([chain, rules]) => [chain, rules.filter(isNotForeign)]));
    await this.#converge();
  }

  /** One round; resolves to the differences that were left. */
  async round(): Promise<string[]> {
    this.counts.rounds++;
    this.#history = [];
    if (this.#random() < 0.6) await this.#killAndRestart();
    for (let i = 0; i < this.options.acts; i++) await this.#act();
    const { differences } = await this.#converge();
    this.#tracesErased = differences.length > 0;
    return differences;
  }

  async stop(): Promise<void> {
    const exit = await this.#daemon?.stop();
    await this.#server.stop();
    if (exit !== undefined && exit.code !== 0) throw new Error(`the daemon ended with ${JSON.stringify(exit)}`);
  }

  /** Differences that verifications repaired; what a killed daemon repaired since the last round ended is not known. */
  get repaired(): number {
    return [...this.#repaired.values()].reduce((sum, count) => sum + count, 0);
  }

  get daemon(): Daemon {
    if (this.#daemon === undefined) throw new Error('no daemon');
    return this.#daemon;
  }

  async #act(): Promise<void> {
    const dice = this.#random();
    if (dice < 0.4) this.#api.events(1 + Math.floor(this.#random() * 8));
    else if (dice < 0.52) this.#note(`api: ${await this.#api.fault()}`);
    else if (dice < 0.6) await this.#nodeAddress();
    else if (dice < 0.63 && !this.#tracesErased) await this.#killAndRestart();
    else if (dice < 0.66) await this.#freezeDaemon();
    else await this.#vandalise(anyAct(this.#prey()));
    if (this.daemon.exit !== undefined) throw new Error(`the daemon ended by itself\n${this.daemon.tail()}`);
  }

  #prey(): Prey {
    return { expected: this.#expected(), foreign: this.#foreign, random: this.#random };
  }

  /** Failing commands are part of it: what they were to remove may be gone already. */
  async #vandalise(act: Act | undefined): Promise<void> {
    if (act === undefined) return;
    this.#note(act.name);
    this.#tracesErased ||= act.erasesTraces === true;
    await shell(`{ ${act.script}\n} >/dev/null 2>&1 || true`);
  }

  async #killAndRestart(): Promise<void> {
    this.#note('kill -9');
    this.#api.events(5);
    await sleep(this.#random() * 100);
    await this.daemon.stop('SIGKILL');
    this.#api.events(Math.floor(this.#random() * 20));
    if (this.#random() < 0.7) await this.#vandalise(tableAct(this.#prey()));
    if (this.#random() < 0.4) await this.#killAtStart();
    await this.#startDaemon();
  }

  /** Somewhere between its first instruction and the end of the adoption. */
  async #killAtStart(): Promise<void> {
    this.#note('kill -9 at start');
    const daemon = this.#newDaemon();
    await sleep(this.#random() * 2500);
    await daemon.stop('SIGKILL');
    this.#api.events(5);
  }

  /** Nothing is read while it stands still: event queues fill up, timers come late. */
  async #freezeDaemon(): Promise<void> {
    this.#note('SIGSTOP');
    this.daemon.signal('SIGSTOP');
    this.#api.events(20);
    await this.#vandalise(anyAct(this.#prey()));
    await sleep(this.#random() * 500);
    this.daemon.signal('SIGCONT');
  }

  /** The node gains or loses an address: one that serves NodePorts, now and then one that a Service claims. */
  async #nodeAddress(): Promise<void> {
    const verb = pick(['add', 'del'], this.#random);
    const mine = ['10.200.0.77/24', '10.200.0.78/24', 'fd00:200::77/64', '198.51.100.9/32', '203.0.113.3/32'];
    const address = pick(mine, this.#random);
    this.#note(`node address ${verb} ${address}`);
    await shell(`ip addr ${verb} ${address} dev eth0 ${address.includes(':') ? 'nodad' : ''} 2>/dev/null || true`);
  }

  #note(what: string): void {
    this.counts.faults++;
    this.#history.push(what);
  }

  /** What the acts choose from. */
  #expected(): Expected {
    const links = Object.entries(networkInterfaces()).filter(([link]) => link !== 'kube-ipvs0');
    return this.#oracle(links.flatMap(([, addresses = []]) => addresses.map(({ address }) => address)));
  }

  #oracle(localAddresses: readonly string[]): Expected {
    const raw = (resource: 'services' | 'endpointslices'): RawObject[] => this.#api.objects(resource);
    return expectedState({
      widestRangesOnly: isNftables(),
      services: raw('services'),
      slices: raw('endpointslices'),
      nodeName: NODE,
      zone: this.#api.zone,
      nodeIPs: NODE_IPS,
      localAddresses,
      scheduler: this.#scheduler,
    });
  }

  /** Ends the API faults and waits until every watch runs again: from then on the daemon can know what is wanted. */
  async #quiet(): Promise<void> {
    await this.#api.heal();
    const isWatching = (): boolean => new Set([...this.#server.watches].map((watch) => watch.collection)).size === 3;
    await waitUntil('all watches', isWatching, 2 * LIMIT_MS, () => this.daemon.tail());
  }

  /**
   * The state must be right when the second verification from now has ended: the first may have begun before the quiet.
   * Rules are written beside it, which one more verification allows for. Removed real servers go as the budget of
   * deletions lets them, and as fast as the machine is: they are waited for while they become fewer.
   */
  async #converge(): Promise<Comparison> {
    await this.#quiet();
    // The last blows fall when the API is silent: nothing but the verification can find them.
    if (this.counts.rounds > 0) for (let i = 0; i < 3; i++) await this.#vandalise(anyAct(this.#prey()));
    const begun = performance.now();
    const first = await this.#verifications();
    const convergence = new Convergence();
    let result = await this.#compare();
    let used = 0;
    while (convergence.isWorthWaiting(result, used, performance.now())) {
      used = await this.#nextVerification(first, used);
      result = await this.#compare();
      if (used >= 3 && result.leaving > 0) {
        const seconds = Math.round((performance.now() - begun) / 1000);
        this.options.onLine(`  ${result.leaving} removed real servers wait for their deletion after ${seconds} s`);
      }
    }
    const health = await fetch('http://127.0.0.1:10256/healthz');
    if (health.status !== 200)
      result.differences.push(`- /healthz 200, it is ${health.status}: ${await health.text()}`);
    this.#report(result, used, performance.now() - begun);
    this.#repaired.set(this.daemon, await this.#metric('drift_repaired_total'));
    return result;
  }

  /** Waits for one more than `used` since `first`; asking costs less than reading the kernel. */
  async #nextVerification(first: number, used: number): Promise<number> {
    const more = async (): Promise<number> => Math.max(0, (await this.#verifications()) - first - used);
    return used + (await waitUntil('a verification', more, LIMIT_MS, () => this.daemon.tail(25)));
  }

  #report({ compared, differences }: Comparison, used: number, ms: number): void {
    this.counts.compared += compared;
    this.counts.differences += differences.length;
    const { seed, onLine } = this.options;
    const verdict = differences.length === 0 ? 'equal' : `${differences.length} DIFFERENCES`;
    onLine(
      `seed ${seed} round ${this.counts.rounds}: ${this.#history.length} faults, ${compared} objects compared, ${verdict}` +
        ` after ${used} verifications (${Math.round(ms)} ms)`,
    );
    if (differences.length === 0) return;
    for (const line of differences.slice(0, 40)) onLine(`  ${line}`);
    onLine(`  what was done: ${this.#history.join('; ')}`);
    onLine(`  the daemon's log:\n${this.daemon.tail(25)}`);
  }

  async #compare(): Promise<Comparison> {
    const state = await readKernel();
    return compareKernel(state, this.#oracle(state.local), this.#foreign, this.#rules);
  }

  #verifications(): Promise<number> {
    return this.#metric('verification_duration_seconds_count');
  }

  /** The sum over all labels of one of the daemon's own metrics. */
  async #metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${METRICS_PORT}/metrics`)).text();
    const values = [...text.matchAll(new RegExp(`^kubeproxy_ipvs_${name}(?:{[^}]*})? (\\S+)$`, 'gm'))];
    return values.reduce((sum, match) => sum + Number(match[1]), 0);
  }

  #writeConfig(): void {
    const kubeconfig = join(this.#directory, 'kubeconfig');
    const context = { name: 'fake', context: { cluster: 'fake', user: 'fake' } };
    const config = {
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode: 'ipvs',
      hostnameOverride: NODE,
      clusterCIDR: '10.128.0.0/9,fd00:10:128::/48',
      clientConnection: { kubeconfig },
      syncPeriod: SYNC_PERIOD,
      ipvs: { scheduler: this.#scheduler },
      minSyncPeriod: '0s',
      kubeProxyIpvs: rulesUnderTest(),
    };
    const cluster = { name: 'fake', cluster: { server: this.#server.url } };
    const content = { clusters: [cluster], users: [{ name: 'fake', user: {} }], contexts: [context] };
    const head = { apiVersion: 'v1', kind: 'Config', 'current-context': 'fake' };
    writeFileSync(kubeconfig, JSON.stringify({ ...head, ...content }));
    writeFileSync(join(this.#directory, 'config'), JSON.stringify(config));
  }

  #newDaemon(): Daemon {
    return new Daemon({ args: ['--config', join(this.#directory, 'config')] });
  }

  async #startDaemon(): Promise<void> {
    this.#daemon = this.#newDaemon();
    const isAdopted = (line: { msg: string }): boolean => line.msg === 'took over the kernel state and synced';
    await this.#daemon.waitForLog('the first sync', isAdopted, 2 * LIMIT_MS);
  }
}

function isNotForeign(rule: string): boolean {
  return !rule.includes('--comment foreign');
}
