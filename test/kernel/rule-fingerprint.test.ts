/** Rule fingerprints of the real kernel: packets leave them alone, any change of any rule does not. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { before, test } from 'node:test';
import { openNetlinkSocket } from '../../native/libc.js';
import { openOptionSocket } from '../../native/option-socket.js';
import { CommandRunner } from '../../src/kernel/command.js';
import { type IptablesTools, detectIptables } from '../../src/kernel/iptables/detect.js';
import { Iptables } from '../../src/kernel/iptables/iptables.js';
import { type RuleFingerprints, openRuleFingerprints } from '../../src/kernel/iptables/fingerprint.js';
import { FAMILIES, type Family } from '../../src/values/address.js';

const { run } = new CommandRunner();
const RULES = `*nat
:KUBE-ONE - [0:0]
-A KUBE-ONE -p tcp -m comment --comment "some rule" -j RETURN
-A OUTPUT -j KUBE-ONE
COMMIT
*filter
:KUBE-TWO - [0:0]
-A KUBE-TWO -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A OUTPUT -p udp --dport 9
-A OUTPUT -j KUBE-TWO
COMMIT
`;
let tools: IptablesTools;
let iptables: Iptables;
let fingerprints: RuleFingerprints;

before(async () => {
  tools = await detectIptables(run, { probe: true });
  iptables = new Iptables(tools, run);
  const opened = openRuleFingerprints(tools.backend, { netlink: openNetlinkSocket, options: openOptionSocket });
  assert.ok(opened !== undefined);
  fingerprints = opened;
  console.log(`rule fingerprints: ${tools.backend}`);
});

function read(family: Family): string {
  const fingerprint = fingerprints.read(family);
  assert.ok(fingerprint !== undefined);
  return fingerprint;
}

/** To this host itself, where nobody listens. */
function sendDatagram(family: Family): Promise<void> {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
  return new Promise((resolve, reject) => {
    socket.send('x', 9, family === 4 ? '127.0.0.1' : '::1', (error) => {
      socket.close();
      if (error === null) resolve();
      else reject(error);
    });
  });
}

for (const family of FAMILIES) {
  test(`IPv${family}: packets are no change; rules, chains, policies and other tables are`, async () => {
    await iptables.restore(family, RULES);
    const before = read(family);
    await sendDatagram(family);
    // By a rule: nf_tables does not count at the policies of built-in chains.
    const rules = await run(`${family === 4 ? 'iptables' : 'ip6tables'}-${tools.backend}-save`, ['-c']);
    const [, packets] = /^\[(\d+):\d+\] -A OUTPUT -p udp -m udp --dport 9$/m.exec(rules.stdout) ?? [];
    assert.ok(Number(packets) > 0, 'the datagram was not counted');
    assert.equal(read(family), before);
    const changes = [
      '*nat\n-A KUBE-ONE -j RETURN\nCOMMIT\n',
      '*nat\n-R KUBE-ONE 1 -p udp -j RETURN\nCOMMIT\n',
      '*filter\n-I FORWARD -j DROP\nCOMMIT\n',
      '*filter\n:FORWARD DROP [0:0]\nCOMMIT\n',
      '*nat\n:KUBE-NEW - [0:0]\nCOMMIT\n',
      '*mangle\n-A OUTPUT -j MARK --set-mark 1\nCOMMIT\n',
    ];
    const seen = new Set([before]);
    for (const change of changes) {
      await iptables.restore(family, change);
      seen.add(read(family));
    }
    assert.equal(seen.size, changes.length + 1);
  });
}

test('iptables-save of rules that were not changed is no change', async () => {
  const before = read(4);
  await iptables.save(4);
  assert.equal(read(4), before);
});
