import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';

/** How full the tables of connections are; undefined where the kernel does not say. */
export interface TableFill {
  readonly conntrackEntries: number | undefined;
  readonly conntrackLimit: number | undefined;
  /** Buckets of the IPVS connection table; 0 where the kernel resizes it by itself (7.1 and later). */
  readonly connectionBuckets: number | undefined;
}

/** Three short reads of /proc. */
export function readTableFill(procRoot = '/proc'): TableFill {
  const conntrack = join(procRoot, 'sys/net/netfilter');
  return {
    conntrackEntries: readNumber(join(conntrack, 'nf_conntrack_count')),
    conntrackLimit: readNumber(join(conntrack, 'nf_conntrack_max')),
    connectionBuckets: readBuckets(join(procRoot, 'net/ip_vs')),
  };
}

/** How many real servers the IPVS table has, of whomever; 0 without IPVS. */
export function countRealServers(procRoot = '/proc'): number {
  try {
    const lines = readFileSync(join(procRoot, 'net/ip_vs'), 'latin1').split('\n');
    // The third line of the header begins like a real server.
    return lines.filter((line) => line.startsWith('  -> ') && !line.includes('RemoteAddress')).length;
  } catch {
    return 0;
  }
}

function readNumber(path: string): number | undefined {
  try {
    const text = readFileSync(path, 'latin1').trim();
    return /^\d+$/.test(text) ? Number(text) : undefined;
  } catch {
    return undefined;
  }
}

/** `IP Virtual Server version 1.2.1 (size=4096)`: the first line alone, the table behind it may be megabytes. */
function readBuckets(path: string): number | undefined {
  const head = Buffer.alloc(128);
  try {
    const file = openSync(path, 'r');
    try {
      const length = readSync(file, head, 0, head.length, 0);
      const [, size] = /\(size=(\d+)\)/.exec(head.toString('latin1', 0, length)) ?? [];
      return size === undefined ? undefined : Number(size);
    } finally {
      closeSync(file);
    }
  } catch {
    return undefined;
  }
}
