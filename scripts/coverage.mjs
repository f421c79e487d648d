#!/usr/bin/env node
/**
 * Runs the unit tests and prints which lines of src and native none of them reached. Kernel tests are not counted.
 *
 *   npm run coverage              all
 *   npm run coverage -- plan      only unit tests whose path contains "plan"
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readCoverage, sourceLines } from './v8-coverage.mjs';

const root = fileURLToPath(new URL('../', import.meta.url));
const build = join(root, 'build/');
const directory = mkdtempSync(join(tmpdir(), 'coverage-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

const { status } = spawnSync(
  process.execPath,
  [join(root, 'scripts/run-tests.mjs'), 'unit', ...process.argv.slice(2)],
  { cwd: root, stdio: 'inherit', env: { ...process.env, NODE_V8_COVERAGE: directory } },
);
const coverage = readCoverage(directory, build);
const rooms = new Map();
const files = ['src', 'native'].flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name)),
);
console.log('\nlines that no unit test reached:');
for (const file of files.sort()) {
  const compiled = join(build, file.replace(/\.ts$/, '.js'));
  if (!existsSync(`${compiled}.map`)) continue;
  const executed = coverage.get(compiled);
  const lines = sourceLines(compiled, executed ?? new Uint8Array());
  const missed = [...lines].flatMap(([line, isExecuted]) => (isExecuted ? [] : line)).sort((a, b) => a - b);
  const room = file
    .split('/')
    .slice(0, file.startsWith('src/') && file.split('/').length > 2 ? 2 : 1)
    .join('/');
  const sum = rooms.get(room) ?? { all: 0, missed: 0 };
  rooms.set(room, { all: sum.all + lines.size, missed: sum.missed + missed.length });
  if (missed.length > 0) console.log(`  ${relative('.', file)}: ${executed === undefined ? 'all' : runs(missed)}`);
}
console.log('\nreached, by room:');
for (const [room, { all, missed }] of rooms) {
  console.log(`  ${room.padEnd(16)} ${(100 - (100 * missed) / all).toFixed(1).padStart(5)} % of ${all} lines`);
}
process.exitCode = status ?? 1;

/** 3, 4, 5, 9 as "3-5, 9". */
function runs(lines) {
  const parts = [];
  for (let i = 0; i < lines.length; i++) {
    const first = lines[i];
    while (lines[i + 1] === lines[i] + 1) i++;
    parts.push(first === lines[i] ? `${first}` : `${first}-${lines[i]}`);
  }
  return parts.join(', ');
}
