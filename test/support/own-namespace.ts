/** Unit tests that need nf_tables of a real kernel: in a network namespace of their own, where there is one. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const INSIDE = 'TEST_IN_OWN_NAMESPACE';

/** True in the process that `testInOwnNamespace` starts: there the tests themselves are to be declared. */
export const isInOwnNamespace = process.env[INSIDE] === '1';

/** One test that runs this very file inside such a namespace, where so many tests have to pass. */
export function testInOwnNamespace(name: string, passes: number): void {
  test(name, (context) => {
    const probe = spawnSync('unshare', ['-n', 'nft', 'add', 'table', 'ip', 'probe']);
    if (probe.status !== 0) {
      context.skip(
        'NOT SHOWN HERE: this machine gives no network namespace with nf_tables (needs root, nft, the module)',
      );
      return;
    }
    const { status, stdout } = spawnSync(
      'unshare',
      ['-n', process.execPath, '--enable-source-maps', '--test-reporter=tap', process.argv[1]!],
      { env: { ...process.env, [INSIDE]: '1', NODE_TEST_CONTEXT: '' }, encoding: 'utf8' },
    );
    assert.equal(status, 0, stdout);
    assert.match(stdout, new RegExp(`^# pass ${passes}$`, 'm'));
  });
}
