#!/usr/bin/env node
/**
 * Puts small faults, one by one, into a copy of the compiled code and runs the unit tests that execute the place: a
 * fault that no test sees is printed, with its line. See test/README.md, "The tests' own power". The tree is not
 * touched. `npm run mutation -- --help` says how to call it.
 *
 * Faults that change nothing anybody could see are listed in test/mutation-equivalent.txt, and are not tried.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { SourceMap } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { mutantsOf } from './mutants.mjs';
import { readCoverage } from './v8-coverage.mjs';

const USAGE = `npm run mutation                                     ten minutes, a new seed
npm run mutation -- --minutes 3 --seed 7 src/plan    three minutes in files whose path has "src/plan"
npm run mutation -- --count 100                      a hundred faults, however long that takes`;

const root = fileURLToPath(new URL('../', import.meta.url));
const { values, positionals: patterns } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: 'string' },
    seed: { type: 'string' },
    count: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}
const seed = Number(values.seed ?? Math.floor(Math.random() * 1e6));
const limit = values.count === undefined ? Infinity : Number(values.count);
const minutes = Number(values.minutes ?? (values.count === undefined ? 10 : Infinity));

const copy = mkdtempSync(join(tmpdir(), 'mutation-'));
process.on('exit', () => rmSync(copy, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));
makeCopy();
const tests = await reach();
const equivalents = readEquivalents();
const mutants = shuffled(allMutants());
console.log(`${mutants.length} faults possible, seed ${seed}`);

const end = performance.now() + minutes * 60_000;
const rooms = new Map();
let tried = 0;
for (const mutant of mutants) {
  if (tried === limit || performance.now() > end) break;
  tried++;
  const killer = await tryMutant(mutant);
  const room = rooms.get(mutant.room) ?? { tried: 0, survived: 0 };
  room.tried++;
  if (killer === undefined) {
    room.survived++;
    console.log(`SURVIVED ${describe(mutant)}`);
  }
  rooms.set(mutant.room, room);
}
console.log(`\nseed ${seed}: faults tried, and survivors`);
for (const [room, { tried: all, survived }] of [...rooms].sort()) {
  console.log(
    `  ${room.padEnd(16)} ${String(all).padStart(4)}  ${String(survived).padStart(3)}  ${percent(survived, all)}`,
  );
}
const survived = [...rooms.values()].reduce((sum, room) => sum + room.survived, 0);
console.log(
  `  ${'all'.padEnd(16)} ${String(tried).padStart(4)}  ${String(survived).padStart(3)}  ${percent(survived, tried)}`,
);

/** The tree once more, since faults, and tests, write; node_modules alone is shared. */
function makeCopy() {
  spawnSync(join(root, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.json'], { cwd: root, stdio: 'inherit' });
  for (const name of readdirSync(root)) {
    if (name === 'node_modules') symlinkSync(join(root, name), join(copy, name));
    else if (name !== '.git' && name !== 'dist') cpSync(join(root, name), join(copy, name), { recursive: true });
  }
}

/**
 * Which unit test executes what: runs each once, but for those of test/unit/project, which judge files and not code.
 * @returns {Promise<{ file: string, seconds: number, executed: Map<string, Uint8Array> }[]>}
 */
async function reach() {
  const files = list(join(copy, 'test/unit'), '.test.ts')
    .filter((name) => !name.startsWith('project/'))
    .map((name) => `build/test/unit/${name.replace(/ts$/, 'js')}`);
  const found = [];
  for (const file of files) {
    const directory = join(copy, 'coverage');
    const { code, seconds } = await run(file, 300, { NODE_V8_COVERAGE: directory });
    if (code !== 0) console.log(`left out, since it fails without any fault: ${file}`);
    else found.push({ file, seconds, executed: readCoverage(directory, join(copy, 'build/')) });
    rmSync(directory, { recursive: true, force: true });
  }
  console.log(`${found.length} test files, ${found.reduce((sum, { seconds }) => sum + seconds, 0).toFixed(0)} s`);
  return found;
}

function allMutants() {
  return list(join(copy, 'src'), '.ts')
    .map((name) => `src/${name}`)
    .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
    .flatMap((file) => {
      const compiled = join(copy, 'build', file.replace(/ts$/, 'js'));
      const text = readFileSync(compiled, 'utf8');
      const map = new SourceMap(JSON.parse(readFileSync(`${compiled}.map`, 'utf8')));
      const lines = readFileSync(join(copy, file), 'utf8').split('\n');
      const room = file
        .split('/')
        .slice(0, file.split('/').length > 2 ? 2 : 1)
        .join('/');
      return mutantsOf(text).map((mutant) => {
        const before = text.slice(0, mutant.start).split('\n');
        const { originalLine = -1, originalColumn = 0 } = map.findEntry(before.length - 1, before.at(-1).length);
        return {
          ...mutant,
          file,
          compiled,
          text,
          room,
          line: originalLine + 1,
          column: originalColumn + 1,
          source: lines[originalLine]?.trim(),
        };
      });
    })
    .filter((mutant) => !equivalents.has(`${mutant.file} | ${change(mutant)} | ${mutant.source}`));
}

/** @returns the test file that saw the fault, or undefined */
async function tryMutant({ compiled, text, start, end: stop, after, room }) {
  const reaching = tests.filter(({ executed }) => executed.get(compiled)?.[start] === 1);
  const isNear = ({ file }) => (file.includes(`/${room.split('/')[1]}/`) ? 0 : 1);
  reaching.sort((a, b) => isNear(a) - isNear(b) || a.seconds - b.seconds);
  writeFileSync(compiled, text.slice(0, start) + after + text.slice(stop));
  try {
    for (const { file, seconds } of reaching) {
      const { code } = await run(file, 20 + 10 * seconds, {});
      if (code !== 0) return file;
    }
  } finally {
    writeFileSync(compiled, text);
  }
  return undefined;
}

/** A test file as a process of its own; ended after so many seconds, since a fault may make a loop endless. */
function run(file, seconds, env) {
  const begun = performance.now();
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [file], {
      cwd: copy,
      stdio: 'ignore',
      detached: true,
      env: { ...process.env, ...env },
    });
    const kill = () => {
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // already gone
      }
    };
    const timer = setTimeout(kill, seconds * 1000);
    child.on('close', (code) => {
      clearTimeout(timer);
      kill();
      resolve({ code: code ?? 1, seconds: (performance.now() - begun) / 1000 });
    });
  });
}

