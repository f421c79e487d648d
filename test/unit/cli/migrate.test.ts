/** What `migrate` makes of a plan; the command as typed is in test/kernel/commands.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Migration, migrationAnswer, migrationOf, runMigrate } from '../../../src/cli/migrate.js';
import { type MigrateOptions } from '../../../src/cli/options.js';
import { type Environment } from '../../../src/daemon/environment.js';
import { type Change } from '../../../src/reconcile/change.js';

const SERVER = { protocol: 'TCP', address: '10.96.0.1', port: 80 };
const REAL = { address: '10.0.0.1', port: 8080 };
const NEUTRAL: Change[] = [
  { action: 'add', object: 'set', set: 'KUBE-NO-ENDPOINTS', type: 'hash:ip,port', family: 4 },
  { action: 'change', object: 'sysctl', name: 'net.ipv4.vs.conntrack', before: 0, after: 1 },
  { action: 'add', object: 'set_entry', set: 'KUBE-NO-ENDPOINTS', entry: '10.96.0.1,tcp:80' },
];

test('sets, rules and settings are no obstacle; what connections go through is', () => {
  const ready = migrationOf('node-0', NEUTRAL, 40, []);
  assert.deepEqual(
    [ready.ready, ready.virtualServers, ready.others],
    [true, { wanted: 40, changed: 0 }, { add: 2, change: 1, delete: 0 }],
  );
  const answer = migrationAnswer(ready, false);
  assert.equal(answer.code, 0);
  assert.deepEqual(answer.text, [
    'node-0: ready: 0 virtual servers would change (of 40); sets, rules and settings: 2 to add, 1 to change, 0 to delete',
  ]);
});

test('several changes of one virtual server count as one, and are named', () => {
  const changes: Change[] = [
    ...NEUTRAL,
    { action: 'add', object: 'real_server', virtualServer: SERVER, realServer: REAL, weight: 1, service: 'a/b' },
    {
      action: 'delete',
      object: 'real_server',
      virtualServer: SERVER,
      realServer: { ...REAL, port: 1 },
      service: 'a/b',
    },
    { action: 'delete', object: 'address', link: 'kube-ipvs0', address: '10.96.0.9' },
  ];
  const found = migrationOf('node-0', changes, 40, []);
  assert.deepEqual([found.ready, found.virtualServers.changed, found.changes.length], [false, 2, 3]);
  const { text, code } = migrationAnswer(found, false);
  assert.equal(code, 2);
  assert.match((text as string[])[0]!, /^node-0: NOT READY: 2 virtual servers would change \(of 40\); /);
  assert.ok((text as string[]).includes('    add real server TCP 10.96.0.1:80 -> 10.0.0.1:8080'), JSON.stringify(text));
});

test('a node that preflight finds unfit is not ready, and many changes are cut unless all are asked for', () => {
  const unfit = migrationAnswer(migrationOf('node-0', [], 1, ['module ip_vs_lc: missing']), false);
  assert.deepEqual([unfit.code, (unfit.text as string[])[1]], [2, '  FAIL module ip_vs_lc: missing']);
  const many = Array.from({ length: 50 }, (_, i): Change => {
    return { action: 'add', object: 'virtual_server', virtualServer: { ...SERVER, port: i + 1 } };
  });
  const found = migrationOf('node-0', many, 50, []);
  assert.match(
    (migrationAnswer(found, false).text as string[]).at(-1)!,
    /^ {2}and 31 lines more \(-o wide has them\)$/,
  );
  assert.equal((migrationAnswer(found, true).text as string[]).length, 52);
});

test('a node on which something changes is looked at again, a few times: it may have been in the middle of it', async () => {
  const server: Change = { action: 'delete', object: 'virtual_server', virtualServer: SERVER };
  const typed = async (
    ...changes: readonly (readonly Change[])[]
  ): Promise<[code: number, looks: number, out: string]> => {
    let [looks, out] = [0, ''];
    const look = (): Promise<Migration> =>
      Promise.resolve(migrationOf('node-0', changes[Math.min(looks++, changes.length - 1)]!, 40, []));
    const stop = new AbortController().signal;
    const environment = { out: (text: string) => void (out += text), err: () => undefined, stop, variables: {} };
    const options = { format: undefined, headers: true, watchMs: undefined } as unknown as MigrateOptions;
    const code = await runMigrate(options, environment as unknown as Environment, { look, pauseMs: 1 });
    return [code, looks, out];
  };
  const calm = await typed(NEUTRAL);
  assert.deepEqual(calm.slice(0, 2), [0, 1]);
  assert.match(calm[2], /^node-0: ready: /);
  const settled = await typed([server], NEUTRAL);
  assert.deepEqual(settled.slice(0, 2), [0, 2]);
  const [code, looks, out] = await typed([server]);
  assert.equal(code, 2);
  assert.equal(looks, 3);
  assert.match(out, /^node-0: NOT READY: 1 virtual servers would change/);
});
