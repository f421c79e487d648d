import { closeSync, openSync, readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ProcIpVsParser, type ProcSummary, type ProcVirtualServer } from './proc-ip-vs.js';

export const PROC_IP_VS = '/proc/net/ip_vs';
/** The kernel gives about 4 KiB per read of this file, whatever is asked for. */
const CHUNK = 64 * 1024;
/** How long to read before other work gets its turn, in milliseconds. */
const TURN = 2;

/**
 * Reads the whole IPVS table, letting other work in between; `visit` is called for each virtual server. A table that
 * changes meanwhile may show an entry twice or not at all. Every read makes the kernel walk the table from its beginning, so
 * the cost grows with the square of the number of virtual servers: 10,000 take 0.4 s of CPU, 50,000 take 17 s (where asking
 * for each one's real servers takes 5 s). Throws the error of `node:fs` (ENOENT without ip_vs), or
 * ProcFormatError.
 */
export async function readProcIpVs(
  visit: (server: ProcVirtualServer) => void,
  path: string = PROC_IP_VS,
): Promise<ProcSummary> {
  const parser = new ProcIpVsParser(visit);
  const buffer = Buffer.allocUnsafeSlow(CHUNK);
  const fd = openSync(path, 'r');
  try {
    let turnEnd = performance.now() + TURN;
    for (;;) {
      const length = readSync(fd, buffer, 0, CHUNK, null);
      if (length === 0) return parser.finish();
      parser.push(buffer.subarray(0, length));
      if (performance.now() >= turnEnd) {
        await nextTurn();
        turnEnd = performance.now() + TURN;
      }
    }
  } finally {
    closeSync(fd);
  }
}
