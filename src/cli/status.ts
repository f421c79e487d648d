import { get } from 'node:http';
import { errorMessage } from '../values/errors.js';
import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { isGreen } from '../serve/health.js';
import { type StatusHealth, type StatusKernel } from '../serve/status.js';
import { type OutputOptions } from './options.js';
import { formatBindAddress } from '../config/bind-address.js';

/** Asks the daemon on this node what it is doing; 1 when it does not answer, is not healthy, or the node is going. */
export async function runStatus(options: OutputOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  if (config.metricsBindAddress === undefined) throw new Error('the status page is off: metricsBindAddress is empty');
  if (config.statusAccess === 'off') throw new Error('the status page is off: kubeProxyIpvs.statusAccess is off');
  const { host, port } = config.metricsBindAddress;
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  const url = `http://${formatBindAddress({ host: reachable, port })}/status.json`;
  let text: string;
  try {
    text = await fetchText(url);
  } catch (error) {
    throw new Error(`no status from the daemon at ${url}: ${errorMessage(error)} (is it running on this node?)`, {
      cause: error,
    });
  }
  if (options.json) environment.out(`${text}\n`);
  const { report } = JSON.parse(text) as { report: StatusJson };
  if (!options.json) environment.out(render(report));
  return isGreen(report.health) ? 0 : 1;
}

interface StatusJson {
  readonly node: string;
  readonly version: string;
  readonly health: StatusHealth;
  readonly counts: Readonly<Record<string, number>>;
  readonly kernel: StatusKernel;
  readonly notes: readonly string[];
}

function render({ node, version, health, counts, kernel, notes }: StatusJson): string {
  const lines = [`node ${node}, version ${version}: ${isGreen(health) ? 'healthy' : 'NOT HEALTHY'}`];
  for (const reason of health.reasons) lines.push(`  ${reason}`);
  for (const [name, count] of Object.entries(counts)) lines.push(`${String(count).padStart(8)} ${name} wanted`);
  for (const [name, count] of Object.entries(kernel.counts)) lines.push(`${String(count).padStart(8)} ${name} written`);
  for (const note of notes) lines.push(`note: ${note}`);
  return `${lines.join('\n')}\n`;
}

function fetchText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { timeout: 5000 }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (text += chunk));
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`HTTP ${response.statusCode}: ${text.trim().slice(0, 200)}`));
      });
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 5 s')));
    request.on('error', reject);
  });
}
