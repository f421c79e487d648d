import { isGreen } from './health.js';
import { type StatusEvent, type StatusPage, type StatusReport, type StatusService } from './status.js';

const STYLE = `body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1c2024;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #d8dce0;vertical-align:top}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.95em}
.green{color:#0a6b2d}.red{color:#b3261e}.muted{color:#5f6870}
@media(prefers-color-scheme:dark){body{background:#16181b;color:#e4e7ea}th,td{border-color:#3a4048}.green{color:#5cc98a}.red{color:#ff8a80}.muted{color:#9aa3ab}}`;

/** The status page: no script, no outside resource, every value escaped. `now` dates the ages. */
export function statusHtml(page: StatusPage, now: Date): string {
  const { report } = page;
  const title = `kube-proxy-ipvs on ${report.node}`;
  return [
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${escape(title)}</title>`,
    `<meta name="viewport" content="width=device-width,initial-scale=1"><style>${STYLE}</style></head><body>`,
    `<h1>${escape(title)}</h1>`,
    overview(report, now),
    notes(report.notes),
    drains(report, now),
    services(page),
    '</body></html>\n',
  ].join('\n');
}

function overview(report: StatusReport, now: Date): string {
  const { health, kernel } = report;
  const state = isGreen(health) ? '<b class="green">healthy</b>' : '<b class="red">not healthy</b>';
  const why = health.reasons.length === 0 ? '' : `: ${escape(health.reasons.join('; '))}`;
  const event = (last: StatusEvent | undefined): string =>
    last === undefined ? 'not yet' : `${ago(last.at, now)}, took ${duration(last.seconds)}: ${escape(last.result)}`;
  return table([
    ['State', state + why],
    ['Last change', event(report.lastSync)],
    ['Last verification', event(report.lastVerification)],
    ['Wanted', countsText(report.counts)],
    ['In the kernel', `${countsText(kernel.counts)}${proof(report, now)}`],
    ['Version', `${escape(report.version)}, started ${ago(report.startedAt, now)}`],
  ]);
}

/** The counts are the daemon's own books: says when the kernel was last seen to agree with them. */
function proof({ kernel, lastVerification }: StatusReport, now: Date): string {
  if (kernel.syncingFor !== undefined && kernel.syncingFor >= 1)
    return `: not settled, a sync or repair has been running for ${duration(kernel.syncingFor)}`;
  if (lastVerification === undefined) return ' as written, not read back yet';
  return ` as written; read back ${ago(lastVerification.at, now)}: ${escape(lastVerification.result)}`;
}

function countsText(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([name, count]) => `${count} ${escape(name)}`)
    .join(', ');
}

function notes(lines: readonly string[]): string {
  if (lines.length === 0) return '';
  return `<h2>Attention</h2><ul>${lines.map((line) => `<li>${escape(line)}</li>`).join('')}</ul>`;
}

function drains({ drains: list }: StatusReport, now: Date): string {
  if (list.length === 0) return '';
  const rows = list.map(
    ({ virtualServer, realServer, connections, deadline }) =>
      `<tr><td><code>${escape(realServer)}</code></td><td><code>${escape(virtualServer)}</code></td>` +
      `<td class="n">${connections}</td><td>${timeLeft(deadline, now)}</td></tr>`,
  );
  const head = '<tr><th>Real server</th><th>Virtual server</th><th class="n">Connections</th><th>Deadline in</th></tr>';
  return `<h2>Draining</h2><table>${head}${rows.join('')}</table>`;
}

function timeLeft(deadline: Date | undefined, now: Date): string {
  return deadline === undefined ? 'none' : duration(Math.max(0, (deadline.getTime() - now.getTime()) / 1000));
}

function services({ query, total, services: list }: StatusPage): string {
  const rows = list.map(serviceRows).join('\n');
  const shown =
    total === 0
      ? 'none'
      : `${Math.min(query.offset + 1, total)} to ${Math.min(query.offset + list.length, total)} of ${total}`;
  const head =
    '<tr><th>Service</th><th>Virtual server</th><th>Scheduler</th>' +
    '<th class="n">Real servers</th><th class="n">Draining</th></tr>';
  return `<h2>Services</h2>
<form><input name="search" value="${escape(query.search)}" aria-label="search" placeholder="namespace/name or address"> <button>Search</button></form>
<p class="muted">${shown}${link('previous', query.offset > 0, query.offset - query.limit)}${link('next', query.offset + list.length < total, query.offset + list.length)}</p>
<table>${head}
${rows}
</table>`;

  function link(text: string, isUseful: boolean, offset: number): string {
    if (!isUseful) return '';
    const to = new URLSearchParams({
      search: query.search,
      offset: String(Math.max(0, offset)),
      limit: String(query.limit),
    });
    return ` <a href="?${escape(to.toString())}">${text}</a>`;
  }
}

function serviceRows({ namespace, name, virtualServers }: StatusService): string {
  const title = `<td>${escape(`${namespace}/${name}`)}</td>`;
  if (virtualServers.length === 0) return `<tr>${title}<td class="muted" colspan="4">nothing programmed</td></tr>`;
  return virtualServers
    .map(
      ({ virtualServer, scheduler, realServers, draining }, index) =>
        `<tr>${index === 0 ? title : '<td></td>'}<td><code>${escape(virtualServer)}</code></td><td>${escape(scheduler)}</td>` +
        `<td class="n">${realServers}</td><td class="n">${draining}</td></tr>`,
    )
    .join('\n');
}

function table(rows: readonly (readonly [string, string])[]): string {
  return `<table>${rows.map(([name, value]) => `<tr><th>${name}</th><td>${value}</td></tr>`).join('\n')}</table>`;
}

function ago(at: Date, now: Date): string {
  return `${duration(Math.max(0, (now.getTime() - at.getTime()) / 1000))} ago`;
}

function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Math.round(seconds * 10) / 10} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ESCAPES[character]!);
}
