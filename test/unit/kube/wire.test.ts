/** Lines of a watch and lists, as an API server sends them and as none does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeError } from '../../../src/kube/errors.js';
import { parseEnvelope, parseJson, parseWatchLine } from '../../../src/kube/wire.js';

const line = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

function failure(run: () => unknown): KubeError {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof KubeError, String(error));
    return error;
  }
  return assert.fail('no error');
}

test('an ERROR event is the Status in it; without a code it is one of the server, and waits have bounds', () => {
  const error = (object: unknown): unknown[] => {
    const { status, reason, message, retryAfterMs } = failure(() =>
      parseWatchLine('watch services', line({ type: 'ERROR', object })),
    );
    return [status, reason, message, retryAfterMs];
  };
  const said = 'watch services: server ended the watch: ';
  assert.deepEqual(error({ code: 410, reason: 'Expired', message: 'too old' }), [410, 'Expired', `${said}too old`, 0]);
  assert.deepEqual(error({ code: 429, details: { retryAfterSeconds: 7 } }), [429, '', `${said}429`, 7000]);
  for (const [seconds, ms] of [
    [0, 0],
    [-5, 0],
    [300, 300_000],
    [99_999, 300_000],
  ])
    assert.equal(error({ details: { retryAfterSeconds: seconds } })[3], ms, String(seconds));
  assert.deepEqual(error({}), [500, '', `${said}500`, 0]);
  assert.deepEqual(error('no Status'), [500, '', `${said}500`, 0]);
});

test('what is no event, no list or no JSON is told by its beginning', () => {
  const long = 'x'.repeat(500);
  for (const [run, message] of [
    [() => parseWatchLine('watch', line({ type: 'NEW', object: {} })), /^watch: not a watch event: "\{\\"type/],
    [() => parseWatchLine('watch', line([long])), /^watch: not a watch event: .{70,110}$/],
    [() => parseJson('list', Buffer.from(`{${long}`)), /^list: malformed JSON \(.*\): .{70,110}$/],
    [() => parseEnvelope('list', line({ status: 'ok' })), /^list: not a list: /],
    [() => parseEnvelope('list', line({ kind: 'ServiceList', items: [] })), /^list: not a list: /],
    [() => parseEnvelope('list', line({ kind: 'ServiceList', metadata: { resourceVersion: '1' } })), /not a list/],
  ] as const)
    assert.match(failure(run).message, message);
});

test('how many more there are is known only where a server says a number that can be', () => {
  const remaining = (remainingItemCount: unknown): number | undefined =>
    parseEnvelope(
      'list',
      line({ kind: 'ServiceList', metadata: { resourceVersion: '7', remainingItemCount }, items: [] }),
    ).remainingItemCount;
  assert.deepEqual([0, 5, -1, '5', undefined].map(remaining), [0, 5, undefined, undefined, undefined]);
});

test('managedFields are left out, whatever stands in them; where they never end the text is read as it is', () => {
  const object = (managed: string): Buffer => Buffer.from(`{"metadata":{"managedFields":[${managed}],"name":"a"}}`);
  for (const managed of ['', '{"f:spec":{"k:{\\"port\\":80}":{}}}', '{"a":["]","\\\\"]},{"b":[[]]}', '"}"'])
    assert.deepEqual(parseJson('list', object(managed)), { metadata: { managedFields: [], name: 'a' } }, managed);
  for (const broken of ['{"managedFields":[', '{"managedFields":[}', '{"managedFields":[{]}', '{"managedFields":["'])
    assert.equal(failure(() => parseJson('list', Buffer.from(broken))).reason, 'Malformed', broken);
});
