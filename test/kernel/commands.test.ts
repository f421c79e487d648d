// test-kernel: timeout=600 seconds=105
/**
 * `plan`, `verify`, `explain`, `events` and `status` typed as a person types them in the DaemonSet's pod, without
 * options and through pipes: on an empty node, beside the daemon, after somebody meddled, and before a takeover from
 * kube-proxy's recorded state.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { parse } from 'yaml';
import { requiredModules } from '../../src/daemon/preflight-checks.js';
import { type Change } from '../../src/reconcile/change.js';
import { ROOT } from './harness/agent.js';
import { iptablesBackend } from './harness/iptables-programs.js';
import { ipvsRules, kubeIpvs0Addresses, loadModules, shell } from './harness/kernel-state.js';
import { Lab } from './harness/lab.js';
import { chainInLog, changeSets, deleteFirstRule } from './harness/rules-damage.js';
import { ownSets, waitForOwnRules } from './harness/rules-state.js';
import { isNftables, rulesBackend } from './harness/rules-under-test.js';
import { restoreKubeProxyState } from './kube-proxy-state.js';
import { Rig, fixtureCluster, fixtureLines } from './reliability-rig.js';
import { waitUntil } from './harness/wait.js';
import { steps } from './reliability-steps.js';

const PLACE = '/var/lib/kube-proxy/config.conf';
/** As the image has it, with the environment of the DaemonSet: the node's name is not the host's. */
const PROGRAM = `NODE_NAME=node-0 ${process.execPath} ${ROOT}dist/main.js`;
/** Sets that kube-proxy does not have; docs/operations.md says what they are for. */
const OWN_SETS = /^(create|add) KUBE-(6-)?NO-(LOCAL-)?ENDPOINTS /;

const step = steps();
let lab: Lab;
let rig: Rig;

before(async () => {
  // As preflight --fix leaves a node: commands that only look load nothing.
  loadModules('ipv6', ...requiredModules('rr', rulesBackend()));
  lab = await Lab.create({ pods: [] });
  rig = await Rig.create(fixtureCluster());
  mkdirSync('/var/lib/kube-proxy', { recursive: true });
  writeFileSync(PLACE, readFileSync(rig.config({ hostnameOverride: '', metricsBindAddress: '127.0.0.1:10333' })));
});

after(async () => {
  await rig.close();
  lab.close();
});

/** Standard output through a pipe, standard error, and the exit code. */
async function type(command: string): Promise<{ out: string; err: string; code: number }> {
  const files = '/tmp/typed';
  await shell(
    `{ code=0; ${PROGRAM} ${command} 2>${files}.err || code=$?; echo $code >${files}.code; } | cat >${files}.out`,
  );
  const [out = '', err = '', code] = ['out', 'err', 'code'].map((end) => readFileSync(`${files}.${end}`, 'utf8'));
  return { out, err, code: Number(code) };
}

async function plannedChanges(): Promise<Change[]> {
  const { out, code, err } = await type('plan --json');
  assert.equal(code, 0, err);
  return (JSON.parse(out) as { changes: Change[] }).changes;
}

function reference(lines: readonly string[]): string[] {
  return lines.filter((line) => !OWN_SETS.test(line)).sort();
}

