import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { DUMMY_LINK } from '../../reconcile/address-applier.js';

const BEGINNING = 16 * 1024;

/**
 * Whether the kernel serves Services already, as an earlier run or kube-proxy left them: the link is there and IPVS has
 * a virtual server. Reads the beginning of two files in /proc; never throws.
 */
export function hasEarlierState(root = '/proc/net'): boolean {
  try {
    const hasLink = readFileSync(`${root}/dev`, 'latin1').includes(`${DUMMY_LINK}:`);
    return hasLink && /^(TCP|UDP|SCTP|FWM) /m.test(beginning(`${root}/ip_vs`));
  } catch {
    return false; // no IPVS in this kernel yet
  }
}

function beginning(path: string): string {
  const file = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(BEGINNING);
    return buffer.toString('latin1', 0, readSync(file, buffer));
  } finally {
    closeSync(file);
  }
}
