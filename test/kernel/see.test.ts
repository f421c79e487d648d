// test-kernel: timeout=600 seconds=48
/**
 * `services`, `backends`, `connections`, `table` and `completion` typed as a person types them in the DaemonSet's
 * pod, beside
 * the shipped daemon, with connections that are open.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { after, before } from 'node:test';

import { parse } from 'yaml';
import { type Connection, ROOT } from './harness/agent.js';
import { run, shell } from './harness/kernel-state.js';
import { Lab } from './harness/lab.js';
import { waitUntil } from './harness/wait.js';
import { type ServiceSpec, endpointSlice, node, service } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const PLACE = '/var/lib/kube-proxy/config.conf';
const PROGRAM = `NODE_NAME=node-0 ${process.execPath} ${ROOT}dist/main.js`;
const [ONE, TWO, SICK] = ['10.128.0.11', '10.128.0.12', '10.128.0.13'] as const;
const [ONE6, CLIENT6] = ['fd00:10:128::11', 'fd00:10:128::10'] as const;
const WEB: ServiceSpec = { name: 'web', address: '10.96.1.1', port: 80, nodePort: 30080, affinitySeconds: 600 };
const WEB6: ServiceSpec = { name: 'web6', address: 'fd00:96::1', port: 80 };
const OTHER: ServiceSpec = { name: 'other', address: '10.96.1.2', port: 80, externalIPs: ['192.0.2.1'] };
const YOUNG: ServiceSpec = {
  ...{ name: 'young', address: '10.96.1.3', port: 80, externalIPs: ['192.0.2.1'] },
  creationTimestamp: '2026-06-01T00:00:00Z',
};

const step = steps();
let lab: Lab;
let rig: Rig;
let open: Connection[];

before(async () => {
  lab = await Lab.create({
    pods: [
      { name: 'client', addresses: ['10.128.0.10', CLIENT6] },
      { name: 'one', addresses: [ONE, ONE6] },
      { name: 'two', addresses: [TWO] },
    ],
  });
  for (const [name, address] of [
    ['one', ONE],
    ['one', ONE6],
    ['two', TWO],
  ] as const)
    await lab.agent.serve(name, { protocol: 'TCP', address, port: 8080, by: name });
  rig = await Rig.create([node(), service(WEB), slice(), service(WEB6), endpointSlice(WEB6, [ONE6])]);
  rig.set(service(OTHER), endpointSlice(OTHER, [TWO]), service(YOUNG), endpointSlice(YOUNG, [ONE]));
  mkdirSync('/var/lib/kube-proxy', { recursive: true });
  writeFileSync(PLACE, readFileSync(rig.config({ metricsBindAddress: '127.0.0.1:10333' })));
});

after(async () => {
  await rig.close();
  lab.close();
});

/** The EndpointSlice of `web`: one here, one elsewhere, one that is not ready. */
function slice(serving: readonly string[] = [ONE, TWO]): object {
  const endpoints = [ONE, TWO, SICK].map((address, i) => ({
    addresses: [address],
    conditions: { ready: serving.includes(address), serving: serving.includes(address), terminating: false },
    nodeName: `node-${i}`,
    zone: `zone-${i}`,
    targetRef: { kind: 'Pod', namespace: 'default', name: `web-pod-${i}` },
  }));
  return { ...endpointSlice(WEB, []), endpoints };
}

/** Standard output through a pipe, standard error, and the exit code. */
async function type(command: string): Promise<{ out: string; err: string; code: number }> {
  const files = '/tmp/typed';
  await shell(
    `{ code=0; ${PROGRAM} ${command} 2>${files}.err || code=$?; echo $code >${files}.code; } | cat >${files}.out`,
  );
  const [out = '', err = '', code] = ['out', 'err', 'code'].map((end) => readFileSync(`${files}.${end}`, 'utf8'));
  return { out, err: err.replace(/^configuration: .*\n/, ''), code: Number(code) };
}

async function rows(command: string): Promise<string[]> {
  const { out, err, code } = await type(command);
  assert.equal(code, 0, err);
  return out
    .trimEnd()
    .split('\n')
    .map((line) => line.split(/ {3,}/).join('|'));
}