step(
  'plan on an empty node has everything that kube-proxy 1.36 programmed there, and says so by exit code',
  async () => {
    const changes = await plannedChanges();
    assert.ok(changes.every(({ object, action }) => action === 'add' || object === 'sysctl' || object === 'rule'));
    const of = <T extends Change['object']>(object: T): Extract<Change, { object: T }>[] =>
      changes.filter((change): change is Extract<Change, { object: T }> => change.object === object);
    assert.equal(of('link').length, 1);
    const entries = of('set_entry').map(({ set, entry }) => `add ${set} ${entry}`);
    assert.deepEqual(reference(entries), fixtureLines('kube-proxy-1.36/ipset-add.txt').sort());
    const created = of('set').map(({ set, type }) => `create ${set} ${type} `);
    const wanted = fixtureLines('kube-proxy-1.36/ipset-create.txt').map(
      (line) => `${line.split(' ').slice(0, 3).join(' ')} `,
    );
    assert.deepEqual(reference(created), wanted.sort());
    const ipvs = fixtureLines('kube-proxy-1.36/ipvs.txt');
    assert.equal(of('virtual_server').length, ipvs.filter((line) => line.startsWith('-A')).length);
    assert.equal(of('real_server').length, ipvs.filter((line) => line.startsWith('-a')).length);
    const addresses = of('address').map(({ address }) => `${address.includes(':') ? 'inet6' : 'inet'} ${address}`);
    const bound = fixtureLines('kube-proxy-1.36/kube-ipvs0.txt').map((line) => line.replace(/\/\d+$/, ''));
    assert.deepEqual(addresses.sort(), bound.sort());
    assert.ok(of('rule').length > 10);

    const { out, err, code } = await type('plan --exit-code');
    assert.equal(code, 2);
    assert.match(err, /^configuration: \/var\/lib\/kube-proxy\/config\.conf \(--config chooses another\)\n/);
    assert.match(
      out,
      new RegExp(`\nplan: [0-9]+ to add, [0-9]+ to change, 0 to delete; Services concerned: [0-9]+\n$`),
    );
    assert.match(out, /^default\/clusterip-basic:\n {2}add set entry KUBE-CLUSTER-IP 10\.96\.0\.10,tcp:80$/m);
    assert.deepEqual(await ipvsRules(), [], 'it wrote');
  },
);

step('beside a healthy daemon verify, plan and status have nothing to complain about, without any option', async () => {
  await rig.start(PLACE, '--hostname-override', 'node-0');
  await rig.waitForRules();
  const verify = await type('verify');
  assert.deepEqual([verify.code, verify.out], [0, 'the kernel is as desired\n'], verify.err);
  const plan = await type('plan --exit-code');
  assert.deepEqual([plan.code, plan.out], [0, 'nothing to change\n'], plan.err);
  const status = await type('status');
  assert.equal(status.code, 0, status.err);
  const inStatus = isNftables() ? 'not used \\(rules in nf_tables\\)' : `\\S+ \\(${iptablesBackend()}\\)`;
  assert.match(
    status.out,
    new RegExp(`^node node-0, version \\S+: healthy\nup for [^;]+; kernel \\S+, iptables ${inStatus}, IPv4, IPv6\n`),
  );
  assert.match(
    status.out,
    /\nwritten: [1-9][0-9]* virtual servers, [1-9][0-9]* real servers, 0 draining real servers\n/,
  );
  assert.match(status.out, /\nlast sync: \d+ s ago, took over the kernel state: /);
  assert.ok(status.out.split('\n').length <= 12 + status.out.split('\nnote: ').length, status.out);
  console.log(status.out);
  assert.deepEqual(reference((await ownSets()).add), fixtureLines('kube-proxy-1.36/ipset-add.txt').sort());
});

step('config, flags and preflight, typed in the pod, say what is meant and what is there', async () => {
  assert.deepEqual(await type('config check').then(({ out, code }) => [out, code]), [`${PLACE}: valid\n`, 0]);
  writeFileSync('/tmp/broken.conf', 'kind: KubeProxyConfiguration\nipvs: { scheduler: nosuch, syncPeriod: 3 }\n');
  const broken = await type('config check /tmp/broken.conf -o json');
  assert.equal(broken.code, 1);
  const { valid, problems } = JSON.parse(broken.out) as { valid: boolean; problems: object[] };
  assert.ok(!valid && problems.length >= 1, broken.out);
  const { ipvs } = parse((await type('config print')).out) as { ipvs: { scheduler: string; syncPeriod: string } };
  assert.deepEqual([ipvs.scheduler, ipvs.syncPeriod], ['rr', '30s']);
  assert.match((await type('flags')).out, /^ {2}--conntrack-max-per-core +sets conntrack\.maxPerCore$/m);
  const preflight = await type('preflight -o yaml');
  assert.equal(preflight.code, 0, preflight.out);
  const { ok, checks } = parse(preflight.out) as { ok: boolean; checks: { name: string; state: string }[] };
  assert.ok(ok && checks.some(({ name, state }) => name === 'module ip_vs' && state === 'ok'), preflight.out);
});

