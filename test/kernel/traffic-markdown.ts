/**
 * The table of traffic-cases.ts as Markdown, for docs/packets.md: `node build/test/kernel/traffic-markdown.js`.
 * With `--write FILE` it replaces what stands between the two marker lines of that file.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { PHASES } from './traffic-cases.js';
import { formatExpectation, type Row } from './traffic-table.js';

export const BEGIN = '<!-- traffic table: written by test/kernel/traffic-markdown.ts -->';
export const END = '<!-- end of the traffic table -->';

/** One line per row; the schedulers, which differ in nothing here, are one line together. */
export function trafficMarkdown(): string {
  const lines = ['| configuration | feature | client at, by | what happens |', '| --- | --- | --- | --- |'];
  const schedulers = PHASES.filter((phase) => phase.name.startsWith('scheduler '));
  for (const phase of PHASES) {
    if (phase === schedulers[0]) {
      const names = schedulers.map((one) => one.name.slice('scheduler '.length)).join(', ');
      lines.push(markdownRow(`scheduler ${names}`, { ...phase.rows[0]!, feature: 'scheduler' }));
    }
    if (!schedulers.includes(phase)) for (const row of phase.rows) lines.push(markdownRow(phase.name, row));
  }
  return lines.join('\n');
}

/** The text of a file with its table brought up to date; undefined when it has no place for one. */
export function withTable(text: string): string | undefined {
  const begin = text.indexOf(BEGIN);
  const end = text.indexOf(END);
  if (begin < 0 || end < begin) return undefined;
  return `${text.slice(0, begin + BEGIN.length)}\n\n${trafficMarkdown()}\n\n${text.slice(end)}`;
}

function markdownRow(phase: string, row: Row): string {
  const families = row.families.length === 1 ? ` IPv${row.families[0]}` : '';
  const where = `${row.at.join(', ')}${row.port === undefined ? '' : ` port ${row.port}`}: ${row.ways.join(', ')}${families}`;
  const outcomes = new Map<string, string[]>();
  for (const [place, expected] of row.expect) {
    const text = formatExpectation(expected);
    outcomes.set(text, [...(outcomes.get(text) ?? []), place]);
  }
  const happens = [...outcomes].map(([text, places]) => `${places.join(', ')}: ${text}`).join('; ');
  return `| ${phase} | ${row.feature} | ${where} | ${happens} |`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = process.argv[2] === '--write' ? process.argv[3] : undefined;
  if (file === undefined) console.log(trafficMarkdown());
  else {
    const text = withTable(readFileSync(file, 'utf8'));
    if (text === undefined) throw new Error(`${file} has no line ${BEGIN} followed by ${END}`);
    writeFileSync(file, text);
  }
}
