/** Packets that each rule of a chain has taken, in the order of the rules. */
import { type Family } from '../../values/address.js';
import { type RunCommand } from '../command.js';
import { type OpenOptionSocket } from '../option-socket.js';
import { type IptablesTools } from './detect.js';
import { ENTRY_LAYOUT, TableEntries } from './table-entries.js';

/** Chains of a table, each with the packets of its rules. */
export type ChainPackets = ReadonlyMap<string, readonly number[]>;

/** Reads counters; a backend that keeps its rules elsewhere has another one. */
export interface RuleCounters {
  /** Milliseconds that what was read should do for: how expensive reading is. */
  readonly keepMs: number;
  /** Undefined when they cannot be read this time. */
  read(family: Family, table: string): Promise<ChainPackets | undefined>;
  close(): void;
}

/**
 * Through getsockopt where the rules are there, which is a system call or two; else a process per table, once a minute.
 */
export function openRuleCounters(
  tools: IptablesTools,
  openOptionSocket: OpenOptionSocket | undefined,
  run: RunCommand,
): RuleCounters {
  if (tools.backend === 'legacy' && openOptionSocket !== undefined)
    try {
      return new TableCounters(openOptionSocket);
    } catch {
      // No IPv6.
    }
  return new SavedCounters(tools, run);
}

/** struct xt_entry_target: its size (u16), the name of the target (29 bytes), the revision (u8); then its own. */
const TARGET_NAME_AT = 2;
const TARGET_NAME_LENGTH = 29;
const TARGET_DATA_AT = 32;
/** XT_ERROR_TARGET: the entry in front of a chain that a user made has one, with the chain's name. */
const CHAIN_HEAD = 'ERROR';
const CHAIN_NAME_LENGTH = 30;

export class TableCounters implements RuleCounters {
  readonly keepMs = 5000;
  readonly #entries: TableEntries;

  /** Throws an Error with `errno` when there is no such socket. */
  constructor(open: OpenOptionSocket, procNet?: string) {
    this.#entries = new TableEntries(open, procNet);
  }

  read(family: Family, table: string): Promise<ChainPackets | undefined> {
    const exists = this.#entries.names(family)?.includes(table) === true;
    const entries = exists ? this.#entries.read(family, table) : undefined;
    return Promise.resolve(entries && packetsOf(entries, family));
  }

  close(): void {
    this.#entries.close();
  }
}

/** Undefined for what is no chain of entries. Built-in chains have no head, and are not told apart. */
export function packetsOf(entries: Buffer, family: Family): ChainPackets | undefined {
  const { target, next, counters, length } = ENTRY_LAYOUT[family];
  const chains = new Map<string, number[]>();
  let rules: number[] | undefined;
  let at = 0;
  while (at + length <= entries.length) {
    const step = entries.readUInt16LE(at + next);
    const targetAt = at + entries.readUInt16LE(at + target);
    if (step < length || targetAt + TARGET_DATA_AT > at + step) return undefined;
    if (text(entries, targetAt + TARGET_NAME_AT, TARGET_NAME_LENGTH) === CHAIN_HEAD) {
      rules = [];
      chains.set(text(entries, targetAt + TARGET_DATA_AT, CHAIN_NAME_LENGTH), rules);
    } else rules?.push(Number(entries.readBigUInt64LE(at + counters)));
    at += step;
  }
  // Behind the last rule of every chain is its policy, or the return to the caller.
  for (const packets of chains.values()) packets.pop();
  return at === entries.length ? chains : undefined;
}

function text(bytes: Buffer, at: number, length: number): string {
  const end = bytes.indexOf(0, at);
  return bytes.toString('latin1', at, Math.min(end < 0 ? at + length : end, at + length));
}

const SAVE_TIMEOUT = 60_000;

/** By iptables-save, for the rules that nf_tables keeps in iptables' name. */
export class SavedCounters implements RuleCounters {
  readonly keepMs = 60_000;

  constructor(
    readonly tools: IptablesTools,
    readonly run: RunCommand,
  ) {}

  async read(family: Family, table: string): Promise<ChainPackets | undefined> {
    try {
      const args = ['-c', '-t', table];
      return savedPackets((await this.run(this.tools.commands[family].save, args, { timeout: SAVE_TIMEOUT })).stdout);
    } catch {
      return undefined;
    }
  }

  close(): void {
    // Nothing is kept open.
  }
}

/** `[12:720] -A CHAIN ...`; chains without rules are there, too. */
export function savedPackets(saved: string): ChainPackets {
  const chains = new Map<string, number[]>();
  for (const line of saved.split('\n')) {
    const [, head] = /^:(\S+) /.exec(line) ?? [];
    if (head !== undefined) chains.set(head, []);
    const [, packets, chain = ''] = /^\[(\d+):\d+\] -A (\S+)/.exec(line) ?? [];
    if (packets !== undefined) chains.get(chain)?.push(Number(packets));
  }
  return chains;
}
