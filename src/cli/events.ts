/** `events`: what changed of late, as the daemon on this node wrote it down. */
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type Environment } from '../daemon/environment.js';
import { daemonUrl, fetchPage } from './daemon-page.js';
import { errorMessage } from '../values/errors.js';
import { type EventsOptions } from './options.js';
import { type Answer, pause, renderAnswer } from './see.js';

/**
 * Prints what changed, from the oldest to the newest, and with `watchMs` what comes until the process is told to end;
 * rejects when the daemon does not answer.
 */
export async function runEvents(options: EventsOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const { sinceMs, watchMs } = options;
  const url = daemonUrl(config, '/events');
  const fetchSince = (ms: number | undefined): Promise<EventsJson> =>
    fetchPage<EventsJson>(ms === undefined ? url : `${url}?since=${ms / 1000}`, url);
  const first = await fetchSince(sinceMs);
  print(first, options, environment);
  let last = first.total;
  while (watchMs !== undefined && (await pause(watchMs, environment.stop))) {
    try {
      const { total, events } = await fetchSince(undefined);
      // A daemon that was restarted counts from one again.
      const known = total < last ? 0 : last;
      const fresh = events.filter(({ sequence }) => sequence > known);
      if (fresh.length > 0) print({ total, events: fresh }, { ...options, headers: false }, environment);
      last = total;
    } catch (error) {
      environment.err(`${errorMessage(error)}\n`);
    }
  }
  return 0;
}

function print(report: EventsJson, options: EventsOptions, { out, err }: Environment): void {
  const rendered = renderAnswer(eventsAnswer(report, options), options, false);
  out(options.watchMs !== undefined && options.format === 'yaml' ? `---\n${rendered.out}` : rendered.out);
  err(rendered.err);
}

/** `-o name` has the Services that were concerned, each once. */
export function eventsAnswer(report: EventsJson, { format }: Pick<EventsOptions, 'format'>): Answer {
  const { events } = report;
  const names = [...new Set(events.flatMap(({ service }) => service ?? []))];
  const lines = formatEvents(report).trimEnd().split('\n');
  const rows = events.map(({ at, sequence, kind, service = '', text }) => [sequence, at, kind, service, text]);
  const text = format === 'wide' && rows.length > 0 ? { columns: COLUMNS, rows } : lines;
  return { data: report, text, names, notes: [] };
}

const COLUMNS = ['NUMBER', 'TIME', 'KIND', 'SERVICE', 'EVENT'];

interface EventJson {
  readonly at: string;
  readonly sequence: number;
  readonly kind: string;
  readonly service?: string;
  readonly text: string;
}

interface EventsJson {
  readonly total: number;
  readonly events: readonly EventJson[];
}

export function formatEvents({ total, events }: EventsJson): string {
  const [oldest] = events;
  if (oldest === undefined) return total === 0 ? 'nothing has changed since the daemon started\n' : 'nothing changed\n';
  return events.map(({ at, text }) => `${at} ${text}\n`).join('');
}
