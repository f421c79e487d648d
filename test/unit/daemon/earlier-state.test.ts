import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { hasEarlierState } from '../../../src/daemon/takeover/earlier-state.js';

const DEV = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  219900    1290    0    0    0     0          0         0   219900    1290    0    0    0     0       0          0
`;
const LINK =
  'kube-ipvs0:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n';
const TABLE = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
`;
const SERVER = 'TCP  0A600001:01BB rr\n  -> 0AC80002:192B      Masq    1      0          0\n';

function proc(t: TestContext, files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), 'earlier-'));
  t.after(() => rmSync(root, { recursive: true }));
  for (const [name, content] of Object.entries(files)) writeFileSync(join(root, name), content);
  return root;
}

test('the kernel serves already: the link is there and a virtual server', (t) => {
  assert.equal(hasEarlierState(proc(t, { dev: DEV + LINK, ip_vs: TABLE + SERVER })), true);
  const six = 'UDP  [fd00:0096:0000:0000:0000:0000:0000:000a]:0035 rr\n';
  assert.equal(hasEarlierState(proc(t, { dev: DEV + LINK, ip_vs: TABLE + six })), true);
  assert.equal(hasEarlierState(proc(t, { dev: DEV + LINK, ip_vs: TABLE + SERVER.repeat(10_000) })), true);
});

test("a fresh node: no link, an empty table, other people's virtual servers alone, or no IPVS at all", (t) => {
  assert.equal(hasEarlierState(proc(t, { dev: DEV, ip_vs: TABLE + SERVER })), false);
  assert.equal(hasEarlierState(proc(t, { dev: DEV + LINK, ip_vs: TABLE })), false);
  assert.equal(hasEarlierState(proc(t, { dev: DEV + LINK })), false);
  assert.equal(hasEarlierState(proc(t, {})), false);
});
