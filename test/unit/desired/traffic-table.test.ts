import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PHASES } from '../../kernel/traffic-cases.js';
import { BEGIN, END, trafficMarkdown, withTable } from '../../kernel/traffic-markdown.js';
import { formatExpectation, row } from '../../kernel/traffic-table.js';
import { casesOf } from '../../kernel/traffic-walk.js';
import { SERVICES } from '../../kernel/traffic-world.js';

test('the traffic table names only Services that exist, and makes more than 150 cases, each once', () => {
  const all = PHASES.flatMap((phase) =>
    casesOf(phase.rows, SERVICES).map((one) => [phase.name, one.way, one.address, one.port, one.place].join(' ')),
  );
  assert.ok(all.length >= 150, String(all.length));
  assert.equal(new Set(all).size, all.length);
});

test('a row says what it reads like', () => {
  const one = row(
    'f',
    'basic clusterIP,nodePort TCP,HTTP IPv6 :22',
    'client node: near far as self',
    'outside: refused',
  );
  assert.deepEqual([one.at, one.ways, one.families, one.port], [['clusterIP', 'nodePort'], ['TCP', 'HTTP'], [6], 22]);
  assert.deepEqual(
    one.expect.map(([place, expected]) => `${place}: ${formatExpectation(expected)}`),
    ['client: near far as self', 'node: near far as self', 'outside: refused'],
  );
});

test('a row with a slip of the pen is an error, not an empty case', () => {
  for (const [where, expectation] of [
    ['basic clusterip TCP', 'client: refused'],
    ['basic clusterIP tcp', 'client: refused'],
    ['basic clusterIP TCP', 'clients: refused'],
    ['basic clusterIP TCP', 'client: refuse'],
    ['basic clusterIP TCP', 'client refused'],
  ] as const)
    assert.throws(() => row('f', where, expectation), SyntaxError);
  assert.throws(
    () => casesOf([row('f', 'nobody clusterIP TCP', 'client: refused')], SERVICES),
    /unknown Service nobody/,
  );
});

test('the table goes between the markers of a document', () => {
  const text = withTable(`# Title\n${BEGIN}\nold\n${END}\nrest`);
  assert.equal(text, `# Title\n${BEGIN}\n\n${trafficMarkdown()}\n\n${END}\nrest`);
  assert.equal(withTable(text ?? ''), text);
  assert.equal(withTable('# no place'), undefined);
});
