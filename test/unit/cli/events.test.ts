/** The command `events` against a daemon that answers as it is told to. */
import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { runEvents } from '../../../src/cli/events.js';
import { type EventsOptions } from '../../../src/cli/options.js';
import { type Environment } from '../../../src/daemon/environment.js';
import { sendJson, sendText } from '../../../src/serve/respond.js';
import { serve, until } from '../../support/http.js';

interface Report {
  readonly total: number;
  readonly events: readonly object[];
}

const event = (sequence: number): object => {
  const at = `2026-11-21T07:00:0${sequence % 10}.000Z`;
  return { at, sequence, kind: 'service', service: `default/s${sequence}`, text: `change ${sequence}` };
};
const report = (total: number, ...sequences: number[]): Report => ({ total, events: sequences.map(event) });

/** Runs `events` against `answers`, the last of which stays; ends it when all were given. */
async function events(t: TestContext, more: Partial<EventsOptions>, ...answers: (Report | undefined)[]) {
  const asked: string[] = [];
  const port = await serve(t, {
    handler: ({ url }, response) => {
      const answer = answers[Math.min(asked.length, answers.length - 1)];
      asked.push(url!);
      if (answer === undefined) sendText(response, 503, 'starting');
      else sendJson(response, 200, answer);
    },
  });
  const stop = new AbortController();
  const said = { out: '', err: '' };
  const environment = {
    out: (text: string) => void (said.out += text),
    err: (text: string) => void (said.err += text),
    stop: stop.signal,
  } as unknown as Environment;
  const document = {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    metricsBindAddress: `127.0.0.1:${port}`,
  };
  const shared = { configFile: undefined, document, overrides: {}, manifests: undefined, warnings: [] };
  const options = { ...shared, format: undefined, headers: true, watchMs: undefined, sinceMs: undefined, ...more };
  const running = runEvents(options, environment);
  if (more.watchMs !== undefined) {
    await until(() => asked.length > answers.length);
    stop.abort();
  }
  return { code: await running, asked, ...said };
}

describe('events', () => {
  test('without --watch asks once, for what is new enough', async (t) => {
    const all = await events(t, {}, report(2, 1, 2));
    assert.deepEqual([all.code, all.asked], [0, ['/events']]);
    assert.equal(all.out, '2026-11-21T07:00:01.000Z change 1\n2026-11-21T07:00:02.000Z change 2\n');
    const recent = await events(t, { sinceMs: 90_500 }, report(2));
    assert.deepEqual([recent.asked, recent.out], [['/events?since=90.5'], 'nothing changed\n']);
    for (const format of [undefined, 'wide'] as const)
      assert.equal((await events(t, { format }, report(0))).out, 'nothing has changed since the daemon started\n');
  });

  test('--watch prints each change once, goes on after a failure, and begins anew with a new daemon', async (t) => {
    const { code, out, err, asked } = await events(
      t,
      { watchMs: 1, format: 'wide' },
      ...[report(1, 1), report(1, 1), report(3, 1, 2, 3), undefined, report(1, 1), report(2, 1, 2)],
    );
    assert.equal(code, 0);
    assert.deepEqual(
      out.split('\n').flatMap((line) => /change \d+/.exec(line) ?? []),
      [1, 2, 3, 1, 2].map((number) => `change ${number}`),
    );
    assert.equal(out.match(/NUMBER/g)?.length, 1, 'the columns are named once');
    assert.match(err, /HTTP 503: starting/);
    assert.ok(asked.every((url) => url === '/events'));
  });

  test('--watch as YAML is a stream of documents; as names, those of the Services', async (t) => {
    const yaml = await events(t, { watchMs: 1, format: 'yaml' }, report(1, 1), report(2, 1, 2));
    assert.deepEqual(yaml.out.match(/^---$|text: .*/gm), ['---', 'text: change 1', '---', 'text: change 2']);
    assert.doesNotMatch((await events(t, { format: 'yaml' }, report(1, 1))).out, /^---/);
    assert.equal((await events(t, { format: 'name' }, report(3, 1, 2, 2))).out, 'default/s1\ndefault/s2\n');
  });

  test('a daemon that does not answer at first is a failure', async (t) => {
    await assert.rejects(events(t, {}, undefined), /no status from the daemon at http.*\/events: HTTP 503/);
  });
});