step('explain follows packets to a Service, says whom the backend sees, and that the kernel has it so', async () => {
  const outside = await type('explain --from 203.0.113.9 10.96.0.10:80');
  assert.equal(outside.code, 0, outside.err + outside.out);
  assert.match(outside.out, /^TCP 10\.96\.0\.10:80 from 203\.0\.113\.9 \(elsewhere\)\n/);
  assert.match(
    outside.out,
    /=> served by default\/clusterip-basic, by one of these \(rr\):\n(.* sees an address of this node\n)+/,
  );
  assert.match(outside.out, /the kernel has it so\n$/);
  const docs = readFileSync(`${ROOT}docs/operations.md`, 'utf8');
  assert.ok(docs.includes(`\n${outside.out}`), `docs/operations.md lacks\n${outside.out}`);
  const pod = await type('explain --from 10.128.0.9 10.96.0.10:80/TCP -o json');
  const { verdict, packet } = JSON.parse(pod.out) as {
    packet: { from: string };
    verdict: { backends: { seenAs: string }[] };
  };
  assert.ok(verdict.backends.every(({ seenAs }) => seenAs === 'client'));
  assert.ok(packet.from.length > 0);
  console.log((await type('explain --from 203.0.113.9 10.96.0.10:80 -o wide')).out);
  const wrong = await type('explain 10.96.0.10');
  assert.deepEqual([wrong.code, /not a destination/.test(wrong.err)], [1, true]);
});

interface Slice {
  readonly kind: string;
  readonly metadata: { readonly labels?: Readonly<Record<string, string>> };
  readonly endpoints: readonly { readonly addresses: readonly string[]; readonly conditions: object }[];
}

/** What `events` prints once it matches. */
async function eventsWith(pattern: RegExp): Promise<string> {
  let out = '';
  await waitUntil(
    `events to have ${pattern}`,
    async () => {
      ({ out } = await type('events'));
      return pattern.test(out);
    },
    60_000,
    () => out,
  );
  return out;
}

step('events has what changed and why, and status what was repaired', async () => {
  const first = await type('events');
  assert.equal(first.code, 0, first.err);
  assert.match(first.out, /^\d{4}-\S+Z took over the kernel state: [1-9][0-9]* virtual servers\n/);
  const slice = (fixtureCluster() as unknown as Slice[]).find(
    ({ kind, metadata }) =>
      kind === 'EndpointSlice' && metadata.labels?.['kubernetes.io/service-name'] === 'clusterip-basic',
  )!;
  const [gone, ...others] = slice.endpoints;
  const unready = { ...gone!, conditions: { ready: false, serving: false, terminating: false } };
  rig.set({ ...slice, endpoints: [unready, ...others] });
  const address = gone!.addresses[0]!;
  await eventsWith(
    new RegExp(`^\\S+Z default/clusterip-basic lost ${address.replaceAll('.', '\\.')}:[0-9]+: not ready$`, 'm'),
  );
  rig.set(slice);
  await eventsWith(new RegExp(`^\\S+Z default/clusterip-basic gained ${address.replaceAll('.', '\\.')}:[0-9]+$`, 'm'));
  await shell('ipvsadm -D -t 10.96.0.10:80');
  console.log(await eventsWith(/repaired: 1 missing virtual_server \(TCP 10\.96\.0\.10:80\)/));
  const { events, total } = JSON.parse((await type('events --since 1h -o json')).out) as {
    total: number;
    events: { sequence: number; at: string; kind: string; service?: string; text: string }[];
  };
  assert.equal(events.length, total);
  assert.ok(events.some(({ kind, service }) => kind === 'endpoints' && service === 'default/clusterip-basic'));
  assert.match(
    (await type('status')).out,
    /\nrepaired in the last hour: 1 virtual_server; last \d+ s ago: missing virtual_server /,
  );
});

