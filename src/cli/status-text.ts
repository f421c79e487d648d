/** What the daemon says of itself, as ten lines for somebody who wants to know whether to worry. */
import { isGreen } from '../serve/health.js';
import { type StatusReport, countLabel } from '../serve/status.js';

/** The report as it comes over the wire, where dates are text; an older daemon has not all of it. */
type Later = 'repairs' | 'versions' | 'lastRepair' | 'history';
export type StatusJson = Wire<Omit<StatusReport, Later>> & Partial<Wire<Pick<StatusReport, Later>>>;

type Wire<T> = T extends Date ? string : T extends object ? { [K in keyof T]: Wire<T[K]> } : T;

/** Notes printed unless all are asked for. */
const NOTES = 12;

/** `isWide`: every note, and every drain. */
export function formatStatus(report: StatusJson, now: Date, isWide = false): string {
  const { node, version, health, versions = {}, counts, kernel, repairs = {}, notes } = report;
  const { kernel: release = 'unknown', iptables = 'unknown', families = 'unknown', vips } = versions;
  const up = age(report.startedAt, now);
  const lines = [`node ${node}, version ${version}: ${isGreen(health) ? 'healthy' : 'NOT HEALTHY'}`];
  for (const reason of health.reasons) lines.push(`  ${reason}`);
  const routes = vips === 'routes' ? ', VIPs as routes' : '';
  lines.push(`up for ${up}; kernel ${release}, iptables ${iptables}, ${families}${routes}`);
  lines.push(`wanted: ${counted(counts)}`, `written: ${counted(kernel.counts)}`);
  lines.push(`last sync: ${last(report.lastSync, now)}${syncing(kernel.syncingFor)}`);
  lines.push(`last verification: ${last(report.lastVerification, now)}`);
  lines.push(`drains: ${drains(report, isWide)}`);
  const repaired = Object.keys(repairs).length === 0 ? 'nothing' : listed(repairs);
  lines.push(`repaired in the last hour: ${repaired}${lastRepair(report, now)}`);
  const told = isWide ? notes : notes.slice(0, NOTES);
  for (const note of told) lines.push(`note: ${note}`);
  if (notes.length > told.length) lines.push(`and ${notes.length - told.length} more notes (-o wide has them)`);
  return `${lines.join('\n')}\n`;
}

/** `; last 12 s ago: missing real_server TCP 10.96.0.1:80 -> 10.1.2.3:8080 (shop/web) and 3 more` */
function lastRepair({ lastRepair: repair }: StatusJson, now: Date): string {
  if (repair === undefined) return '';
  const { at, kind, object, name, services, total } = repair;
  const owners = services.length === 0 ? '' : ` (${services.join(', ')})`;
  return `; last ${age(at, now)} ago: ${kind} ${object} ${name}${owners}${total > 1 ? ` and ${total - 1} more` : ''}`;
}

function counted(counts: Readonly<Record<string, number>>): string {
  return listed(Object.fromEntries(Object.entries(counts).map(([key, count]) => [countLabel(key), count])));
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

function drains({ drains: all, kernel }: StatusJson, isWide: boolean): string {
  if (all.length === 0) return 'none';
  const connections = all.reduce((sum, drain) => sum + drain.connections, 0);
  const deadlines = all.flatMap((drain) => drain.deadline ?? []).sort();
  const until = deadlines.length < all.length ? 'without a deadline' : `until ${deadlines.at(-1)} at the latest`;
  const total = Math.max(all.length, kernel.counts['drainingRealServers'] ?? 0);
  const named = all
    .slice(0, isWide ? all.length : 3)
    .map((drain) => `${drain.virtualServer} -> ${drain.realServer} (${drain.connections})`);
  const more = total > named.length ? ` and ${total - named.length} more` : '';
  return `${total} with ${connections} connections, ${until}: ${named.join(', ')}${more}`;
}

/** `12 s`, `4 min`, `3 h`, `9 d`. */
export function age(since: string, now: Date): string {
  const seconds = Math.max(0, (now.getTime() - new Date(since).getTime()) / 1000);
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}