step('services has every address with its backends and the connections that are open', async () => {
  await rig.start(PLACE, '--hostname-override', 'node-0');
  await rig.waitForRules();
  open = [
    await lab.agent.open('client', { protocol: 'TCP', address: WEB.address, port: 80, reset: true }),
    await lab.agent.open('client', { protocol: 'TCP', address: WEB.address, port: 80, reset: true }),
    await lab.agent.open('client', { protocol: 'TCP', address: WEB6.address, port: 80, reset: true }),
  ];
  for (const { outcome } of open) assert.equal(outcome.result, 'answered');
  const shown = await rows('services');
  assert.equal(shown[0], 'NAMESPACE|NAME|VIRTUAL-SERVER|KIND|SCHEDULER|READY|DRAINING|LEFT-OUT|ACTIVE|INACTIVE|STATE');
  for (const row of [
    'default|web|TCP 10.96.1.1:80|clusterIP|rr|2|0|1|2|0|ok',
    'default|web|TCP 10.200.0.2:30080|nodePort|rr|2|0|1|0|0|ok',
    'default|web6|TCP [fd00:96::1]:80|clusterIP|rr|1|0|0|1|0|ok',
    'default|other|TCP 192.0.2.1:80|externalIP|rr|1|0|0|0|0|ok',
    'default|young|TCP 192.0.2.1:80|externalIP|rr|0|0|1|-|-|contested: default/other has it',
  ])
    assert.ok(shown.includes(row), `${row}\nis not in\n${shown.join('\n')}`);
  assert.deepEqual(await rows(`services -o name ${ONE}`), ['default/web', 'default/young']);
  assert.deepEqual(await rows(`services -o name ${ONE6}`), ['default/web6']);
  assert.deepEqual(await rows('services -o name 10.200.0.2:30080'), ['default/web']);
  const nothing = await type('services nobody');
  assert.deepEqual([nothing.code, nothing.out], [1, '']);
  assert.match(nothing.err, /no Service has the name, an address or a backend nobody/);
});

