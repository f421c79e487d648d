/** What stands after a command's name: words that it takes and does not take, and `help` before it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runCommandLine } from '../../../src/cli/command-line.js';
import { type CommandHandlers } from '../../../src/cli/options.js';

interface Called {
  readonly code: number;
  readonly calls: readonly object[];
  readonly out: string;
  readonly err: string;
}

async function runWith(...args: string[]): Promise<Called> {
  const calls: object[] = [];
  const record = async (options: object): Promise<number> => (calls.push(options), 0);
  const handlers = new Proxy({}, { get: () => record }) as CommandHandlers;
  let [out, err] = ['', ''];
  const output = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
  return { code: await runCommandLine(args, handlers, '1.2.3', output), calls, out, err };
}

describe('operands', () => {
  it('help names a command by all its words, and knows what a mistyped one was meant to be', async () => {
    for (const [words, usage] of [
      ['help config check', 'config check [options] [file]'],
      ['help services', 'services [options] [match]'],
      ['help', '[options] [command]'],
      ['help flags', 'flags [options]'],
      ['help --help', '[options] [command]'],
    ] as const) {
      const { code, out } = await runWith(...words.split(' '));
      assert.deepEqual([code, out.split('\n', 1)[0]], [0, `Usage: kube-proxy-ipvs ${usage}`]);
    }
    for (const [words, hint] of [
      ['help nosuch', ''],
      ['help servics', '\n(Did you mean services?)'],
      ['help config chek', '\n(Did you mean check?)'],
      ['version', '\n(Did you mean --version?)'],
    ] as const) {
      const { code, out, err } = await runWith(...words.split(' '));
      const unknown = words.split(' ').at(-1);
      assert.deepEqual([code, out], [1, '']);
      assert.equal(err, `error: unknown command '${unknown}'${hint}\n(--help lists the options)\n`);
    }
  });

  it('refuses words that a command does not take: `verify shop/web` would else be about everything', async () => {
    const takes = (most: number, ...words: string[]): [string[], number] => [words, most];
    for (const [words, most] of [
      ...['status', 'events', 'migrate', 'diag', 'verify', 'plan', 'preflight', 'cleanup', 'run', 'flags'].map((name) =>
        takes(0, name),
      ),
      ...['services', 'table', 'backends', 'connections', 'explain', 'completion'].map((name) => takes(1, name)),
      ...[takes(1, 'config', 'check'), takes(1, 'config', 'print')],
    ]) {
      const many = Array.from({ length: most + 1 }, () => (words[0] === 'completion' ? 'bash' : 'default/web'));
      const { code, calls, err } = await runWith(...words, ...many);
      assert.deepEqual([code, calls], [1, []], words.join(' '));
      assert.match(
        err,
        /^error: too many arguments for '[a-z]+'\. Expected [01] arguments? but got [12]/,
        words.join(' '),
      );
      assert.match(err, /--help lists the options/);
    }
  });

  it('takes the Service of backends and connections as kubectl does, too', async () => {
    const service = async (...args: string[]): Promise<unknown> =>
      ((await runWith(...args)).calls[0] as { service: string }).service;
    for (const command of ['backends', 'connections']) {
      assert.equal(await service(command, 'shop/web'), 'shop/web');
      assert.equal(await service(command, '-n', 'shop', 'web'), 'shop/web');
      assert.equal(await service(command, 'web', '--namespace=shop'), 'shop/web');
      assert.equal(await service(command, '-n', 'shop', 'shop/web'), 'shop/web');
      await assert.rejects(runWith(command, '-n', 'bank', 'shop/web'), /shop\/web is not in namespace bank/);
      assert.equal(await service(command, 'web'), 'web', 'judged where the others are known');
    }
  });
});
