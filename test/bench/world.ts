/** What every part of the benchmark needs inside the test kernel: a node's network, the fake API server, the daemon. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ControlAnswer, type ControlCommand } from '../fakes/api-server-control.js';
import { scaleNode } from '../fakes/cluster-generator.js';
import { ROOT } from '../kernel/harness/agent.js';
import { Daemon, type DaemonOptions, type LogLine } from '../kernel/harness/daemon.js';
import { rulesBackend, rulesUnderTest } from '../kernel/harness/rules-under-test.js';
import { cpuMs, cpuTimes } from './process-figures.js';

export interface Scale {
  readonly services: number;
  readonly endpointsPerService: number;
}

/** `--rows 10000x10r`: VIPs as routes. */
export type Vips = 'addresses' | 'routes';

const CONFIG = '/tmp/bench-config.yaml';
const KUBECONFIG = '/tmp/bench-kubeconfig';
const NODE_FILE = '/tmp/bench-node.json';
/** What a node's init container loads (`preflight --fix`), so that no part waits for modprobe. */
const MODULES = [
  ...['ipv6', 'dummy', 'ip_vs', 'ip_vs_rr', 'ip_tables', 'iptable_nat', 'iptable_filter', 'iptable_mangle'],
  ...['ip6_tables', 'ip6table_nat', 'ip6table_filter', 'ip6table_mangle', 'xt_set', 'xt_comment', 'xt_MASQUERADE'],
  ...['xt_mark', 'xt_conntrack', 'xt_addrtype', 'ipt_REJECT', 'ip6t_REJECT', 'nf_conntrack_netlink'],
  ...['ip_set', 'ip_set_bitmap_port', 'ip_set_hash_ip', 'ip_set_hash_ipport', 'ip_set_hash_ipportip'],
  'ip_set_hash_ipportnet',
  'veth',
];
let vips: Vips = 'addresses';
const LONG_MS = 20 * 60_000;

/** Modules and the node's own address; the same before every part, so that the parts can be compared. */
export function prepareNode(form: Vips): void {
  vips = form;
  for (const module of MODULES) {
    try {
      execFileSync('modprobe', [module], { stdio: 'ignore' });
    } catch {
      // Built in, or absent in this kernel: the daemon says so if it needs it.
    }
  }
  for (const line of [
    'link set lo up',
    'link add eth0 type dummy',
    'link set eth0 up',
    'addr add 10.200.0.2/24 dev eth0',
  ])
    execFileSync('ip', line.split(' '));
  writeConfig();
  writeFileSync(NODE_FILE, JSON.stringify(scaleNode('node-0', '10.200.0.2')));
}

/** The configuration of the daemons that start from now on; `ipvs` has what is not as usual. */
export function writeConfig(ipvs: Readonly<Record<string, unknown>> = {}): void {
  writeFileSync(
    CONFIG,
    JSON.stringify({
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode: 'ipvs',
      clusterCIDR: '10.128.0.0/9,fd00:10:128::/48',
      hostnameOverride: 'node-0',
      clientConnection: { kubeconfig: KUBECONFIG },
      ipvs: { scheduler: 'rr', syncPeriod: '30s', minSyncPeriod: '0s', ...ipvs },
      kubeProxyIpvs: { vips, ...rulesUnderTest() },
    }),
  );
}

/** The fake API server as a process of its own, told what to do over a pipe. */
export class ApiServer {
  #answers: ((line: string) => void)[] = [];

  readonly #child: ChildProcess;
  readonly #lines: Interface;

