/** What the daemon says of itself, as ten lines for somebody who wants to know whether to worry. */
import { isGreen } from '../serve/health.js';
import { type StatusReport } from '../serve/status.js';

/** The report as it comes over the wire, where dates are text; an older daemon has neither repairs nor versions. */
export type StatusJson = Wire<Omit<StatusReport, 'repairs' | 'versions'>> &
  Partial<Wire<Pick<StatusReport, 'repairs' | 'versions'>>>;

type Wire<T> = T extends Date ? string : T extends object ? { [K in keyof T]: Wire<T[K]> } : T;

/** Notes printed; JSON has all that the daemon tells. */
const NOTES = 12;

export function formatStatus(report: StatusJson, now: Date): string {
  const { node, version, health, versions = {}, counts, kernel, repairs = {}, notes } = report;
  const { kernel: release = 'unknown', iptables = 'unknown', families = 'unknown' } = versions;
  const up = age(report.startedAt, now);
  const lines = [`node ${node}, version ${version}: ${isGreen(health) ? 'healthy' : 'NOT HEALTHY'}`];
  for (const reason of health.reasons) lines.push(`  ${reason}`);
  lines.push(`up for ${up}; kernel ${release}, iptables ${iptables}, ${families}`);
  lines.push(`wanted: ${listed(counts)}`, `written: ${listed(kernel.counts)}`);
  lines.push(`last sync: ${last(report.lastSync, now)}${syncing(kernel.syncingFor)}`);
  lines.push(`last verification: ${last(report.lastVerification, now)}`);
  lines.push(`drains: ${drains(report)}`);
  lines.push(`repaired in the last hour: ${Object.keys(repairs).length === 0 ? 'nothing' : listed(repairs)}`);
  for (const note of notes.slice(0, NOTES)) lines.push(`note: ${note}`);
  if (notes.length > NOTES) lines.push(`and ${notes.length - NOTES} more notes (--json has them)`);
  return `${lines.join('\n')}\n`;
}

function listed(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ');
}

function last(event: StatusJson['lastSync'], now: Date): string {
  if (event === undefined) return 'none yet';
  return `${age(event.at, now)} ago, ${event.result} (${event.seconds.toFixed(3)} s)`;
}

function syncing(seconds: number | undefined): string {
  return seconds === undefined ? '' : `; one is under way for ${seconds.toFixed(1)} s`;
}

function drains({ drains: all }: StatusJson): string {
  if (all.length === 0) return 'none';
  const connections = all.reduce((sum, drain) => sum + drain.connections, 0);
  const deadline = all
    .map((drain) => drain.deadline)
    .sort()
    .at(-1)!;
  const named = all.slice(0, 3).map((drain) => `${drain.virtualServer} -> ${drain.realServer} (${drain.connections})`);
  const more = all.length > named.length ? ` and ${all.length - named.length} more` : '';
  return `${all.length} with ${connections} connections, until ${deadline} at the latest: ${named.join(', ')}${more}`;
}

/** `12 s`, `4 min`, `3 h`, `9 d`. */
export function age(since: string, now: Date): string {
  const seconds = Math.max(0, (now.getTime() - new Date(since).getTime()) / 1000);
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}
