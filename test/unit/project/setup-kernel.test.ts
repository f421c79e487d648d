/** The harness itself: what goes into a test kernel comes out again, and nothing else does. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

const RUN = join(import.meta.dirname, '../../../../test/kernel/harness/run.mjs');
const scratch = mkdtempSync(join(tmpdir(), 'harness-test-'));
after(() => rmSync(scratch, { recursive: true, force: true }));
const skip = existsSync('/usr/bin/linux.uml') ? false : 'NOT TESTED: /usr/bin/linux.uml is missing';

function start(args: readonly string[]): { child: ChildProcess; ended: Promise<[code: number | null, text: string]> } {
  const child = spawn(process.execPath, [RUN, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, KERNEL: 'uml', TMPDIR: scratch, TEST_WORD: "it's here" },
  });
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const ended = new Promise<[number | null, string]>((resolve) => child.on('close', (code) => resolve([code, text])));
  return { child, ended };
}

/** Processes of test kernels whose files are in this test's scratch directory. */
function strays(): string[] {
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(`RUN_DIR=${scratch}`);
    } catch {
      return false;
    }
  });
}

async function allGone(): Promise<boolean> {
  for (
    let i = 0;
    i < 1200 && (strays().length > 0 || readdirSync(scratch).some((name) => name.startsWith('test-kernel-')));
    i++
  ) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return strays().length === 0 && !readdirSync(scratch).some((name) => name.startsWith('test-kernel-'));
}

test('output, exit code, variables and shared files come through; other writes stay inside', { skip }, async () => {
  const outside = join(scratch, 'not-written');
  const script = `echo "$TEST_KERNEL $TEST_WORD"; echo result >${scratch}/shared/file; touch ${outside}; [ -e ${outside} ] && exit 7`;
  const { ended } = start(['--timeout', '300', '--share', join(scratch, 'shared'), '--', 'sh', '-c', script]);
  assert.deepEqual(await ended, [7, "uml it's here\n"]);
  assert.equal(readFileSync(join(scratch, 'shared/file'), 'utf8'), 'result\n');
  assert.equal(existsSync(outside), false);
  assert.equal(await allGone(), true);
});

test('a command that hangs is killed at the time-out with code 124, and no process stays', { skip }, async () => {
  const { ended } = start(['--timeout', '4', '--', 'sleep', '1000']);
  assert.deepEqual(await ended, [124, '']);
  assert.equal(await allGone(), true);
});

test('the test kernel ends when the harness is killed', { skip }, async () => {
  const { child, ended } = start(['--timeout', '300', '--', 'sh', '-c', 'echo up; sleep 1000']);
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  assert.notEqual(strays().length, 0);
  child.kill('SIGKILL');
  await ended;
  assert.equal(await allGone(), true);
});
