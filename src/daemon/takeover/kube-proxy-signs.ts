/** How a kube-proxy that runs on this node shows, and in what words an operator hears of it. */
import { type IncomingMessage, get } from 'node:http';
import { type BindAddress } from '../../config/bind-address.js';
import { type ProxyConfig } from '../../config/proxy-config.js';
import { type KubeProxyProcess, findKubeProxy } from '../../kernel/node/kube-proxy-process.js';
import { OWN_SERVER } from '../../serve/respond.js';

/** By its process (with hostPID), by what answers on its ports, by rules that come back. */
export const SIGN_SOURCES = ['process', 'port', 'rules'] as const;
export type SignSource = (typeof SIGN_SOURCES)[number];

export interface Sign {
  readonly source: SignSource;
  /** `process 4711 (/usr/local/bin/kube-proxy --config=...), container 0123456789ab` */
  readonly text: string;
}

const HEALTHZ_PORT = 10256;
const METRICS_PORT = 10249;
const LOOPBACK = '127.0.0.1';
const TIMEOUT_MS = 2000;
const MOST_BYTES = 65_536;

export interface LookOptions extends Pick<ProxyConfig, 'healthzBindAddress' | 'metricsBindAddress'> {
  /** Ports on which this process listens itself. */
  readonly ownPorts: ReadonlySet<number>;
  readonly procRoot?: string;
}

/** What can be seen of a kube-proxy now. Never rejects. */
export async function lookForKubeProxy(options: LookOptions): Promise<Sign[]> {
  const { healthzBindAddress, metricsBindAddress, ownPorts, procRoot } = options;
  const signs = (await findKubeProxy(procRoot)).map((one): Sign => ({ source: 'process', text: describe(one) }));
  const foreign = (...ports: (number | undefined)[]): number[] =>
    [...new Set(ports)].filter((port) => port !== undefined && port !== 0 && !ownPorts.has(port)) as number[];
  const answers = await Promise.all([
    ...foreign(healthzBindAddress?.port, HEALTHZ_PORT).map(askHealthz),
    ...foreign(metricsBindAddress?.port, METRICS_PORT).map(askProxyMode),
  ]);
  for (const text of answers) if (text !== undefined) signs.push({ source: 'port', text });
  return signs;
}

function describe({ pid, command, container }: KubeProxyProcess): string {
  return `process ${pid} (${command})${container === undefined ? '' : `, container ${container}`}`;
}

/** kube-proxy's health server (pkg/proxy/healthcheck) has no /readyz, and says in its answer what time it is. */
async function askHealthz(port: number): Promise<string | undefined> {
  const ready = await ask(port, '/readyz');
  if (ready?.status !== 404) return undefined;
  const health = await ask(port, '/healthz');
  return health !== undefined && /"currentTime" ?:/.test(health.body)
    ? `what answers http://127.0.0.1:${port}/healthz as kube-proxy does`
    : undefined;
}

/** And its configuration has no block of ours, which versions of this program show that do not say their name. */
async function askProxyMode(port: number): Promise<string | undefined> {
  const mode = await ask(port, '/proxyMode');
  if (mode?.status !== 200 || !/^(iptables|ipvs|nftables)\s*$/.test(mode.body)) return undefined;
  const config = await ask(port, '/configz');
  return config?.body.includes('"kubeProxyIpvs"') === false
    ? `what answers http://127.0.0.1:${port}/proxyMode with ${mode.body.trim()}`
    : undefined;
}

/** Whether this program answers there, in whatever process. */
export async function isOwnServer({ host, port }: BindAddress): Promise<boolean> {
  const reachable = host === '0.0.0.0' ? LOOPBACK : host === '::' ? '::1' : host;
  return (await hear(port, '/', reachable))?.server === OWN_SERVER;
}

/** undefined: nobody answers, or this program does, be it another instance. */
async function ask(port: number, path: string): Promise<Heard | undefined> {
  const heard = await hear(port, path);
  return heard?.server === OWN_SERVER ? undefined : heard;
}

interface Heard {
  readonly status: number;
  readonly body: string;
  readonly server: string;
}

function hear(port: number, path: string, host = LOOPBACK): Promise<Heard | undefined> {
  return new Promise((resolve) => {
    const take = (response: IncomingMessage): void => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        body += chunk;
        if (body.length > MOST_BYTES) request.destroy();
      });
      const server = [response.headers.server].flat().join();
      response.on('close', () => resolve({ status: response.statusCode ?? 0, body, server }));
      response.on('error', () => undefined);
    };
    const request = get({ host, port, path, timeout: TIMEOUT_MS, agent: false }, take);
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve(undefined));
  });
}
