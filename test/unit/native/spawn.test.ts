import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { startProgram } from '../../../native/spawn.js';
import { CommandError, CommandRunner } from '../../../src/kernel/command.js';

const { run } = new CommandRunner(startProgram);

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

test('a program gets its arguments and its input, and gives back all that it writes', async () => {
  const input = 'x'.repeat(1_000_000);
  assert.equal((await run('cat', [], { input })).stdout, input);
  const { stdout, stderr } = await run('sh', [
    '-c',
    'printf "%s|" "$@"; echo oops >&2',
    'sh',
    'two words',
    '$HOME',
    '',
  ]);
  assert.equal(stdout, 'two words|$HOME||');
  assert.equal(stderr, 'oops\n');
});

test('the environment is handed on', async () => {
  process.env['SPAWN_TEST'] = 'some value';
  assert.equal((await run('sh', ['-c', 'echo "$SPAWN_TEST"'])).stdout, 'some value\n');
});

test('exit codes, signals and programs that are not there are CommandErrors', async () => {
  await assert.rejects(run('sh', ['-c', 'echo bad luck >&2; exit 3']), (error: CommandError) => {
    assert.equal(error.exitCode, 3);
    assert.match(error.message, /exited with 3: bad luck/);
    return true;
  });
  await assert.rejects(run('sh', ['-c', 'kill -9 $$']), /killed by signal 9/);
  await assert.rejects(run('no-such-program-anywhere', []), (error: CommandError) => error.missing);
});

test('a program that does not read its input breaks nothing', async () => {
  assert.equal((await run('true', [], { input: 'y'.repeat(1_000_000) })).stdout, '');
});

test('abort and time-out end the program', async () => {
  const abort = new AbortController();
  const running = run('sleep', ['100'], { signal: abort.signal });
  abort.abort();
  await assert.rejects(running, /aborted/);
  await assert.rejects(run('sleep', ['100'], { timeout: 20 }), /no end within 20 ms/);
  await assert.rejects(run('sleep', ['100'], { signal: AbortSignal.abort() }), /aborted before its start/);
});

test('a program that ignores SIGTERM is killed', async () => {
  const stubborn = new CommandRunner(startProgram, 50);
  const script = 'trap "" TERM; while :; do sleep 0.05; done';
  await assert.rejects(stubborn.run('sh', ['-c', script], { timeout: 100 }), /no end within 100 ms/);
});

for (const [way, start] of [
  ['posix_spawn', startProgram],
  ['fork', undefined],
] as const) {
  // It is gone and its process number free, but its child holds the pipe: nothing must be killed, nothing thrown
  // elsewhere.
  test(`a program that ended while its child keeps the pipe is given up, by time-out and abort (${way})`, async () => {
    const runner = new CommandRunner(start, 50);
    const leave = ['-c', 'sleep 3 & exit 0'];
    await assert.rejects(runner.run('sh', leave, { timeout: 200 }), /no end within 200 ms/);
    const abort = new AbortController();
    const running = runner.run('sh', leave, { signal: abort.signal });
    setTimeout(() => abort.abort(), 200);
    await assert.rejects(running, /aborted/);
  });
}

test('many at once: each gets its own answer, no descriptor stays open, none is inherited', async () => {
  await run('true', []);
  const before = openDescriptors();
  const answers = await Promise.all(Array.from({ length: 30 }, (_, i) => run('echo', [String(i)])));
  assert.deepEqual(
    answers.map(({ stdout }) => stdout),
    Array.from({ length: 30 }, (_, i) => `${i}\n`),
  );
  for (let i = 0; i < 10; i++) await assert.rejects(run('no-such-program-anywhere', []));
  assert.equal(openDescriptors(), before);
  const list = ['-c', 'ls /proc/$$/fd'];
  // What this process itself inherited without the close-on-exec flag goes on to both.
  assert.equal((await run('sh', list)).stdout, (await new CommandRunner().run('sh', list)).stdout);
});

test('signals are at their defaults in the program, which Node itself is not', async () => {
  const { stdout } = await run('sh', ['-c', 'grep -E "Sig(Ign|Blk)" /proc/self/status']);
  assert.match(stdout, /SigBlk:\t0+\nSigIgn:\t0+\n/);
});

test('leaves no listener behind', async () => {
  await run('true', []);
  assert.equal(process.listenerCount('SIGCHLD'), 0);
});
