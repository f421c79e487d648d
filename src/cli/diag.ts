/** `diag`: all that a question about this node needs, in one file, without secrets. */
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { type ProxyConfig } from '../config/proxy-config.js';
import { type DaemonOptions, loadDaemonConfig } from '../daemon/daemon-options.js';
import { type Environment } from '../daemon/environment.js';
import { errorMessage } from '../values/errors.js';
import { runConfigPrint } from './config.js';
import { withDaemonConfig } from './daemon-config.js';
import { fetchAnswer, localUrl } from './daemon-page.js';
import { type Part, collectBundle } from './diag/bundle.js';
import { NODE_FILES, type NodeFiles, nodeParts } from './diag/node-parts.js';
import { secretsOfEnvironment, secretsOfKubeconfig } from './diag/redact.js';
import { runEvents } from './events.js';
import { withNodeDefaults } from './node-defaults.js';
import { type DiagOptions } from './options.js';
import { runPlan } from './plan.js';
import { runPreflight } from './preflight.js';
import { runServices } from './services.js';
import { runStatus } from './status.js';
import { runTable } from './table.js';
import { runVerify } from './verify.js';

/** Waited for the cluster's state: the bundle is wanted most where the API server is away. */
const CLUSTER_MS = 15_000;
const PAGE_MS = 10_000;
const TOKEN = '/var/run/secrets/kubernetes.io/serviceaccount/token';

/**
 * Writes the bundle to a file, or to standard output where nobody sits before it; parts that cannot be had are named
 * there and on standard error, and the others are written. 1 when there is nowhere to write to.
 */
export async function runDiag(
  typed: DiagOptions,
  environment: Environment,
  files: NodeFiles = NODE_FILES,
): Promise<number> {
  const { output } = typed;
  const { err, isTerminal, stop } = environment;
  if (output === undefined && isTerminal) {
    err('a support bundle is a tar archive: name a file (--output FILE), or send it somewhere (> FILE)\n');
    return 1;
  }
  const options = withNodeDefaults(typed, environment);
  const now = new Date();
  const node = options.overrides.hostnameOverride ?? environment.hostname;
  const stamp = now.toISOString().replace(/[-:]|\.\d+/g, '');
  const folder = `kube-proxy-ipvs-${node.replace(/[^\w.-]/g, '_').slice(0, 40)}-${stamp}`;
  const config = await configOf(options);
  const secrets = [...secretsOfEnvironment(environment.variables), ...secretsOfFiles(config)];
  const parts = [...commandParts(options, typed, environment), ...pageParts(config), ...nodeParts(environment, files)];
  // Before the work, which may take a minute: a file that cannot be written is told at once.
  const file = output === undefined ? undefined : openSync(output, 'w', 0o600);
  const { archive, failures } = await collectBundle(parts, { folder, now, secrets, stop });
  for (const failure of failures) err(`not in the bundle: ${failure}\n`);
  if (file === undefined) environment.out(archive.toString('utf8'));
  else {
    writeFileSync(file, archive);
    closeSync(file);
  }
  err(`${folder}: ${parts.length - failures.length} of ${parts.length} parts, ${archive.length} bytes\n`);
  return 0;
}

/** undefined where the configuration is what is wrong: configuration.yaml says so, and the rest goes on. */
async function configOf(options: DaemonOptions): Promise<ProxyConfig | undefined> {
  try {
    return (await loadDaemonConfig(options)).config;
  } catch {
    return undefined;
  }
}

/** What must be in no part, whoever quotes it. */
function secretsOfFiles(config: ProxyConfig | undefined): string[] {
  const paths = [TOKEN, ...(config?.kubeconfig === undefined ? [] : [config.kubeconfig])];
  return paths.flatMap((path) => {
    try {
      return secretsOfKubeconfig(readFileSync(path, 'utf8'));
    } catch {
      return []; // what cannot be read here, cannot be told either
    }
  });
}

type Command = (environment: Environment) => Promise<number>;

/** What the commands of this program print, with what they say on standard error. */
function commandParts(options: DiagOptions, typed: DiagOptions, environment: Environment): Part[] {
  const see = { ...options, headers: true, watchMs: undefined, namespace: '', match: '' };
  // These compare with what the daemon runs with, whatever file is in the usual place.
  const compare = { ...typed, json: false, timeoutMs: CLUSTER_MS };
  const part = (file: string, about: string, command: Command): Part => ({
    ...{ file, about },
    collect: (signal) => outputOf(command, environment, signal),
  });
  const text = { ...options, json: false };
  return [
    part('configuration.yaml', 'as it is understood, with defaults; fields that nobody knows are left out', (world) =>
      runConfigPrint(text, world),
    ),
    part('status.txt', 'what `status` says', (world) => runStatus({ ...see, format: 'wide' }, world)),
    part('events.txt', 'what `events` says', (world) => runEvents({ ...see, format: 'wide' }, world)),
    part('services.txt', 'what `services -o wide` says', (world) => runServices({ ...see, format: 'wide' }, world)),
    part('table.txt', 'what `table` says', (world) => runTable({ ...see, format: undefined }, world)),
    part('verify.txt', 'what `verify --all` says', async (world) =>
      runVerify(await withDaemonConfig({ ...compare, all: true }, world), world),
    ),
    part('plan.txt', 'what `plan --diff` says', async (world) =>
      runPlan(await withDaemonConfig({ ...compare, diff: true, exitCode: false }, world), world),
    ),
    part('preflight.txt', 'what `preflight` says', (world) => runPreflight({ ...text, fix: false }, world)),
  ];
}

async function outputOf(command: Command, environment: Environment, stop: AbortSignal): Promise<string> {
  let [out, err] = ['', ''];
  const world: Environment = {
    ...environment,
    ...{ stop, isTerminal: false, out: (text) => void (out += text), err: (text) => void (err += text) },
  };
  const code = await command(world);
  const end = code === 0 ? '' : `exit code ${code}\n`;
  return `${out}${`${err}${end}`.replace(/^(?=.)/gm, '# ')}`;
}

function pageParts(config: ProxyConfig | undefined): Part[] {
  const needed = (): ProxyConfig => {
    if (config === undefined) throw new Error('the configuration cannot be used: configuration.yaml');
    return config;
  };
  const health = async (path: string): Promise<string> => {
    const { healthzBindAddress } = needed();
    if (healthzBindAddress === undefined) throw new Error('healthzBindAddress is empty');
    try {
      const { status, body } = await fetchAnswer(localUrl(healthzBindAddress, path), PAGE_MS);
      return `${path}: ${status}\n${body.trimEnd()}\n`;
    } catch (error) {
      return `${path}: ${errorMessage(error)}\n`;
    }
  };
  return [
    {
      file: 'health.txt',
      about: '/healthz, /livez and /readyz',
      collect: async () => (await Promise.all(['/healthz', '/livez', '/readyz'].map(health))).join(''),
    },
    {
      file: 'metrics.txt',
      about: '/metrics',
      collect: async () => {
        const { metricsBindAddress } = needed();
        if (metricsBindAddress === undefined) throw new Error('metricsBindAddress is empty');
        const { status, body } = await fetchAnswer(localUrl(metricsBindAddress, '/metrics'), PAGE_MS);
        if (status !== 200) throw new Error(`HTTP ${status}`);
        return body;
      },
    },
  ];
}