step('verify names one of every kind of thing that somebody changed, and plan says what would mend it', async () => {
  rig.daemon.signal('SIGSTOP');
  await shell(`ipvsadm -D -t 10.96.0.10:80; ip addr del 10.96.0.11/32 dev kube-ipvs0
    ${changeSets(['del KUBE-CLUSTER-IP 10.96.0.10,tcp:80'])}
    ${deleteFirstRule(4, 'nat', 'KUBE-SERVICES')}
    echo 0 > /proc/sys/net/ipv4/vs/conntrack`);
  const { code, out } = await type('verify --json');
  assert.equal(code, 2);
  const { differences } = JSON.parse(out) as { differences: { object: string; kind: string; name: string }[] };
  const found = differences.map(({ object, kind, name }) => `${kind} ${object} ${name}`).sort();
  assert.deepEqual(found, [
    `changed rule ${chainInLog(4, 'nat', 'KUBE-SERVICES')} rules`,
    'changed sysctl net.ipv4.vs.conntrack=0',
    'missing address 10.96.0.11',
    'missing set_entry KUBE-CLUSTER-IP 10.96.0.10,tcp:80',
    'missing virtual_server TCP 10.96.0.10:80',
  ]);
  const explained = await type('explain 10.96.0.10:80');
  assert.equal(explained.code, 2);
  assert.match(explained.out, /=> served by default\/clusterip-basic/);
  assert.match(explained.out, /THE KERNEL DIFFERS; a sync would\n/);
  for (const line of [
    'add virtual server TCP 10.96.0.10:80',
    'add set entry KUBE-CLUSTER-IP 10.96.0.10,tcp:80',
    `change chain ${chainInLog(4, 'nat', 'KUBE-SERVICES').replace('IPv4 ', '')}`,
  ])
    assert.ok(explained.out.includes(`\n  ${line}`), `${line} in ${explained.out}`);
  assert.doesNotMatch(explained.out, /10\.96\.0\.11/, 'the difference of another Service');
  const { out: diff } = await type('plan --diff');
  assert.match(diff, /^ {4}- net\.ipv4\.vs\.conntrack = 0\n {4}\+ net\.ipv4\.vs\.conntrack = 1$/m);
  assert.match(diff, new RegExp(`^ {4}\\+ -A ${isNftables() ? 'nat-' : ''}KUBE-SERVICES .*$`, 'm'));
  rig.daemon.signal('SIGCONT');
  await rig.stop();
});

step(
  "plan before a takeover from kube-proxy's recorded state has our own sets and rules, and nothing else",
  async () => {
    await shell(`${PROGRAM} cleanup`);
    await restoreKubeProxyState();
    const before = await ownSets();
    const changes = await plannedChanges();
    const kinds = new Set(
      changes.filter(({ object }) => object !== 'sysctl').map(({ action, object }) => `${action} ${object}`),
    );
    for (const kind of kinds)
      assert.ok(['add set', 'add set_entry', 'add rule', 'change rule', 'delete rule'].includes(kind), kind);
    const planned = changes.flatMap((change) => (change.object === 'set' ? [change.set] : [])).sort();
    const entries = changes.flatMap((change) =>
      change.object === 'set_entry' ? [`${change.set} ${change.entry}`] : [],
    );
    const own = ['KUBE-6-NO-ENDPOINTS', 'KUBE-6-NO-LOCAL-ENDPOINTS', 'KUBE-NO-ENDPOINTS', 'KUBE-NO-LOCAL-ENDPOINTS'];
    const kubeProxys = fixtureLines('kube-proxy-1.36/ipset-create.txt').map((line) => line.split(' ')[1]!);
    // In nf_tables all of them are new.
    assert.deepEqual(planned, isNftables() ? [...own, ...kubeProxys].sort() : own);
    await migrateAsksForNothing();
    const addresses = await kubeIpvs0Addresses();
    const table = await ipvsRules();
    await rig.start(PLACE, '--hostname-override', 'node-0');
    await rig.waitForRules();
    const after = await ownSets();
    const came = after.add.filter((line) => !before.add.includes(line)).map((line) => line.replace(/^add /, ''));
    assert.deepEqual(came.sort(), entries.sort(), 'what came is what was planned');
    assert.deepEqual([await ipvsRules(), await kubeIpvs0Addresses()], [table, addresses]);
    const left = (await plannedChanges()).filter(({ object }) => object !== 'rule');
    assert.deepEqual(left, []);
    console.log(
      `takeover: ${planned.length} sets and ${entries.length} entries planned and made, ${table.length} IPVS lines kept`,
    );
  },
);

