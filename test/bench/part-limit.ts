/** The kernel's own speed: what the first sync sends is recorded in one kernel and replayed by C in another. */
import { execFileSync } from 'node:child_process';
import { ROOT } from '../kernel/harness/agent.js';
import { ApiServer, type Scale, runToEnd } from './world.js';

export interface LimitResult {
  readonly ms: number;
  readonly datagrams: number;
  readonly messages: number;
  readonly bytes: number;
  readonly refused: number;
  /** Milliseconds per socket, in the order in which the daemon opens them: IPVS, links, ipset, conntrack. */
  readonly perSocket: readonly number[];
}

export async function record(scale: Scale, directory: string): Promise<object> {
  const server = await ApiServer.start(scale);
  const env = { RECORD_FILE: `${directory}/trace` };
  await runToEnd({ entry: `${ROOT}build/test/bench/record-main.js`, env, nodeArgs: ['--max-old-space-size=4000'] });
  server.stop();
  return {};
}

export function measureLimit(_scale: Scale, directory: string): Promise<LimitResult> {
  const output = execFileSync(`${directory}/../kernel-limit`, [`${directory}/trace`], { encoding: 'utf8' });
  return Promise.resolve(JSON.parse(output) as LimitResult);
}
