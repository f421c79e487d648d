/** The head of the status page: health first, then what is wanted, what the kernel has, and what happened of late. */
import { isGreen } from '../health.js';
import { type StatusChange, type StatusEvent, type StatusRepair, type StatusReport, countLabel } from '../status.js';
import { type Html, type HtmlValue, html } from './html.js';
import { type Layout, table } from './layout.js';
import { sparkline } from './sparkline.js';
import { ago, counted, duration, grouped } from './text.js';

const MOST_DRAINS = 50;

/** The head bar of every page of this node; `trail` is where on it one is. */
export function nodeHeader({ node, health }: StatusReport, trail?: HtmlValue): Layout['header'] {
  const state = isGreen(health) ? html`<p class="pill ok">Healthy</p>` : html`<p class="pill bad">Not healthy</p>`;
  return html`<p class="brand">
      ${trail === undefined ? 'kube-proxy-ipvs' : html`kube-proxy-ipvs on <a href="/status">${node}</a>`}
    </p>
    <h1>${trail ?? node}</h1>
    ${trail === undefined ? state : undefined}`;
}

export function nodeFooter({ version, startedAt, versions }: StatusReport, now: Date): Html {
  const { kernel = '', iptables = '', families = '' } = versions;
  const facts = [`kube-proxy-ipvs ${version}`, `started ${ago(startedAt, now)}`];
  if (kernel !== '') facts.push(`kernel ${kernel}`);
  if (iptables !== '') facts.push(`rules by iptables ${iptables}`);
  if (families !== '') facts.push(families);
  return html`<ul>
      ${facts.map((fact) => html`<li>${fact}</li>`)}
    </ul>
    <nav aria-label="Other pages">
      <ul>
        ${['/status.json', '/metrics', '/configz', '/'].map((path) => html`<li><a href="${path}">${path === '/' ? 'all pages' : path}</a></li>`)}
      </ul>
    </nav>`;
}

/** Everything above the list of Services. */
export function overview(report: StatusReport, now: Date): Html {
  return html`${reasons(report)}
    <div class="cards">
      ${wanted(report)} ${inKernel(report, now)} ${lastChange(report, now)} ${repairs(report, now)}
    </div>
    ${notes(report)}`;
}

/** Everything below it. */
export function recent(report: StatusReport, changes: readonly StatusChange[], now: Date): Html {
  return html`${drains(report, now)}${changesSection(changes, now)}`;
}

function reasons({ health }: StatusReport): Html | undefined {
  if (health.reasons.length === 0) return undefined;
  const lines = health.reasons.map((reason) => html`<li>${reason}</li>`);
  return html`<section class="trouble" aria-labelledby="why">
    <h2 id="why">Why it is not healthy</h2>
    <ul>
      ${lines}
    </ul>
  </section>`;
}

function wanted({ counts }: StatusReport): Html {
  return html`<div class="card">
    <h2>Wanted</h2>
    <dl>${numbers(counts)}</dl>
    <p class="muted">by the cluster, for this node</p>
  </div>`;
}

function numbers(counts: Readonly<Record<string, number>>): Html[] {
  return Object.entries(counts).map(
    ([name, count]) =>
      html`<dt>${countLabel(name)}</dt>
        <dd>${grouped(count)}</dd>`,
  );
}

/** The counts are the daemon's own books: says when the kernel was last seen to agree with them. */
function inKernel({ kernel, lastVerification }: StatusReport, now: Date): Html {
  const isRunning = kernel.syncingFor !== undefined && kernel.syncingFor >= 1;
  const proof = isRunning
    ? html`<p class="warn">not settled: a sync or repair has been running for ${duration(kernel.syncingFor)}</p>`
    : lastVerification === undefined
      ? html`<p class="muted">as written, not read back yet</p>`
      : html`<p class="muted">
          as written; all of it read back ${ago(lastVerification.at, now)} in ${duration(lastVerification.seconds)}:
          ${lastVerification.result}
        </p>`;
  return html`<div class="card">
    <h2>In the kernel</h2>
    <dl>${numbers(kernel.counts)}</dl>
    ${proof}
  </div>`;
}

