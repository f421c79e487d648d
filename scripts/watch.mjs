#!/usr/bin/env node
/**
 * Compiles on every change, and runs again the unit tests that the change reaches.
 *
 *   npm run watch              all unit tests
 *   npm run watch -- plan      only files whose path contains "plan"
 */
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const tsc = join(root, 'node_modules/.bin/tsc');
const patterns = process.argv.slice(2);

spawnSync(tsc, ['-p', 'tsconfig.json'], { cwd: root, stdio: 'inherit' });
const tests = readdirSync(join(root, 'test/unit'), { recursive: true })
  .filter((name) => name.endsWith('.test.ts'))
  .filter((name) => patterns.length === 0 || patterns.some((pattern) => name.includes(pattern)))
  .map((name) => join('build/test/unit', name.replace(/\.ts$/, '.js')));
if (tests.length === 0) throw new Error(`no file matches ${patterns.join(' ')}`);

const programs = [
  spawn(tsc, ['-p', 'tsconfig.json', '--watch', '--preserveWatchOutput'], { cwd: root, stdio: 'inherit' }),
  spawn(process.execPath, ['--enable-source-maps', '--test', '--watch', '--test-reporter=spec', ...tests], {
    cwd: root,
    stdio: 'inherit',
  }),
];
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    for (const program of programs) program.kill(signal);
  });
}
