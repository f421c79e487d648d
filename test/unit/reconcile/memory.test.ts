/** What the daemon keeps of a cluster. Bytes on the heap do not depend on how busy the machine is. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';

/** Measured: 2,214 on Node 20; arrays with spare room alone were 400 more. */
const MOST_BYTES = 2600;

test('a Service with ten endpoints, from objects as a real cluster has them, keeps few bytes', () => {
  const output = execFileSync(process.execPath, ['--expose-gc', 'build/test/support/kept-memory.js', '10000'], {
    encoding: 'utf8',
  });
  const bytes = Number(output);
  assert.ok(bytes > 500 && bytes <= MOST_BYTES, `${bytes} bytes for each Service`);
});