  private constructor(child: ChildProcess, lines: Interface) {
    this.#child = child;
    this.#lines = lines;
    lines.on('line', (line) => this.#answers.shift()?.(line));
  }

  /** Resolves when the whole cluster is there and the server does nothing any more. */
  static async start({ services, endpointsPerService }: Scale, gcFile = '/dev/null'): Promise<ApiServer> {
    const args = [
      ...['--import', `${ROOT}build/test/bench/gc-pauses.js`],
      '--max-old-space-size=6000',
      // Fewer garbage collections than usual, which take the CPU from what is measured, but a young generation whose
      // pages are soon all there: the test kernel takes 49 us for each new one.
      '--min-semi-space-size=16',
      '--max-semi-space-size=16',
      `${ROOT}build/test/fakes/api-server-main.js`,
      '--tls',
      '--token',
      'bench',
    ];
    args.push('--real-objects', '--load', NODE_FILE, '--generate', `${services}x${endpointsPerService}`);
    args.push('--kubeconfig', KUBECONFIG);
    const env = { ...process.env, GC_FILE: gcFile };
    const child = spawn(process.execPath, args, { env, stdio: ['pipe', 'pipe', 'inherit'] });
    const killAtEnd = (): unknown => child.kill('SIGKILL');
    process.once('exit', killAtEnd);
    child.once('exit', () => process.off('exit', killAtEnd));
    const lines = createInterface({ input: child.stdout });
    await once(lines, 'line');
    await untilQuiet(child.pid!);
    return new ApiServer(child, lines);
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** The command is in the pipe when this returns; the answer comes later. */
  send(...commands: ControlCommand[]): Promise<ControlAnswer[]> {
    const answer = new Promise<string>((resolve) => this.#answers.push(resolve));
    this.#child.stdin!.write(`${JSON.stringify(commands)}\n`);
    return answer.then((line) => JSON.parse(line) as ControlAnswer[]);
  }

  /** It writes its garbage collections to `gcFile`. */
  writePauses(): void {
    this.#child.kill('SIGUSR2');
  }

  stop(): void {
    this.#child.kill('SIGKILL');
    this.#lines.close();
  }
}

/** Waits until a process has used no CPU for a second. */
export async function untilQuiet(pid: number): Promise<void> {
  for (let before = cpuMs(pid); ;) {
    await sleep(1000);
    const now = cpuMs(pid);
    if (now - before < 10) return;
    before = now;
  }
}

/** One cold start of the daemon, with its log's times in Unix milliseconds. */
export interface ColdStart {
  readonly daemon: Daemon;
  readonly startedAt: number;
  readonly cachesSyncedAt: number;
  readonly syncedAt: number;
  readonly rulesAt: number;
  /** CPU time of the programs that ran between the two, ms: those that read and write the rules. */
  readonly programsMs: number;
  readonly syncLine: LogLine;
}

/** Starts the daemon as shipped and waits until everything is in the kernel; `onSpawn` gets its process id at once. */
export async function coldStart(
  options: Omit<DaemonOptions, 'args'> = {},
  onSpawn: (pid: number) => void = () => undefined,
): Promise<ColdStart> {
  const startedAt = Date.now();
  const shipped = asShipped();
  const nodeArgs = [...shipped.nodeArgs, ...(options.nodeArgs ?? [])];
  const env = { ...shipped.env, ...options.env };
  const daemon = new Daemon({ ...options, nodeArgs, env, args: ['--config', CONFIG] });
  onSpawn(daemon.pid);
  const line = (text: string): Promise<LogLine> => daemon.waitForLog(text, ({ msg }) => msg === text, LONG_MS);
  const programs = (): number => {
    const { own, withChildren } = cpuTimes(daemon.pid);
    return withChildren - own;
  };
  const cachesLine = await line('caches synced');
  const before = programs();
  const syncLine = await line('took over the kernel state and synced');
  const rulesLine = await line(`${rulesBackend()} rules written`);
  const at = ({ time }: LogLine): number => Date.parse(time);
  const failed = daemon.log.filter(({ level }) => level === 'error' || level === 'fatal');
  if (failed.length > 0) throw new Error(`the daemon reported errors: ${JSON.stringify(failed.slice(0, 3))}`);
  return {
    daemon,
    startedAt,
    cachesSyncedAt: at(cachesLine),
    syncedAt: at(syncLine),
    rulesAt: at(rulesLine),
    programsMs: programs() - before,
    syncLine,
  };
}

/** How the first line of dist/main.js has it run in the image: options of node, and environment variables. */
function asShipped(): { readonly nodeArgs: readonly string[]; readonly env: Readonly<Record<string, string>> } {
  const [firstLine = ''] = readFileSync(`${ROOT}dist/main.js`, 'utf8').split('\n', 1);
  const [, variables, options] = /^#!\S+ -S ((?:\w+=\S+ )*)node(.*)$/.exec(firstLine) ?? [];
  if (variables === undefined || options === undefined) throw new Error(`dist/main.js begins with ${firstLine}`);
  const words = (text: string): string[] => text.split(' ').filter((word) => word !== '');
  return {
    nodeArgs: words(options),
    env: Object.fromEntries(words(variables).map((word) => word.split('=', 2) as [string, string])),
  };
}

/** Runs the daemon (or another entry) until it ends by itself. */
export async function runToEnd(options: Omit<DaemonOptions, 'args'>): Promise<void> {
  const daemon = new Daemon({ ...options, args: ['--config', CONFIG] });
  const { code } = await daemon.exited;
  if (code !== 0) throw new Error(`exit code ${code}\n${daemon.tail()}`);
}

/** The daemon's metrics; values of one name with several labels are added up. */
export async function readMetrics(): Promise<Map<string, number>> {
  const response = await fetch('http://127.0.0.1:10249/metrics');
  const sums = new Map<string, number>();
  for (const line of (await response.text()).split('\n')) {
    const match = /^([a-zA-Z_:]+)(?:\{[^}]*\})? (\S+)$/.exec(line);
    if (match === null) continue;
    sums.set(match[1]!, (sums.get(match[1]!) ?? 0) + Number(match[2]));
  }
  return sums;
}
