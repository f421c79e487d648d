// test-kernel: timeout=600 seconds=60
/**
 * The daemon and its commands under `seccompProfile: RuntimeDefault`, as deploy/base asks for it: containerd's default
 * profile as a real filter, with the container's capabilities. What the profile refuses the kernel logs, so that a call
 * that would be missed in silence is seen, too.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { parse } from 'yaml';
import { ROOT } from './harness/agent.js';
import { Daemon } from './harness/daemon.js';
import { ipvsRules, realServerWeights, shell } from './harness/kernel-state.js';
import { Lab } from './harness/lab.js';
import { ContainerdProfile } from './harness/seccomp.js';
import { waitUntil } from './harness/wait.js';
import { type ServiceSpec, endpointSlice, node, service } from './reliability-objects.js';
import { Rig } from './reliability-rig.js';
import { steps } from './reliability-steps.js';

const WEB: ServiceSpec = { name: 'web', address: '10.96.1.1', port: 80 };
const DNS: ServiceSpec = { name: 'dns', address: '10.96.1.2', port: 53, protocol: 'UDP', targetPort: 53 };
const [ONE, TWO] = ['10.128.0.11', '10.128.0.12'] as const;
/** As deploy/base has it. */
const AS_SHIPPED = [
  ...['setpriv', '--bounding-set=-all,+net_admin,+net_raw', '--inh-caps=-all', '--ambient-caps=-all'],
  '--no-new-privs',
];
/**
 * Refused without harm. clone3: the profile's own wish, the C library then takes clone. io_uring_setup: Node asks
 * whether there is one and takes epoll.
 */
const HARMLESS = new Set(['clone3', 'io_uring_setup']);

if (process.arch !== 'x64')
  test(`seccomp: NOT RUN, the filter is made for x64, this is ${process.arch}`, { skip: true });
else underTheProfile();