step(
  'verify and plan compare with what the daemon runs with, whatever the file says, and where it has none',
  async () => {
    await rig.stop();
    await shell(`${PROGRAM} cleanup`);
    const flags = [
      ...['--kubeconfig', rig.kubeconfig, '--hostname-override', 'node-0', '--cluster-cidr', '10.128.0.0/9'],
      ...[
        '--ipvs-scheduler',
        'lc',
        '--masquerade-all',
        '--iptables-masquerade-bit',
        '15',
        '--conntrack-max-per-core',
        '0',
      ],
      ...['--nodeport-addresses', '10.200.0.0/16', '--ipvs-exclude-cidrs', '10.97.0.0/16', '--ipvs-strict-arp'],
    ];
    const asFlags = await rig.adopt(rig.launch(flags));
    // Without a file it is `rules: auto`, which is iptables where those work.
    await waitForOwnRules(false);
    await shell('ipvsadm -A -t 10.97.0.1:80 -s rr');
    for (const place of ['with a file that says otherwise', 'without a file']) {
      if (place === 'without a file') rmSync(PLACE);
      for (const [command, nothing] of [
        ['verify', 'the kernel is as desired\n'],
        ['plan --exit-code', 'nothing to change\n'],
      ] as const) {
        const { code, out, err } = await type(command);
        assert.deepEqual([code, out], [0, nothing], `${place}: ${err}`);
        assert.match(err, /^configuration: that of the running daemon, http:\/\/127\.0\.0\.1:10249\/configz /m);
      }
    }
    const bundle = await type('diag --output /tmp/flags.tar');
    assert.equal(bundle.code, 0, bundle.err);
    const verified = await shell(`tar -xOf /tmp/flags.tar --wildcards '*/verify.txt'`);
    assert.match(verified, /^the kernel is as desired$/m, 'a bundle cries no wolf either');
    const nowhere = await type('diag --output /no/such/folder.tar');
    assert.deepEqual([nowhere.code, nowhere.out], [1, '']);
    assert.match(nowhere.err, /^kube-proxy-ipvs: ENOENT: .*\/no\/such\/folder\.tar/m);
    assert.doesNotMatch(nowhere.err, /not in the bundle/, 'told before the work');
    await shell('ipvsadm -D -t 10.96.0.10:80');
    asFlags.signal('SIGSTOP');
    const stuck = await type(`verify --config ${rig.config({ hostnameOverride: '' }, { scheduler: 'lc' })}`);
    assert.match(stuck.out, /missing virtual_server/, 'a file that is named counts');
    asFlags.signal('SIGCONT');
  },
);

/** `migrate` on the node as kube-proxy left it, and after one virtual server of it was meddled with. */
async function migrateAsksForNothing(): Promise<void> {
  const ready = await type('migrate');
  assert.equal(ready.code, 0, ready.err + ready.out);
  const wanted = fixtureLines('kube-proxy-1.36/ipvs.txt').filter((line) => line.startsWith('-A')).length;
  assert.match(
    ready.out,
    new RegExp(`^node-0: ready: 0 virtual servers would change \\(of ${wanted}\\); sets, rules and `),
  );
  const docs = readFileSync(`${ROOT}docs/operations.md`, 'utf8');
  // How many rules differ depends on the backend and on its version.
  const shape = (text: string): string => text.replaceAll(/\d+ to (add|change|delete)/g, 'N to $1');
  assert.ok(shape(docs).includes(`\n${shape(ready.out)}`), `docs/operations.md lacks\n${ready.out}`);
  await shell('ipvsadm -E -t 10.96.0.10:80 -s lc; ip addr del 10.96.0.11/32 dev kube-ipvs0');
  const not = await type('migrate');
  assert.equal(not.code, 2);
  assert.match(not.out, /^node-0: NOT READY: 2 virtual servers would change \(of \d+\); /);
  assert.match(not.out, /^ {4}change virtual server TCP 10\.96\.0\.10:80 rr$/m);
  assert.match(not.out, /^ {4}add address 10\.96\.0\.11 on kube-ipvs0$/m);
  const { changes, ...rest } = JSON.parse((await type('migrate -o json')).out) as { changes: Change[]; ready: boolean };
  assert.deepEqual([rest.ready, changes.length, changes.every(({ object }) => object !== 'rule')], [false, 2, true]);
  await shell('ipvsadm -E -t 10.96.0.10:80 -s rr; ip addr add 10.96.0.11/32 dev kube-ipvs0');
  console.log(not.out);
}
