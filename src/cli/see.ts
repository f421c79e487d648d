/**
 * How the commands that look at this node show what they found: as text, as data, once or again and again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { type DaemonOptions } from '../daemon/daemon-options.js';
import { type Environment } from '../daemon/environment.js';
import { errorMessage } from '../values/errors.js';
import { type Table, renderTable } from './table-text.js';

export const OUTPUT_FORMATS = ['wide', 'json', 'yaml', 'name'] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

/** Of commands that show what is there. */
export interface SeeOptions extends DaemonOptions {
  /** undefined: a table of the usual columns. */
  readonly format: OutputFormat | undefined;
  readonly headers: boolean;
  /** Milliseconds between two looks; undefined: one look. */
  readonly watchMs: number | undefined;
}

/** What a command found, in every form. */
export interface Answer {
  /** As JSON and YAML have it. */
  readonly data: object;
  /** As text has it: lines of their own, or a table. */
  readonly text: Table | readonly string[];
  /** One word per thing, to be given to other commands. */
  readonly names: readonly string[];
  /** What could not be found out, and what is wrong; one sentence each. */
  readonly notes: readonly string[];
  /** The exit code that it means; 0 when not given. */
  readonly code?: number;
}

/** There is nothing that matches what was asked for. */
export class NothingFoundError extends Error {
  override readonly name = 'NothingFoundError';
}

/** An answer in the form that is asked for, for standard output and for standard error. */
export function renderAnswer(
  answer: Answer,
  { format, headers }: Pick<SeeOptions, 'format' | 'headers'>,
  colours: boolean,
): { out: string; err: string } {
  if (format === 'json') return { out: `${JSON.stringify(answer.data, undefined, 2)}\n`, err: '' };
  if (format === 'yaml') return { out: stringify(answer.data), err: '' };
  const err = answer.notes.map((note) => `note: ${note}\n`).join('');
  if (format === 'name') return { out: lines(answer.names), err };
  const { text } = answer;
  return { out: 'columns' in text ? renderTable(text, { headers, colours }) : lines(text), err };
}

/**
 * Shows what `ask` finds, with `watchMs` again and again until the process is told to end: on a terminal in place of
 * what was there, elsewhere whenever it has changed. Resolves to the exit code of the last answer; rejects as the
 * first `ask` does; a later failure is told, and the next look may succeed.
 */
export async function show(options: SeeOptions, environment: Environment, ask: () => Promise<Answer>): Promise<number> {
  const { watchMs } = options;
  const { out, err, stop, isTerminal = false, variables } = environment;
  const colours = isTerminal && (variables['NO_COLOR'] ?? '') === '' && variables['TERM'] !== 'dumb';
  let answer = await ask();
  const first = renderAnswer(answer, options, colours);
  if (watchMs !== undefined && isTerminal) out(CLEAR);
  out(first.out);
  err(first.err);
  if (watchMs === undefined) return answer.code ?? 0;
  let { out: last, err: lastErr } = first;
  while (await pause(watchMs, stop)) {
    let next: { out: string; err: string };
    try {
      answer = await ask();
      next = renderAnswer(answer, options, colours);
    } catch (error) {
      next = { out: last, err: `${errorMessage(error)}\n` };
    }
    if (isTerminal) out(CLEAR);
    else if (next.out === last && next.err === lastErr) continue;
    else if (next.out !== last) out(SEPARATORS[options.format ?? 'wide']);
    if (isTerminal || next.out !== last) out(next.out);
    err(next.err);
    last = next.out;
    lastErr = next.err;
  }
  return answer.code ?? 0;
}

/** Home, and everything below gone: what was there before the command stays above on terminals that scroll. */
const CLEAR = '\x1b[H\x1b[2J';

/** Between two looks where there is no terminal. */
const SEPARATORS: Readonly<Record<OutputFormat, string>> = { wide: '\n', json: '', yaml: '---\n', name: '\n' };

/** Whether it was not told to end meanwhile. */
export async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await sleep(ms, undefined, { signal });
    return true;
  } catch {
    return false;
  }
}

function lines(texts: readonly string[]): string {
  return texts.map((text) => `${text}\n`).join('');
}
