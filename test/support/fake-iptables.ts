/** iptables-save and iptables-restore --noflush over tables in memory, as far as the keeper of the rules uses them. */
import assert from 'node:assert/strict';
import { type RunCommand } from '../../src/kernel/command.js';
import { type IptablesTools } from '../../src/kernel/iptables/detect.js';

type Table = Map<string, string[]>;

const BUILT_IN = new Set(['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']);

export class FakeIptables {
  /** By the program that prints them, `save-4` or `save-6`. */
  readonly tables: Readonly<Record<string, Map<string, Table>>> = { 'save-4': new Map(), 'save-6': new Map() };
  /** The programs that were started, in order. */
  readonly calls: string[] = [];
  /** Called before each program; throw a CommandError to fail it. */
  before: (command: string) => Promise<void> | void = () => undefined;
  readonly tools: IptablesTools = {
    backend: 'legacy',
    reason: 'fake',
    version: '1.8.9',
    commands: {
      4: { save: 'save-4', restore: 'restore-4' },
      6: { save: 'save-6', restore: 'restore-6' },
    },
    randomFully: false,
    restoreWaits: true,
  };

  run: RunCommand = async (command, _args, options) => {
    this.calls.push(command);
    await this.before(command);
    options?.signal?.throwIfAborted();
    const tables = this.tables[command.replace('restore', 'save')]!;
    if (command.startsWith('save')) return { stdout: print(tables), stderr: '' };
    restore(tables, options?.input ?? '');
    return { stdout: '', stderr: '' };
  };

  get restores(): number {
    return this.calls.filter((command) => command.startsWith('restore')).length;
  }
}

function print(tables: ReadonlyMap<string, Table>): string {
  const text = [...tables].map(([name, chains]) => {
    const heads = [...chains.keys()].map((chain) => `:${chain} ${BUILT_IN.has(chain) ? 'ACCEPT' : '-'} [0:0]`);
    const rules = [...chains].flatMap(([chain, list]) => list.map((rule) => `-A ${chain} ${rule}`));
    return [`*${name}`, ...heads, ...rules, 'COMMIT', ''].join('\n');
  });
  return text.join('');
}

function restore(tables: Map<string, Table>, input: string): void {
  let table: Table = new Map();
  for (const line of input.split('\n')) {
    const [verb = '', chain = '', ...words] = line.split(' ');
    if (verb.startsWith('*')) {
      table = tables.get(verb.slice(1)) ?? new Map<string, string[]>();
      tables.set(verb.slice(1), table);
    } else if (verb.startsWith(':')) table.set(verb.slice(1), []);
    else if (verb === '-F') table.set(chain, []);
    else if (verb === '-X') table.delete(chain);
    else if (verb === '-A' || verb === '-I' || verb === '-D') changeChain(table, verb, chain, words);
    else assert.ok(line === '' || line === 'COMMIT', line);
  }
}

function changeChain(table: Table, verb: '-A' | '-I' | '-D', chain: string, words: readonly string[]): void {
  const rules = table.get(chain) ?? (BUILT_IN.has(chain) ? [] : undefined);
  assert.ok(rules, `no chain ${chain}`);
  table.set(chain, rules);
  const [position = '', ...rest] = words;
  if (verb === '-A') rules.push(words.join(' '));
  else if (verb === '-I') rules.splice(Number(position) - 1, 0, rest.join(' '));
  else {
    const index = /^\d+$/.test(position) ? Number(position) - 1 : rules.indexOf(words.join(' '));
    assert.ok(index >= 0 && index < rules.length, `${verb} ${chain} ${words.join(' ')}: no such rule`);
    rules.splice(index, 1);
  }
}
