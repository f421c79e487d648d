import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { KubeError } from '../../../src/kube/errors.js';
import { LineSplitter, ListSplitter } from '../../../src/kube/json-splitter.js';
import { objectKey } from '../../../src/kube/object-feed.js';
import { parseEnvelope, parseJson, parseWatchLine } from '../../../src/kube/wire.js';
import { parseEndpointSlice } from '../../../src/model/endpoint-slice.js';
import { parseService } from '../../../src/model/service.js';

interface Recording {
  readonly status: number;
  readonly body: string;
}

function recording(name: string): Recording {
  return JSON.parse(readFileSync(`test/fixtures/kube-apiserver-1.36/${name}.json`, 'utf8')) as Recording;
}

function eventLines(body: string): Buffer[] {
  return [...new LineSplitter().push(Buffer.from(body))];
}

const unexpected = (problem: string): void => assert.fail(problem);

test('recorded pages: items, versions and the continue token', () => {
  const pages = ['list-services-page-1', 'list-services-page-2'].map((name) => {
    const splitter = new ListSplitter();
    const keys = [...splitter.push(Buffer.from(recording(name).body))].map((item) => {
      const service = parseService(parseJson('list services', item), unexpected);
      return service!.key;
    });
    return { keys, ...parseEnvelope('list services', splitter.envelope()) };
  });
  assert.deepEqual(
    pages.map(({ keys }) => keys),
    [
      ['default/affinity', 'default/both-local'],
      ['default/clusterip-basic', 'default/dual-stack'],
    ],
  );
  assert.deepEqual(
    pages.map(({ resourceVersion }) => resourceVersion),
    ['251', '251'],
  );
  assert.match(pages[0]!.continueToken, /^eyJ2IjoibWV0YS5rOHMuaW8v/);
});

test('how many remain is a number that is not negative, or not said', () => {
  const remaining = (said: unknown): number | undefined => {
    const list = { kind: 'NodeList', metadata: { resourceVersion: '5', remainingItemCount: said }, items: [] };
    return parseEnvelope('list', Buffer.from(JSON.stringify(list))).remainingItemCount;
  };
  assert.deepEqual([0, 1, 999].map(remaining), [0, 1, 999]);
  assert.deepEqual([-1, '7', null, undefined].map(remaining), Array(4).fill(undefined));
});

test('recorded streaming list: objects, then the annotated bookmark', () => {
  const events = eventLines(recording('watchlist-services').body).map((line) => parseWatchLine('watch services', line));
  const puts = events.filter((event) => event.type === 'put');
  assert.equal(events.length, puts.length + 1);
  assert.deepEqual(events.at(-1), { type: 'bookmark', resourceVersion: '258', isInitialEnd: true });
  const services = puts
    .map((event) => parseService(event.object, unexpected))
    .filter((service) => service !== undefined);
  assert.equal(puts.length, 37);
  assert.equal(services.length, 35, 'all but the headless and the ExternalName one');
});

test('recorded watch: add, modify, out of and into the selector, delete, bookmarks', () => {
  const events = eventLines(recording('watch-endpointslices').body).map((line) => parseWatchLine('watch', line));
  assert.deepEqual(
    events.map(({ type, resourceVersion }) => `${type} ${resourceVersion}`),
    ['put 252', 'put 253', 'remove 254', 'put 255', 'remove 256', 'bookmark 256', 'bookmark 256'],
  );
  const first = events[0]!;
  assert.ok(first.type === 'put');
  assert.equal(objectKey(first.object), 'default/rec-1');
  assert.equal(parseEndpointSlice(first.object, 'node-1', unexpected)!.endpoints.length, 5);
  assert.deepEqual(events[5], { type: 'bookmark', resourceVersion: '256', isInitialEnd: false });
});

test('recorded in-stream 410 is an expired KubeError', () => {
  const [line] = eventLines(recording('watch-too-old').body);
  assert.throws(
    () => parseWatchLine('watch services', line!),
    (error: unknown) => error instanceof KubeError && error.isExpired && error.message.includes('2 (278)'),
  );
});

test('what is no list is never an empty list', () => {
  const bodies = [
    '{"status":"ok"}',
    '[]',
    'null',
    '<html>',
    '',
    '{"kind":"Status","metadata":{},"items":[]}',
    '{"kind":"ServiceList","metadata":{"resourceVersion":"5"}}',
    '{"kind":"ServiceList","metadata":{},"items":[]}',
    '{"kind":"Service","metadata":{"resourceVersion":"5"},"items":[]}',
  ];
  for (const body of bodies) {
    const splitter = new ListSplitter();
    assert.deepEqual([...splitter.push(Buffer.from(body))], []);
    assert.throws(() => parseEnvelope('list', splitter.envelope()), KubeError, body);
  }
  assert.equal(
    parseEnvelope('list', Buffer.from('{"kind":"XList","metadata":{"resourceVersion":"5"},"items":null}'))
      .resourceVersion,
    '5',
  );
});