function underTheProfile(): void {
  const step = steps();
  const profile = new ContainerdProfile();
  let lab: Lab;
  let rig: Rig;
  let prefix: string[];

  before(async () => {
    lab = await Lab.create({
      pods: [
        { name: 'client', addresses: ['10.128.0.10'] },
        { name: 'one', addresses: [ONE] },
        { name: 'two', addresses: [TWO] },
      ],
    });
    for (const [name, address] of [
      ['one', ONE],
      ['two', TWO],
    ] as const) {
      await lab.agent.serve(name, { protocol: 'TCP', address, port: 8080, by: name });
      await lab.agent.serve(name, { protocol: 'UDP', address, port: 53, by: name });
    }
    rig = await Rig.create([
      node(),
      service(WEB),
      endpointSlice(WEB, [ONE, TWO]),
      service(DNS),
      endpointSlice(DNS, [ONE]),
    ]);
    prefix = [...AS_SHIPPED, ...profile.prepare(`${rig.directory}/seccomp`)];
    // Every refusal, however many come at a time.
    await shell('echo 0 >/proc/sys/kernel/printk_ratelimit');
  });

  after(async () => {
    await rig.close();
    lab.close();
  });

  async function command(...args: string[]): Promise<{ code: number | null; output: string }> {
    const typed = new Daemon({ args, prefix });
    const { code } = await typed.exited;
    return { code, output: typed.tail(100) };
  }

  async function answers(target: ServiceSpec): Promise<string> {
    const { address, port, protocol = 'TCP' } = target;
    const outcome = await lab.agent.request('client', { protocol, address, port, timeout: 5000 });
    return outcome.result === 'answered' ? outcome.by : outcome.result;
  }

  step('deploy/base asks for that profile, and the filter bites', async () => {
    const pod = parse(readFileSync(`${ROOT}deploy/base/daemonset.yaml`, 'utf8')) as {
      spec: { template: { spec: { securityContext: object } } };
    };
    assert.deepEqual(pod.spec.template.spec.securityContext, { seccompProfile: { type: 'RuntimeDefault' } });
    const under = (...words: string[]): string => {
      const [program = '', ...args] = [...prefix, ...words];
      const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
      return `${status} ${stderr.trim().split('\n').at(-1)}`;
    };
    assert.equal(under('true'), '0 ');
    assert.match(under('unshare', '--net', 'true'), /^1 unshare: .*Operation not permitted$/);
    const socket = (family: number): string =>
      under('python3', '-c', `import socket; socket.socket(${family}, socket.SOCK_SEQPACKET)`);
    assert.match(socket(38), /^1 PermissionError: .*Operation not permitted$/, 'AF_ALG');
    assert.equal(socket(1), '0 ', 'AF_UNIX');
    const refused = await profile.refused();
    for (const name of ['unshare', 'socket'])
      assert.ok(refused.has(name), `${name} not in ${[...refused.keys()].join()}`);
    await shell('dmesg --clear');
  });

  step('the node is made fit outside of it; then the daemon programs, follows and verifies under it', async () => {
    const fit = await rig.command('preflight', '--fix', '--config', rig.config());
    assert.equal(fit.code, 0, fit.output);
    await rig.adopt(new Daemon({ args: ['--config', rig.config()], prefix }));
    await rig.waitForRules();
    assert.match(await shell(`cat /proc/${rig.daemon.pid}/status`), /^Seccomp:\t2$/m);
    assert.match(await shell(`cat /proc/${rig.daemon.pid}/status`), /^CapEff:\t0000000000003000$/m);
    assert.match(await answers(WEB), /^(one|two)$/);
    assert.equal(await answers(DNS), 'one');
    rig.set(endpointSlice(DNS, [TWO]), endpointSlice(WEB, [TWO]));
    await waitUntil('the change', async () =>
      (await ipvsRules()).includes(`-a -u ${DNS.address}:53 -r ${TWO}:53 -m -w 1`),
    );
    assert.equal(await answers(DNS), 'two', 'its conntrack entry is gone');
    await waitUntil('the drain', async () => !(await realServerWeights()).some((line) => line.includes(`${ONE}:`)));
    await shell('ipvsadm -D -t 10.96.1.1:80; ip addr del 10.96.1.2/32 dev kube-ipvs0');
    await waitUntil('the repairs', async () => (await rig.scrape()).drift('virtual_server', 'missing') > 0);
    assert.equal(await answers(WEB), 'two');
    assert.equal((await rig.health()).status, 200);
  });

  step('so do its commands, typed in the container', async () => {
    const config = ['--config', rig.config()];
    for (const [words, pattern] of [
      [['status'], /^node node-0, version \S+: healthy$/m],
      [['verify'], /^the kernel is as desired$/m],
      [['plan'], /^nothing to change$/m],
      [['services'], /10\.96\.1\.1:80/],
      [['backends', 'default/web', '-o', 'wide'], /10\.128\.0\.12:8080/],
      [['connections', 'default/web'], /in all/],
      [['table'], /# default\/web/],
      [['explain', '10.96.1.1:80'], /the kernel has it so/],
      [['events'], /took over the kernel state/],
      [['migrate'], /^node-0: ready: /m],
      [['preflight'], /^ok +rules: iptables/m],
      [['diag', '--output', '/tmp/seccomp.tar'], /\d+ of \d+ parts/],
    ] as const) {
      const { code, output } = await command(...words, ...config);
      assert.equal(code, 0, `${words.join(' ')}: ${output}`);
      assert.match(output, pattern, words.join(' '));
    }
  });

  step('with VIPs as routes, and ended by SIGTERM, too', async () => {
    await rig.stop();
    await rig.adopt(new Daemon({ args: ['--config', rig.config({ kubeProxyIpvs: { vips: 'routes' } })], prefix }));
    await rig.waitForRules();
    await waitUntil('the routes', async () =>
      (await shell('ip route show table local proto 75')).includes(WEB.address),
    );
    assert.equal(await answers(WEB), 'two');
    assert.deepEqual(await rig.stop(), { code: 0, signal: null });
  });

  step('what the profile refused of all this is known, and does no harm', async () => {
    const refused = [...(await profile.refused())].map(([name, programs]) => `${name} (${[...programs].join()})`);
    console.log(`containerd's profile refused: ${refused.join(', ') || 'nothing'}`);
    assert.deepEqual(
      refused.filter((line) => !HARMLESS.has(line.split(' ')[0]!)),
      [],
    );
  });
}
