/** `-o`, `--no-headers` and `--watch`: what every command takes that shows what is there. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { OUTPUT_FORMATS, type OutputFormat, type SeeOptions } from './see.js';
import { type Values, duration, readSharedOptions } from './shared-options.js';

export function addFormats(command: Command): Command {
  return command
    .addOption(new Option('-o, --output <format>', 'in another form; wide: with more').choices(OUTPUT_FORMATS))
    .addOption(jsonOption())
    .option('--no-headers', 'no line of headings')
    .addOption(new Option('-w, --watch [interval]', 'look again every 2s, or as often as said').argParser(interval));
}

/** Older than -o, and still as good. */
export function jsonOption(): Option {
  return new Option('--json', 'the same as -o json');
}

/** For commands that have no table to show. */
export function outputOption(): Option {
  return new Option('-o, --output <format>', 'instead of text').choices(['json', 'yaml']);
}

export function seeOptions(values: Values): SeeOptions {
  const { output, headers, watch, json } = values;
  return {
    ...readSharedOptions(values),
    format: (output as OutputFormat | undefined) ?? (json === true ? 'json' : undefined),
    headers: headers !== false,
    watchMs: watch === undefined ? undefined : typeof watch === 'number' ? watch : WATCH_MS,
  };
}

const WATCH_MS = 2000;
const SHORTEST_WATCH_MS = 200;

function interval(text: string): number {
  const ms = duration(text);
  if (ms < SHORTEST_WATCH_MS) throw new InvalidArgumentError('It is at least 200ms.');
  return ms;
}
