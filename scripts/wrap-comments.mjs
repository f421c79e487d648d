#!/usr/bin/env node
/**
 * Wraps comments that reach beyond 120 columns, paragraph by paragraph, which ESLint reports but does not mend. Part of
 * `npm run format`; with file names only those. Tables and indented lines are left for hands.
 */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const WIDTH = 120;
const root = fileURLToPath(new URL('../', import.meta.url));
const named = process.argv.slice(2);
const files = named.length > 0 ? named : ['src', 'native', 'test', 'scripts'].flatMap(sourcesIn);

for (const file of files) {
  const text = readFileSync(file, 'utf8');
  const wrapped = wrap(text.split('\n')).join('\n');
  if (wrapped === text) continue;
  writeFileSync(file, wrapped);
  console.log(`wrapped comments: ${file}`);
}

function sourcesIn(folder) {
  return readdirSync(join(root, folder), { recursive: true })
    .filter((name) => /\.(ts|mjs)$/.test(name) && !name.startsWith('fixtures/'))
    .map((name) => join(root, folder, name));
}

function wrap(lines) {
  const out = [];
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i];
    const whole = /^(\s*)\/\*\* (.*) \*\/$/.exec(line);
    const part = /^(\s*(?:\/\/|\*) )(\S.*)$/.exec(line);
    const trailing = /^(\s*)(.*\S)\s+\/\/ (.*)$/.exec(line);
    if (line.length <= WIDTH) out.push(line);
    else if (whole !== null) {
      const [, indent, words] = whole;
      out.push(`${indent}/**`, ...fill(words, `${indent} * `), `${indent} */`);
    } else if (part !== null) {
      const [, prefix, first] = part;
      const end = endOfParagraph(lines, i, prefix);
      const words = [first, ...lines.slice(i + 1, end).map((one) => one.slice(prefix.length))].join(' ');
      out.push(...fill(words, prefix, /^(@|- )/.test(first) ? '  ' : ''));
      i = end - 1;
    } else if (trailing !== null && !/['"`].*\/\/.*['"`]/.test(line)) {
      const [, indent, code, words] = trailing;
      out.push(...fill(words, `${indent}// `), `${indent}${code}`);
    } else out.push(line);
  }
  return out;
}

/** The index behind the last line that goes on with the sentence: same prefix, no list, tag, table or indentation. */
function endOfParagraph(lines, start, prefix) {
  let end = start + 1;
  while (end < lines.length && lines[end].startsWith(prefix)) {
    if (/^($|\s|@|-|\*|\||\d+\.|```)/.test(lines[end].slice(prefix.length))) break;
    end++;
  }
  return end;
}

/** The words in lines of at most WIDTH columns; those after the first with `hanging` behind the prefix. */
function fill(text, prefix, hanging = '') {
  const lines = [];
  for (const word of text.split(/ +/)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= WIDTH) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(`${prefix}${lines.length === 0 ? '' : hanging}${word}`);
  }
  return lines;
}