/** Lines `file | "a" -> "b" | source line | reason`; others are comments. Says which of them have lost their line. */
function readEquivalents() {
  const path = join(copy, 'test/mutation-equivalent.txt');
  const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n') : [];
  const found = new Set();
  for (const line of lines.filter((one) => one !== '' && !one.startsWith('#'))) {
    const [file, change, ...rest] = line.split(' | ').slice(0, -1);
    const source = rest.join(' | ');
    const isThere = readFileSync(join(copy, file), 'utf8')
      .split('\n')
      .some((one) => one.trim() === source);
    if (isThere) found.add(`${file} | ${change} | ${source}`);
    else console.log(`not in the source any more, take it out of test/mutation-equivalent.txt: ${line}`);
  }
  return found;
}

function describe(mutant) {
  const isReached = tests.some(({ executed }) => executed.get(mutant.compiled)?.[mutant.start] === 1);
  return `${mutant.file}:${mutant.line}:${mutant.column} ${change(mutant)} | ${mutant.source}${isReached ? '' : ' (no unit test comes here)'}`;
}

function change({ before, after }) {
  return `"${before.replace(/\s+/g, ' ')}" -> "${after.replace(/\s+/g, ' ')}"`;
}

function percent(part, all) {
  return all === 0 ? '' : `${((100 * part) / all).toFixed(1)} %`;
}

function list(directory, extension) {
  return readdirSync(directory, { recursive: true })
    .filter((name) => name.endsWith(extension) && statSync(join(directory, name)).isFile())
    .sort();
}

/** Fisher and Yates, by a generator (mulberry32) that the seed starts. */
function shuffled(items) {
  let state = seed >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [items[i], items[j]] = [items[j], items[i]];
  }
  return items;
}
