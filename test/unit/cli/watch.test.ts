/** What --watch writes, on a terminal and elsewhere, while answers change and looks fail. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Answer, type OutputFormat, type SeeOptions, show } from '../../../src/cli/see.js';
import { type Environment } from '../../../src/daemon/environment.js';

describe('--watch', () => {
  /** What is written while `answers` come, one at each look; an Error is a look that fails. */
  async function watched(
    more: { isTerminal?: boolean; format?: OutputFormat },
    ...answers: (string | Error)[]
  ): Promise<{ code: number; written: string[] }> {
    const stop = new AbortController();
    const written: string[] = [];
    let looks = 0;
    const ask = (): Promise<Answer> => {
      const answer = answers[looks++]!;
      if (looks === answers.length) setImmediate(() => stop.abort());
      if (answer instanceof Error) return Promise.reject(answer);
      return Promise.resolve({ data: { answer }, text: [answer], names: [answer], notes: [], code: looks });
    };
    const { format, ...terminal } = more;
    const environment = {
      ...{ ...terminal, stop: stop.signal, variables: {} },
      out: (text: string) => void written.push(...[text].filter(Boolean)),
      err: (text: string) => void written.push(...[text].filter(Boolean).map((one) => `! ${one}`)),
    } as unknown as Environment;
    const options = { format, headers: true, watchMs: 1 } as SeeOptions;
    return { code: await show(options, environment, ask), written };
  }
  const CLEAR = '\x1b[H\x1b[2J';

  test('on a terminal each look takes the place of the one before', async () => {
    const { code, written } = await watched({ isTerminal: true }, 'a', 'a', new Error('away'), 'b');
    assert.deepEqual(written, [CLEAR, 'a\n', CLEAR, 'a\n', CLEAR, 'a\n', '! away\n', CLEAR, 'b\n']);
    assert.equal(code, 4, 'that of the last answer');
  });

  test('elsewhere what changed is written, apart from what was there, and a failure once', async () => {
    const away = new Error('away');
    const looks = ['a', 'a', away, away, 'a', 'b'];
    for (const [format, separator] of [
      [undefined, ['\n']],
      ['wide', ['\n']],
      ['name', ['\n']],
    ] as const)
      assert.deepEqual((await watched({ format } as object, ...looks)).written, [
        ...['a\n', '! away\n'],
        ...[...separator, 'b\n'],
      ]);
    assert.deepEqual(
      (await watched({ format: 'json' }, 'a', 'b')).written,
      ['a', 'b'].map((answer) => `${JSON.stringify({ answer }, undefined, 2)}\n`),
    );
    assert.deepEqual((await watched({ format: 'yaml' }, 'a', 'b')).written, ['answer: a\n', '---\n', 'answer: b\n']);
  });

  test('notes are said at the first look, whose exit code is 0 where it says none', async () => {
    for (const watchMs of [undefined, 1]) {
      const said = { out: '', err: '' };
      const stop = new AbortController();
      const environment = {
        ...{ stop: stop.signal, variables: {} },
        out: (text: string) => void (said.out += text),
        err: (text: string) => void (said.err += text),
      } as unknown as Environment;
      const options = { format: undefined, headers: true, watchMs } as SeeOptions;
      const ask = (): Promise<Answer> => {
        setImmediate(() => stop.abort());
        return Promise.resolve({ data: {}, text: ['a'], names: [], notes: ['not all is known'] });
      };
      assert.equal(await show(options, environment, ask), 0);
      assert.deepEqual(said, { out: 'a\n', err: 'note: not all is known\n' });
    }
  });

  test('a first look that fails is the end', async () => {
    await assert.rejects(watched({}, new Error('away')), /away/);
  });
});
