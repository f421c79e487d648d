/** The changes of a plan as a person reads them. */
import {
  type Change,
  type RealServerChange,
  type RuleChange,
  type SettingsData,
  type VirtualServerRef,
} from '../reconcile/change.js';

/** One line, `add virtual server TCP 10.96.0.1:80 rr`; a rule may be long. */
export function formatChange(change: Change): string {
  const { action } = change;
  switch (change.object) {
    case 'link':
      return `${action} link ${change.link}`;
    case 'set':
      return `${action} set ${change.set} ${change.type} IPv${change.family}`;
    case 'set_entry':
      return `${action} set entry ${change.set} ${change.entry}`;
    case 'address':
      return `${action} address ${change.address} on ${change.link}`;
    case 'virtual_server':
      return `${action} virtual server ${formatServer(change.virtualServer)}${formatSettings(change.after)}`;
    case 'real_server':
      return `${action} real server ${formatReal(change)}`;
    case 'rule':
      return formatRule(change);
    case 'sysctl':
      return `${action} sysctl ${change.name} from ${change.before ?? 'nothing'} to ${change.after}`;
  }
}

/** What is there now with `-` before it and what takes its place with `+`, for changes that say both. */
export function formatDifference(change: Change): string[] {
  if (change.object === 'rule') {
    const [before, after] = [new Set(change.before), new Set(change.after)];
    return [
      ...change.before.filter((rule) => !after.has(rule)).map((rule) => `- -A ${change.chain} ${rule}`),
      ...change.after.filter((rule) => !before.has(rule)).map((rule) => `+ -A ${change.chain} ${rule}`),
    ];
  }
  if (change.object === 'sysctl')
    return [`- ${change.name} = ${change.before ?? '(none)'}`, `+ ${change.name} = ${change.after}`];
  if (change.object !== 'virtual_server') return [];
  const lines = (sign: string, settings: SettingsData | undefined): string[] =>
    settings === undefined ? [] : [`${sign} ${formatServer(change.virtualServer)}${formatSettings(settings)}`];
  return [...lines('-', change.before), ...lines('+', change.after)];
}

/** The plan by Service, what concerns the node as a whole first, with a summary as the last line. */
export function formatPlan(changes: readonly Change[], isDiff: boolean): string {
  if (changes.length === 0) return 'nothing to change\n';
  const groups = new Map<string, Change[]>();
  for (const change of changes) {
    const heading = headingOf(change);
    const group = groups.get(heading);
    if (group === undefined) groups.set(heading, [change]);
    else group.push(change);
  }
  const text: string[] = [];
  for (const heading of [...groups.keys()].sort(compareHeadings)) {
    text.push(`${heading}:`);
    for (const change of groups.get(heading)!) {
      text.push(`  ${formatChange(change)}`);
      if (isDiff) text.push(...formatDifference(change).map((line) => `    ${line}`));
    }
  }
  return `${text.join('\n')}\n${summary(changes, groups)}\n`;
}

export function countActions(changes: readonly Change[]): { add: number; change: number; delete: number } {
  const counts = { add: 0, change: 0, delete: 0 };
  for (const { action } of changes) counts[action]++;
  return counts;
}

const NODE = 'node';
const NOBODY = 'no Service';

function headingOf({ object, service }: Change): string {
  if (service !== undefined) return service;
  return object === 'link' || object === 'set' || object === 'rule' || object === 'sysctl' ? NODE : NOBODY;
}

/** The node first, what belongs to no Service last, Services by name between them (they have a slash in theirs). */
function compareHeadings(a: string, b: string): number {
  const rank = (heading: string): number => (heading === NODE ? 0 : heading === NOBODY ? 2 : 1);
  return rank(a) - rank(b) || (a < b ? -1 : 1);
}

function summary(changes: readonly Change[], groups: ReadonlyMap<string, unknown>): string {
  const { add, change, delete: removed } = countActions(changes);
  const services = [...groups.keys()].filter((heading) => heading !== NODE && heading !== NOBODY).length;
  return `plan: ${add} to add, ${change} to change, ${removed} to delete; Services concerned: ${services}`;
}

function formatServer(server: VirtualServerRef): string {
  if ('fwmark' in server) return `FWM ${server.fwmark} IPv${server.family}`;
  return `${server.protocol} ${hostPort(server)}`;
}

function hostPort({ address, port }: { readonly address: string; readonly port: number }): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function formatSettings(settings: SettingsData | undefined): string {
  if (settings === undefined) return '';
  const { scheduler, flags, persistenceTimeout } = settings;
  const persistent = persistenceTimeout > 0 ? ` persistent ${persistenceTimeout}` : '';
  return ` ${scheduler}${persistent}${flags > 1 ? ` flags 0x${flags.toString(16)}` : ''}`;
}

function formatReal({ virtualServer, realServer, weight, action }: RealServerChange): string {
  const weighted = weight === undefined || action === 'add' ? '' : ` weight ${weight}${weight === 0 ? ' (drain)' : ''}`;
  return `${formatServer(virtualServer)} -> ${hostPort(realServer)}${weighted}`;
}

function formatRule({ action, what, table, chain, family, before, after }: RuleChange): string {
  const place = `${table} ${chain} (IPv${family})`;
  if (what === 'jump') return `${action} rule of ${place}: ${[...before, ...after].join(' ')}`;
  const rules = action === 'delete' ? before.length : after.length;
  return `${action} chain ${place}, ${rules} rules`;
}
