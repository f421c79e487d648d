/** Entry point: the only module that touches the process's streams, signals and exit, and native code. */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { destination } from 'pino';
import { openNetlinkSocket } from '../native/libc.js';
import { releaseFreedMemory } from '../native/memory.js';
import { openOptionSocket } from '../native/option-socket.js';
import { peerCredentials } from '../native/peer.js';
import { startProgram } from '../native/spawn.js';
import { type Environment } from './daemon/environment.js';
import { jsonLogger } from './daemon/logger.js';
import { runCommandLine } from './cli/command-line.js';
import { commandHandlers } from './cli/commands.js';
import { pipeSafe } from './cli/output.js';
import { errorMessage } from './values/errors.js';

declare const BUNDLED_VERSION: string | undefined;
declare const BUNDLED_COMMIT: string | undefined;
declare const BUNDLED_DATE: string | undefined;

function version(): string {
  if (typeof BUNDLED_VERSION === 'string') return BUNDLED_VERSION;
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort());
// A command whose output nobody reads any more has nothing left to do.
let isUnread = false;
const output = pipeSafe(process.stdout, () => {
  isUnread = true;
  stop.abort();
});
const errors = pipeSafe(process.stderr, () => undefined);

function environment(): Environment {
  return {
    openNetlinkSocket,
    startProgram,
    openOptionSocket,
    peerCredentials,
    releaseFreedMemory,
    version: version(),
    build: {
      commit: typeof BUNDLED_COMMIT === 'string' ? BUNDLED_COMMIT : undefined,
      date: typeof BUNDLED_DATE === 'string' ? BUNDLED_DATE : undefined,
    },
    hostname: hostname(),
    variables: process.env,
    logger: (level) => jsonLogger(level, destination({ dest: 1, sync: true })),
    out: output.write,
    isTerminal: process.stdout.isTTY,
    err: errors.write,
    stop: stop.signal,
    startedAt: Date.now() - performance.now(),
  };
}

async function main(): Promise<void> {
  const world = environment();
  try {
    const handlers = commandHandlers(world);
    process.exitCode = await runCommandLine(process.argv.slice(2), handlers, world.version, world);
  } catch (error) {
    if (!isUnread) errors.write(`kube-proxy-ipvs: ${errorMessage(error)}\n`);
    process.exitCode = 1;
  }
  await Promise.all([output.drained(), errors.drained()]);
  // Whatever timer or socket a library still holds must not delay the end that Kubernetes waits for.
  process.exit();
}

await main();
