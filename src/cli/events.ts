/** `events`: what changed of late, as the daemon on this node wrote it down. */
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type Environment } from '../daemon/environment.js';
import { daemonUrl, fetchPage } from './daemon-page.js';
import { type EventsOptions } from './options.js';

/** Prints what changed, from the oldest to the newest; 1 when the daemon does not answer (what is thrown says why). */
export async function runEvents(options: EventsOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const since = options.sinceMs === undefined ? '' : `?since=${options.sinceMs / 1000}`;
  const url = daemonUrl(config, '/events');
  const report = await fetchPage<EventsJson>(`${url}${since}`, url);
  if (options.json) environment.out(`${JSON.stringify(report)}\n`);
  else environment.out(formatEvents(report));
  return 0;
}

interface EventsJson {
  readonly total: number;
  readonly events: readonly { readonly at: string; readonly sequence: number; readonly text: string }[];
}

export function formatEvents({ total, events }: EventsJson): string {
  const [oldest] = events;
  if (oldest === undefined) return total === 0 ? 'nothing has changed since the daemon started\n' : 'nothing changed\n';
  return events.map(({ at, text }) => `${at} ${text}\n`).join('');
}
