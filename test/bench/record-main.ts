/**
 * The daemon with recording netlink sockets: the same wiring as src/main.ts, but what its first sync sends goes into
 * the file RECORD_FILE as well, in the format of kernel-limit.c. Ends when the first sync has.
 */
import { writeFileSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { openNetlinkSocket } from '../../native/libc.js';
import { openOptionSocket } from '../../native/option-socket.js';
import { startProgram } from '../../native/spawn.js';
import { commandHandlers } from '../../src/cli/commands.js';
import { type Environment } from '../../src/daemon/environment.js';
import { jsonLogger } from '../../src/daemon/logger.js';
import { runCommandLine } from '../../src/cli/command-line.js';
import { NETLINK_GENERIC, type NetlinkSocket, type OpenNetlinkSocket } from '../../src/netlink/socket.js';

const RECORD_FAMILY = 0xffffffff;
const RECORD_START = 0xfffffffe;
const GENL_ID_CTRL = 0x10;
const TYPE_AT = 4;

class Recorder {
  readonly #records: Buffer[] = [];
  #sockets = 0;
  #hasFamily = false;

  readonly open: OpenNetlinkSocket = (protocol, groups) => {
    const socket = openNetlinkSocket(protocol, groups);
    if (groups !== undefined && groups.length > 0) return socket; // listens only
    return this.#wrap(socket, this.#sockets++, protocol);
  };

  /** Sees every log line. */
  logged(line: string): void {
    if (line.includes('"caches synced"')) this.#records.push(words(RECORD_START));
    if (!line.includes('"took over the kernel state and synced"')) return;
    writeFileSync(process.env['RECORD_FILE']!, Buffer.concat(this.#records));
    process.exit(0);
  }

  #wrap(socket: NetlinkSocket, number: number, protocol: number): NetlinkSocket {
    return {
      send: (buffer, length) => {
        this.#record(number, protocol, Buffer.from(buffer.subarray(0, length)));
        return socket.send(buffer, length);
      },
      receive: (buffer) => socket.receive(buffer),
      waitReadable: () => socket.waitReadable(),
      attachFilter: (program) => socket.attachFilter(program),
      close: () => socket.close(),
    };
  }

  #record(socket: number, protocol: number, bytes: Buffer): void {
    const type = bytes.readUInt16LE(TYPE_AT);
    if (protocol === NETLINK_GENERIC && type !== GENL_ID_CTRL && !this.#hasFamily) {
      this.#hasFamily = true;
      this.#records.push(words(RECORD_FAMILY, type));
    }
    this.#records.push(words(socket, protocol, bytes.length), bytes);
  }
}

function words(...values: number[]): Buffer {
  const buffer = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) buffer.writeUInt32LE(value, 4 * i);
  return buffer;
}

const recorder = new Recorder();
const stop = new AbortController();
const write = (line: string): void => {
  writeSync(1, line);
  recorder.logged(line);
};
const environment: Environment = {
  openNetlinkSocket: recorder.open,
  openOptionSocket,
  startProgram,
  version: '0.0.0',
  hostname: hostname(),
  variables: process.env,
  logger: (level) => jsonLogger(level, { write }),
  out: (text) => void writeSync(1, text),
  err: (text) => void writeSync(2, text),
  stop: stop.signal,
  startedAt: Date.now() - performance.now(),
};
process.once('SIGTERM', () => stop.abort());
process.exitCode = await runCommandLine(
  process.argv.slice(2),
  commandHandlers(environment),
  environment.version,
  environment,
);