step('a person at a terminal sees colours, unless NO_COLOR is set', async () => {
  const seen = async (variables: string): Promise<string> =>
    shell(`script -qec "${variables} ${PROGRAM} services web" /dev/null </dev/null | cat`);
  assert.match(await seen(''), /\p{Cc}\[32mok\p{Cc}\[0m/u);
  assert.match(await seen('NO_COLOR=1'), / {3}ok\r?\n/);
});

step('backends says where connections go, who is left out and why, and with -o wide the pods', async () => {
  const shown = await rows('backends default/web -o wide');
  const cluster = shown.filter((row) => row.startsWith('TCP 10.96.1.1:80|'));
  const kept = (address: string, i: number): RegExp =>
    new RegExp(
      `\\|${address}:8080\\|1\\|\\d\\|0\\|web-pod-${i}\\|node-${i}\\|zone-${i}\\|ready,serving(,local)?\\|-\\|active\\|-$`,
    );
  assert.match(cluster[0]!, kept(ONE, 0));
  assert.match(cluster[1]!, kept(TWO, 1));
  assert.match(cluster[2]!, /10\.128\.0\.13:8080\|-\|-\|-\|web-pod-2\|node-2\|zone-2\|-\|-\|left-out\|not ready$/);
  const active = cluster.slice(0, 2).map((row) => Number(row.split('|')[4]));
  assert.deepEqual(active.sort(), [0, 2], 'affinity sends both connections to one backend');
  assert.ok(
    (await rows('backends default/young')).some((row) =>
      row.endsWith('left-out|default/other has this address and port'),
    ),
  );
});

step(
  'connections has those of ipvsadm -Lnc, of both families, counts all, and shows as many as are asked for',
  async () => {
    const { out, err } = await type('connections default/web');
    const lines = out
      .trimEnd()
      .split('\n')
      .slice(1)
      .map((line) => line.split(/ {3,}/));
    const theirs = (await run('ipvsadm', '-Lnc'))
      .split('\n')
      .map((line) => line.trim().split(/ +/))
      .filter(
        ([protocol, , state, , virtual]) => protocol === 'TCP' && virtual === '10.96.1.1:80' && state === 'ESTABLISHED',
      )
      .map(([, , , client, virtual, backend]) => `${client} ${virtual} ${backend}`);
    const ours = lines.filter((line) => line[4] === 'ESTABLISHED').map((line) => line.slice(1, 4).join(' '));
    assert.equal(ours.length, 2, out);
    assert.deepEqual(ours.sort(), theirs.sort());
    assert.match(err, /^note: 3 in all \(1 AFFINITY, 2 ESTABLISHED\)\n$/);
    const six = JSON.parse((await type('connections default/web6 -o json')).out) as { connections: object[] };
    assert.equal(six.connections.length, 1);
    assert.deepEqual(Object.keys(six.connections[0]!).slice(0, 4), ['protocol', 'client', 'virtualServer', 'backend']);
    const [one] = six.connections as { client: string; virtualServer: string; backend: string; state: string }[];
    assert.deepEqual(
      [one!.virtualServer, one!.backend, one!.state],
      ['[fd00:96::1]:80', `[${ONE6}]:8080`, 'ESTABLISHED'],
    );
    assert.ok(one!.client.startsWith(`[${CLIENT6}]:`));
    const some = await type('connections default/web --limit 1 --no-headers');
    assert.equal(some.out.trimEnd().split('\n').length, 1);
    assert.match(some.err, /3 in all .*the first 1 are shown/);
  },
);

step('a backend that drains is told with its connections, by services and by backends', async () => {
  const name = open[0]!.outcome.result === 'answered' ? open[0]!.outcome.by : '';
  const [gone, left] = name === 'one' ? [ONE, TWO] : [TWO, ONE];
  rig.set(slice([left]));
  await waitUntil('the drain', async () =>
    (await rows('services web')).includes('default|web|TCP 10.96.1.1:80|clusterIP|rr|1|1|1|2|0|ok'),
  );
  const shown = await rows('backends default/web');
  assert.ok(shown.includes(`TCP 10.96.1.1:80|clusterIP|${gone}:8080|0|2|0|draining|not ready`), shown.join('\n'));
  assert.ok(shown.includes(`TCP 10.96.1.1:80|clusterIP|${left}:8080|1|0|0|active|-`), shown.join('\n'));
});

step('table is ipvsadm -Ln with names, and names what somebody else has put there with a question mark', async () => {
  await shell('ipvsadm -A -f 7 -s wlc');
  const { out } = await type('table');
  const plain = (text: string): string[] =>
    text
      .split('\n')
      .filter((line) => /^(TCP|FWM| {2}->)/.test(line))
      .map((line) =>
        line
          .replace(/ +#.*$/, '')
          .replace(/ +/g, ' ')
          .trim(),
      );
  const theirs = plain(await run('ipvsadm', '-Ln')).filter((line) => !line.startsWith('-> RemoteAddress'));
  const ours = plain(out).filter((line) => !line.startsWith('-> RemoteAddress'));
  assert.deepEqual(ours.map((line) => line.replace(/^FWM 7 IPv4/, 'FWM 7')).sort(), theirs.sort());
  assert.match(out, /^TCP {2}10\.96\.1\.1:80 rr persistent 600 +# default\/web:main$/m);
  assert.match(out, /^TCP {2}10\.200\.0\.2:30080 rr persistent 600 +# default\/web:main \(node port\)$/m);
  assert.match(out, /^TCP {2}192\.0\.2\.1:80 rr +# default\/other:main \(external IP\)$/m);
  assert.match(out, /^FWM {2}7 IPv4 wlc +# \?$/m);
  await shell('ipvsadm -D -f 7');
});

const SECRETS = {
  annotation: 's.Hvs7AnnotationOfAService',
  environment: 'wJalrXUtnFEMIK7MDENGbPxRfi',
  kubeconfig: 'abcdef.0123456789abcdef',
  field: 'correct-horse-battery-staple',
};

step('diag has the state of the node in one archive, and no secret of anybody', async () => {
  const told = { 'vault.example.com/token': SECRETS.annotation, note: SECRETS.annotation };
  const web = service(WEB) as { metadata: object };
  rig.set({ ...web, metadata: { ...web.metadata, annotations: told } });
  const kubeconfig = JSON.parse(readFileSync(rig.kubeconfig, 'utf8')) as { users: unknown };
  const place = rig.write('kubeconfig-diag', {
    ...kubeconfig,
    users: [{ name: 'fake', user: { token: SECRETS.kubeconfig } }],
  });
  const config = JSON.parse(readFileSync(PLACE, 'utf8')) as object;
  const file = rig.write('diag.conf', { ...config, clientConnection: { kubeconfig: place }, remark: SECRETS.field });
  const archive = '/tmp/diag.tar';
  await shell(`SECRET_KEY=${SECRETS.environment} ${PROGRAM} diag --config ${file} 2>/tmp/diag.err >${archive}`);
  const bytes = readFileSync(archive);
  for (const [name, secret] of Object.entries(SECRETS)) assert.ok(!bytes.includes(secret), name);
  const err = readFileSync('/tmp/diag.err', 'utf8');
  await shell(`mkdir /tmp/diag; tar -xf ${archive} -C /tmp/diag --strip-components=1`);
  const read = (name: string): string => readFileSync(`/tmp/diag/${name}`, 'utf8');
  console.log(`${err}${read('index.txt')}`);
  for (const [name, pattern] of [
    ['status.txt', /^node node-0, version \S+: healthy$/m],
    ['table.txt', /^TCP {2}10\.96\.1\.1:80 rr persistent 600 +# default\/web:main$/m],
    ['services.txt', /contested: default\/other has it/],
    ['events.txt', /took over the kernel state/],
    ['verify.txt', /^the kernel is as desired$/m],
    ['plan.txt', /^nothing to change$/m],
    ['preflight.txt', /^ok +permissions: /m],
    ['health.txt', /^\/healthz: 200$/m],
    ['metrics.txt', /^kubeproxy_ipvs_build_info\{/m],
    ['sets.txt', /^add KUBE-CLUSTER-IP 10\.96\.1\.1,tcp:80$/m],
    ['iptables-legacy.txt', /^-A KUBE-SERVICES /m],
    ['links.txt', /^kube-ipvs0: index \d+, dummy, /m],
    ['sysctls.txt', /^net\.ipv4\.vs\.conntrack = 1$/m],
    ['modules.txt', /^ip_vs /m],
    ['configuration.yaml', /clusterCIDR: 10\.128\.0\.0\/9/],
  ] as const)
    assert.match(read(name), pattern, name);
  assert.match(err, /^not in the bundle: log\.txt: /m, 'there is no kubelet here');
  assert.match(err, /^kube-proxy-ipvs-node-0-\S+: \d+ of \d+ parts, \d+ bytes$/m);
  assert.ok(bytes.length < 1 << 20);
});

step('status, events and explain in every form, whole through a pipe', async () => {
  for (const command of ['status', 'events', 'explain 10.96.1.1:80']) {
    const json = JSON.parse((await type(`${command} -o json`)).out) as object;
    const yaml = parse((await type(`${command} -o yaml`)).out) as object;
    assert.deepEqual(Object.keys(yaml), Object.keys(json), command);
  }
  assert.match((await type('explain 10.96.1.1:80 -o name')).out, /^10\.128\.0\.1[12]:8080\n$/, 'the other one drains');
  assert.ok((await rows('status -o name')).includes('default/web'));
  assert.ok((await rows('events -o name')).includes('default/web'));
  assert.equal((await rows('events -o wide'))[0], 'NUMBER|TIME|KIND|SERVICE|EVENT');
});

step('events --watch goes on with what comes, each once', async () => {
  const [watched, pid] = ['/tmp/watched', '/tmp/watched.pid'];
  await shell(`${PROGRAM} events --watch=200ms >${watched} 2>&1 & echo $! >${pid}`);
  await waitUntil('what there was', () => readFileSync(watched, 'utf8').includes('took over'));
  rig.set(endpointSlice(OTHER, [TWO, ONE]));
  await waitUntil('what came', () => readFileSync(watched, 'utf8').includes(`default/other gained ${ONE}:8080`));
  rig.set(endpointSlice(OTHER, [TWO]));
  await waitUntil('what went', () => readFileSync(watched, 'utf8').includes(`default/other lost ${ONE}:8080`));
  await shell(`kill $(cat ${pid})`);
  const events = readFileSync(watched, 'utf8')
    .split('\n')
    .filter((line) => / (gained|lost) |took over/.test(line));
  assert.equal(new Set(events).size, events.length, events.join('\n'));
});

step('without the API server and without the daemon the rest is shown, and what is missing is said', async () => {
  await rig.api.stop();
  const wide = await type('backends default/web -o wide');
  assert.equal(wide.code, 0, wide.err);
  assert.match(wide.out, /10\.128\.0\.11:8080/);
  assert.match(wide.err, /note: pods, nodes and zones are not known: .*ECONNREFUSED/);
  await rig.stop();
  for (const command of ['services', 'backends default/web', 'connections default/web', 'table']) {
    const { code, err } = await type(command);
    assert.equal(code, 1, command);
    assert.match(
      err,
      /no answer from the daemon at http:\/\/127\.0\.0\.1:10333\/.*is it running on this node/,
      command,
    );
  }
  assert.match((await type('table')).out, /^TCP {2}10\.96\.1\.1:80 rr persistent 600 +# \?$/m);
  assert.match((await type('completion bash')).out, /complete -o default -F _kube_proxy_ipvs kube-proxy-ipvs/);
});