function lastChange({ lastSync, history }: StatusReport, now: Date): Html {
  const seconds = history.syncs.map((sync) => sync.seconds);
  const sorted = [...seconds].sort((a, b) => a - b);
  const label = `Time of the ${seconds.length === 1 ? 'one sync' : `last ${seconds.length} syncs`} that changed something: median ${duration(sorted[sorted.length >> 1] ?? 0)}, longest ${duration(sorted.at(-1) ?? 0)}`;
  const drawn =
    seconds.length === 0
      ? undefined
      : html`${sparkline(seconds, { label, isLogarithmic: true })}
          <p class="muted">${label}</p>`;
  return html`<div class="card">
    <h2>Last change</h2>
    ${event(lastSync, now)}${drawn}
  </div>`;
}

function event(last: StatusEvent | undefined, now: Date): Html {
  if (last === undefined) return html`<p class="muted">not yet</p>`;
  return html`<p><span class="big">${ago(last.at, now)}</span></p>
    <p>${last.result}, in ${duration(last.seconds)}</p>`;
}

function repairs({ history, lastRepair, repairs: lastHour }: StatusReport, now: Date): Html {
  const total = Object.values(lastHour).reduce((sum, count) => sum + count, 0);
  const what = Object.entries(lastHour)
    .map(([object, count]) => counted(count, object.replace('_', ' '), `${object.replace('_', ' ')}s`))
    .join(', ');
  const label = `Repairs in each of the last 60 minutes: ${total === 0 ? 'none' : `${grouped(total)} in all`}`;
  return html`<div class="card">
    <h2>Repaired in the last hour</h2>
    <p><span class="big">${total === 0 ? 'nothing' : what}</span></p>
    ${sparkline(history.repairs, { label })}
    <p class="muted">per minute; what somebody else had changed in the kernel</p>
    ${repairLine(lastRepair, now)}
  </div>`;
}

function repairLine(repair: StatusRepair | undefined, now: Date): Html | undefined {
  if (repair === undefined) return undefined;
  const { at, kind, object, name, services, total } = repair;
  const owners = services.map((service) => html` (${serviceLink(service)})`);
  const more = total > 1 ? html` and ${counted(total - 1, 'more difference')}` : undefined;
  return html`<p>Last, ${ago(at, now)}: ${kind} ${object.replace('_', ' ')} <code>${name}</code>${owners}${more}</p>`;
}

export function serviceLink(service: string): Html {
  return html`<a href="/status/service?name=${encodeURIComponent(service)}">${service}</a>`;
}

function notes({ notes: lines }: StatusReport): Html | undefined {
  if (lines.length === 0) return undefined;
  return html`<section class="attention" aria-labelledby="attention">
    <h2 id="attention">Attention</h2>
    <ul>
      ${lines.map((line) => html`<li>${line}</li>`)}
    </ul>
  </section>`;
}

function drains({ drains: list, kernel }: StatusReport, now: Date): Html | undefined {
  if (list.length === 0) return undefined;
  const total = Math.max(list.length, kernel.counts['drainingRealServers'] ?? 0);
  const columns = ['Real server', 'Virtual server', 'Connections', 'Deadline in'].map((label) => ({
    ...{ name: label, label, isNumber: label === 'Connections' },
  }));
  const groups = list.slice(0, MOST_DRAINS).map(({ realServer, virtualServer, connections, deadline }) => ({
    header: html`<code>${realServer}</code>`,
    rows: [[html`<code>${virtualServer}</code>`, grouped(connections), timeLeft(deadline, now)]],
  }));
  const more =
    total > groups.length
      ? html`<p class="muted">
          and ${grouped(total - groups.length)} more; <a href="/status?show=draining">Services that drain</a>
        </p>`
      : undefined;
  return html`<section aria-labelledby="draining">
    <h2 id="draining">Draining</h2>
    ${table('Draining real servers', columns, groups)}${more}
  </section>`;
}

function timeLeft(deadline: Date | undefined, now: Date): string {
  return deadline === undefined ? 'none' : duration(Math.max(0, (deadline.getTime() - now.getTime()) / 1000));
}

/** Changes of late, from the newest on. */
export function changesSection(changes: readonly StatusChange[], now: Date): Html | undefined {
  if (changes.length === 0) return undefined;
  const lines = changes.map(
    ({ at, text }) =>
      html`<li><time class="muted" datetime="${at.toISOString()}">${ago(at, now)}</time> <span>${text}</span></li>`,
  );
  return html`<section aria-labelledby="changes">
    <h2 id="changes">Latest changes</h2>
    <ol class="changes">
      ${lines}
    </ol>
  </section>`;
}
