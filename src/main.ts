/** Entry point: the only module that touches process, signals and native code. */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { destination, pino } from 'pino';
import { openNetlinkSocket } from '../native/libc.js';
import { openOptionSocket } from '../native/option-socket.js';
import { startProgram } from '../native/spawn.js';
import { type Environment } from './daemon/environment.js';
import { runCommandLine } from './cli/options.js';
import { commandHandlers } from './cli/commands.js';
import { errorMessage } from './values/errors.js';

declare const BUNDLED_VERSION: string | undefined;

function version(): string {
  if (typeof BUNDLED_VERSION === 'string') return BUNDLED_VERSION;
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

function environment(): Environment {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort());
  return {
    openNetlinkSocket,
    startProgram,
    openOptionSocket,
    version: version(),
    hostname: hostname(),
    logger: (level) =>
      pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination({ dest: 1, sync: true })),
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
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
    process.stderr.write(`kube-proxy-ipvs: ${errorMessage(error)}\n`);
    process.exitCode = 1;
  }
  // Whatever timer or socket a library still holds must not delay the end that Kubernetes waits for.
  process.exit();
}

await main();
