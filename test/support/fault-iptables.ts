/** iptables-save and iptables-restore --noflush over tables in memory; counts the processes that they would be. */
import { type RunCommand } from '../../src/kernel/command.js';
import { type IptablesTools } from '../../src/kernel/iptables/detect.js';

type Table = Map<string, string[]>;

export class FakeIptables {
  processes = 0;
  restores = 0;
  readonly #tables = { 4: new Map<string, Table>(), 6: new Map<string, Table>() };
  readonly tools: IptablesTools = {
    backend: 'legacy',
    reason: 'fake',
    version: '1.8.9',
    commands: {
      4: { save: 'save4', restore: 'restore4' },
      6: { save: 'save6', restore: 'restore6' },
    },
    randomFully: false,
    restoreWaits: true,
  };

  readonly run: RunCommand = async (command, _args, options) => {
    this.processes++;
    const tables = this.#tables[command.endsWith('4') ? 4 : 6];
    if (command.startsWith('save')) return { stdout: print(tables), stderr: '' };
    this.restores++;
    restore(tables, options?.input ?? '');
    return { stdout: '', stderr: '' };
  };
}

function print(tables: ReadonlyMap<string, Table>): string {
  const text = [...tables].map(([name, chains]) => {
    const heads = [...chains.keys()].map((chain) => `:${chain} ${/^KUBE-/.test(chain) ? '-' : 'ACCEPT'} [0:0]`);
    const rules = [...chains].flatMap(([chain, list]) => list.map((rule) => `-A ${chain} ${rule}`));
    return [`*${name}`, ...heads, ...rules, 'COMMIT', ''].join('\n');
  });
  return text.join('');
}

function restore(tables: Map<string, Table>, input: string): void {
  let table: Table = new Map();
  for (const line of input.split('\n')) {
    if (line.startsWith('*'))
      tables.set(line.slice(1), (table = tables.get(line.slice(1)) ?? new Map<string, string[]>()));
    const declared = /^:(\S+) /.exec(line)?.[1];
    if (declared !== undefined) table.set(declared, []);
    const [, verb, chain = '', rule = ''] = /^-([AIDX]) (\S+) ?(.*)$/.exec(line) ?? [];
    if (verb === undefined) continue;
    const rules = table.get(chain) ?? [];
    table.set(chain, rules);
    const [, position, inserted = ''] = /^(\d+) (.*)$/.exec(rule) ?? [];
    if (verb === 'A') rules.push(rule);
    else if (verb === 'I') rules.splice(Number(position) - 1, 0, inserted);
    else if (verb === 'D') rules.splice(rules.indexOf(rule), 1);
    else table.delete(chain);
  }
}
