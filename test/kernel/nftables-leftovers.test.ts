/** What kube-proxy's nftables mode leaves goes when the daemon starts, and everybody else's tables stay. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before } from 'node:test';
import { loadModules, run, shell } from './harness/kernel-state.js';
import { type ServiceSpec, node, serviceWithEndpoints } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';
import { weights } from './reliability-state.js';

/** The shape of kube-proxy's table: chains of hooks and its own, a verdict map that jumps to them, a set, comments. */
function kubeProxyTable(family: 'ip' | 'ip6', vip: string, endpoint: string): string {
  const address = family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  return `
table ${family} kube-proxy {
  comment "rules for kube-proxy"
  set cluster-ips { type ${address}; comment "Active ClusterIPs"; elements = { ${vip} }; }
  map service-ips {
    type ${address} . inet_proto . inet_service : verdict
    elements = { ${vip} . tcp . 80 : goto service-ULMVA6XW-ns/web/tcp/p80 }
  }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain endpoint-5OJB2KTY-ns/web/tcp/p80__${endpoint === '10.128.0.66' ? '4' : '6'} {
    ${family} saddr ${endpoint} jump mark-for-masquerade
    meta l4proto tcp dnat to ${family === 'ip' ? endpoint : `[${endpoint}]`}:8080
  }
  chain service-ULMVA6XW-ns/web/tcp/p80 {
    numgen random mod 1 vmap { 0 : goto endpoint-5OJB2KTY-ns/web/tcp/p80__${endpoint === '10.128.0.66' ? '4' : '6'} }
  }
  chain services { ${family} daddr . meta l4proto . th dport vmap @service-ips; }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat-output { type nat hook output priority -100; policy accept; jump services; }
}`;
}

/** Tables of others: an administrator's, and one of the same name in a family that kube-proxy does not use. */
const OTHERS = `
table inet firewall {
  chain input { type filter hook input priority 0; policy accept; tcp dport 9 drop; }
}
table ip kube-proxy-not {
  chain mine { counter; }
}
table inet kube-proxy {
  chain mine { counter; }
}`;
const WEB: ServiceSpec = { name: 'web', address: '10.96.1.1', port: 80 };

const step = steps();
let missing: string | undefined;
let rig: Rig;

before(async () => {
  if (spawnSync('nft', ['--version']).status !== 0) missing = 'SKIPPED: no program nft (Debian: nftables)';
  else if (spawnSync('unshare', ['-n', 'nft', 'add', 'table', 'ip', 'probe']).status !== 0)
    missing = 'SKIPPED: this kernel has no nf_tables for IPv4';
  if (missing !== undefined) return;
  loadModules('dummy', 'ip_vs');
  rig = await Rig.create([node(), ...serviceWithEndpoints(WEB, ['10.128.0.11'])]);
});

after(() => rig?.close());

async function foreignTables(): Promise<string[]> {
  return (await run('nft', 'list', 'tables'))
    .split('\n')
    .filter((line) => /firewall|kube-proxy/.test(line))
    .sort();
}

async function load(text: string): Promise<void> {
  await shell(`nft -f - <<'END'\n${text}\nEND`);
}

const KUBE_PROXY = ['table ip kube-proxy', 'table ip6 kube-proxy'];
const KEPT = ['table inet firewall', 'table inet kube-proxy', 'table ip kube-proxy-not'];

step('both tables of kube-proxy go at the start, others stay as they are, and IPVS serves', async (context) => {
  if (missing !== undefined) return context.skip(missing);
  await load(OTHERS);
  const before = await run('nft', 'list', 'ruleset');
  await load(kubeProxyTable('ip', '10.96.1.1', '10.128.0.66') + kubeProxyTable('ip6', 'fd00:96::1', 'fd00:10:128::66'));
  assert.deepEqual(await foreignTables(), [...KEPT, ...KUBE_PROXY].sort());
  await rig.start(rig.config());
  await rig.waitForRules();
  assert.deepEqual(await foreignTables(), KEPT);
  assert.deepEqual(weights('TCP 10.96.1.1:80'), ['10.128.0.11:8080=1']);
  assert.ok(rig.daemon.log.some(({ msg }) => msg === "removed the tables of kube-proxy's nftables mode"));
  const now = await run('nft', 'list', 'ruleset');
  for (const table of before.split(/^(?=table )/m)) assert.ok(now.includes(table.trim()), `changed: ${table}`);
});

step('one family alone goes as well, and a start without any is silent', async (context) => {
  if (missing !== undefined) return context.skip(missing);
  await rig.stop();
  await load(kubeProxyTable('ip6', 'fd00:96::1', 'fd00:10:128::66'));
  await rig.start(rig.config());
  await rig.waitForRules();
  assert.deepEqual(await foreignTables(), KEPT);
  await rig.stop();
  await rig.start(rig.config());
  assert.equal(rig.daemon.log.filter(({ msg }) => msg.includes('nftables mode')).length, 0);
});

step('cleanup removes them too, and only says so with --dry-run', async (context) => {
  if (missing !== undefined) return context.skip(missing);
  await rig.stop();
  await load(kubeProxyTable('ip', '10.96.1.1', '10.128.0.66'));
  const config = rig.config();
  const dry = await rig.command('cleanup', '--config', config, '--dry-run');
  assert.match(dry.output, /kube-proxy \(IPv4\)/);
  assert.deepEqual(await foreignTables(), [...KEPT, 'table ip kube-proxy'].sort());
  const done = await rig.command('cleanup', '--config', config);
  assert.equal(done.code, 0, done.output);
  assert.deepEqual(await foreignTables(), KEPT);
});
