/**
 * Reads what Node leaves in NODE_V8_COVERAGE. (Its own report, --experimental-test-coverage, fails on Node 20 for
 * sources compiled with source maps.)
 */
import { readFileSync, readdirSync } from 'node:fs';
import { SourceMap } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Which characters of each compiled file were executed by any of the processes.
 * @param {string} directory as given in NODE_V8_COVERAGE
 * @param {string} root only files under this directory count
 * @returns {Map<string, Uint8Array>} by path of the compiled file; 1: executed
 */
export function readCoverage(directory, root) {
  const executed = new Map();
  for (const name of readdirSync(directory)) {
    const { result } = JSON.parse(readFileSync(join(directory, name), 'utf8'));
    for (const { url, functions } of result) {
      const path = url.startsWith('file:') ? fileURLToPath(url) : '';
      if (!path.startsWith(root)) continue;
      if (!executed.has(path)) executed.set(path, new Uint8Array(readFileSync(path, 'utf8').length));
      const merged = executed.get(path);
      const once = ofOneProcess(functions, merged.length);
      for (let i = 0; i < merged.length; i++) merged[i] |= once[i];
    }
  }
  return executed;
}

/** V8 gives nested ranges, outer ones first: the innermost count holds. */
function ofOneProcess(functions, length) {
  const executed = new Uint8Array(length);
  const ranges = functions.flatMap(({ ranges: list }) => list);
  ranges.sort((a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset);
  for (const { startOffset, endOffset, count } of ranges) executed.fill(count > 0 ? 1 : 0, startOffset, endOffset);
  return executed;
}

/**
 * Executed or not, by line of the TypeScript source, for lines that hold code.
 * @param {string} path of the compiled file, with its source map beside it
 * @param {Uint8Array} executed from readCoverage
 * @returns {Map<number, boolean>} by line, counted from 1
 */
export function sourceLines(path, executed) {
  const map = new SourceMap(JSON.parse(readFileSync(`${path}.map`, 'utf8')));
  const lines = new Map();
  let offset = 0;
  for (const [index, line] of readFileSync(path, 'utf8').split('\n').entries()) {
    const column = line.search(/\S/);
    if (column >= 0 && !/^\s*(\/\/|\/?\*|[{}()\][;,]*$)/.test(line)) {
      const { originalLine } = map.findEntry(index, column);
      if (originalLine !== undefined) {
        const isExecuted = executed[offset + column] === 1;
        lines.set(originalLine + 1, (lines.get(originalLine + 1) ?? true) && isExecuted);
      }
    }
    offset += line.length + 1;
  }
  return lines;
}
