// test-kernel: timeout=300 seconds=29
/**
 * What kube-proxy's iptables mode leaves behind goes at start; cleanup keeps off a running daemon, and needs no IPVS.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { iptablesBackend } from './harness/iptables-programs.js';
import { ipvsRules, iptablesRules, kubeIpvs0Addresses, loadModules, shell } from './harness/kernel-state.js';
import { allRules, allSets } from './harness/rules-state.js';
import { waitUntil } from './harness/wait.js';
import { Rig, fixtureCluster } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const step = steps();
let rig: Rig;
let config: string;

/**
 * As kube-proxy 1.36 in iptables mode writes them, for one Service that is gone since, and other people's beside them.
 */
const LEFTOVERS = `$IPTABLES-restore --noflush <<'END'
*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SVC-4N57TFCL4MD7ZTDA - [0:0]
:KUBE-SEP-57KPRZ3JQVENLNBR - [0:0]
:KUBE-EXT-4N57TFCL4MD7ZTDA - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.44.44/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-4N57TFCL4MD7ZTDA
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 31944 -j KUBE-EXT-4N57TFCL4MD7ZTDA
-A KUBE-EXT-4N57TFCL4MD7ZTDA -j KUBE-SVC-4N57TFCL4MD7ZTDA
-A KUBE-SVC-4N57TFCL4MD7ZTDA -j KUBE-SEP-57KPRZ3JQVENLNBR
-A KUBE-SEP-57KPRZ3JQVENLNBR -p tcp -m tcp -j DNAT --to-destination 10.128.44.44:8080
COMMIT
*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-FIREWALL - [0:0]
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
COMMIT
END
`;
const MODE = /KUBE-(SVC|SEP|EXT)-4N57|KUBE-SEP-|KUBE-NODEPORTS|KUBE-EXTERNAL-SERVICES|KUBE-PROXY-CANARY/;
const lines = async (pattern: RegExp): Promise<string[]> =>
  (await iptablesRules(4)).filter((line) => pattern.test(line));

before(async () => {
  loadModules('ipv6');
  if (iptablesBackend() === 'legacy') loadModules('iptable_filter', 'iptable_nat', 'iptable_mangle');
  rig = await Rig.create(fixtureCluster());
  config = rig.config();
});

after(() => rig.close());

step('without IPVS in the kernel, cleanup removes the rules and loads nothing', async () => {
  await shell(LEFTOVERS);
  const { code, output } = await rig.command('cleanup', '--dry-run', '--config', config);
  assert.equal(code, 0, output);
  assert.match(output, /would remove 0 virtual servers/);
  assert.ok(output.includes(`chain IPv4 nat KUBE-SVC-4N57TFCL4MD7ZTDA (${iptablesBackend()})`), output);
  assert.equal((await lines(/^:KUBE-SVC/)).length, 1, 'nothing was removed');
  const json = await rig.command('cleanup', '--json', '--config', config);
  assert.equal(json.code, 0, json.output);
  const report = JSON.parse(json.output.split('\n').find((line) => line.startsWith('{'))!) as { chains: string[] };
  assert.ok(report.chains.length >= 10, report.chains.join());
  assert.deepEqual(await lines(MODE), []);
  assert.equal((await lines(/KUBE-FIREWALL|KUBE-KUBELET-CANARY/)).length, 3, "kubelet's stay");
  assert.doesNotMatch(await shell('cat /proc/modules'), /^ip_vs /m);
});

step("the start removes what kube-proxy's iptables mode left, stale refusals too", async () => {
  await shell(`${LEFTOVERS} modprobe ip_vs`);
  await rig.start(config);
  await rig.waitForRules();
  await waitUntil('the leftovers to go', async () => (await lines(MODE)).length === 0);
  assert.deepEqual(await lines(/10\.96\.44\.44|10\.96\.0\.10\/32/), []);
  const kubelets = await lines(/^(:KUBE-FIREWALL|:KUBE-KUBELET-CANARY|-A INPUT -j KUBE-FIREWALL)/);
  assert.equal(new Set(kubelets.map((line) => line.split(' ')[0])).size, 3, "kubelet's stay");
});

step('cleanup refuses while the daemon runs, unless forced; a dry run may look', async () => {
  const servers = (await ipvsRules()).length;
  assert.ok((await allSets()).create.length > 30, 'there is something to remove');
  const refused = await rig.command('cleanup', '--config', config);
  assert.equal(refused.code, 1);
  assert.match(refused.output, /the daemon runs on this node .*--force/);
  assert.equal((await ipvsRules()).length, servers);
  const looked = await rig.command('cleanup', '--dry-run', '--json', '--config', config);
  const { addresses } = JSON.parse(looked.output.split('\n').find((line) => line.startsWith('{'))!) as {
    addresses: string[];
  };
  assert.equal(addresses.length, (await kubeIpvs0Addresses()).length);
  assert.ok(addresses.length > 40, addresses.join());
  assert.equal((await ipvsRules()).length, servers);
  await rig.stop();
  const { code, output } = await rig.command('cleanup', '--config', config);
  assert.equal(code, 0, output);
  assert.deepEqual([await ipvsRules(), await kubeIpvs0Addresses()], [[], []]);
  const rules = [...(await allRules(4)), ...(await allRules(6))].filter((line) => line.includes('KUBE-'));
  const others = rules.filter((line) => !/KUBE-(FIREWALL|KUBELET-CANARY)/.test(line));
  assert.deepEqual([(await allSets()).create, others], [[], []]);
});

/** What kube-proxy runs for each of its sets when it starts. */
const KUBE_PROXY_CREATES =
  'ipset create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536 -exist 2>&1 && echo taken || true';

step('cleanup --own-only names a set that grew beyond 65,536 entries, which kube-proxy would refuse', async () => {
  await shell(`
    { echo 'create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 131072'
      awk 'BEGIN { for (i = 0; i < 65537; i++)
        printf "add KUBE-CLUSTER-IP 10.%d.%d.%d,tcp:80\\n", i / 65536, i / 256 % 256, i % 256 }'
    } | ipset restore`);
  assert.doesNotMatch(await shell(KUBE_PROXY_CREATES), /taken/, "the reference's own command fails");
  const { code, output } = await rig.command('cleanup', '--own-only', '--config', config);
  assert.equal(code, 0, output);
  assert.match(
    output,
    /KUBE-CLUSTER-IP has room for 131072 entries, .*: run cleanup without --own-only before kube-proxy/,
  );
  assert.equal((await rig.command('cleanup', '--config', config)).code, 0);
  assert.match(await shell(KUBE_PROXY_CREATES), /taken/);
  const clean = await rig.command('cleanup', '--own-only', '--config', config);
  assert.equal(clean.code, 0, clean.output);
  assert.doesNotMatch(clean.output, /room for/);
});
