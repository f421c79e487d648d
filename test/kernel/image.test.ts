// test-kernel: timeout=900
/**
 * The image's files, as `node scripts/image-check.mjs --run` leaves them, run as deploy/base says: the DaemonSet's
 * commands, environment, mounts, read-only root and capabilities are read from the manifest and set up as a
 * container runtime does, the configuration is that of the ConfigMap with its two EDITs made. A Service has to
 * answer. (No seccomp profile and no cgroups: nothing here has a container runtime.)
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { parse } from 'yaml';
import { CA_CERTIFICATE } from '../fakes/api-server-tls.js';
import { type ApiObject } from '../fakes/api-server-store.js';
import { FakeApiServer } from '../fakes/api-server.js';
import { ROOT } from './harness/agent.js';
import { ipvsRules, shell } from './harness/kernel-state.js';
import { Lab } from './harness/lab.js';
import { waitUntil } from './harness/wait.js';
import { endpointSlice, node, service } from './reliability-objects.js';
import { steps } from './reliability-steps.js';

const IMAGE = process.env['TEST_IMAGE_ROOT'] ?? '/var/tmp/kube-proxy-ipvs-image/image';
const TOKEN = 'the.daemonset.token';
const WEB = { name: 'web', address: '10.96.1.1', port: 80 };
const BACKEND = '10.128.0.11';
/** include/uapi/linux/capability.h */
const CAPABILITY_BITS: Readonly<Record<string, number>> = { NET_ADMIN: 12, NET_RAW: 13, SYS_MODULE: 16, SYS_ADMIN: 21 };

interface Container {
  readonly command: readonly string[];
  readonly env?: readonly { readonly name: string }[];
  readonly securityContext: {
    readonly privileged?: boolean;
    readonly readOnlyRootFilesystem?: boolean;
    readonly allowPrivilegeEscalation?: boolean;
    readonly capabilities?: { readonly drop: readonly string[]; readonly add: readonly string[] };
  };
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
}

interface Volume {
  readonly name: string;
  readonly configMap?: object;
  readonly projected?: object;
  readonly hostPath?: { readonly path: string };
}

interface PodSpec {
  readonly containers: readonly [Container];
  readonly initContainers: readonly [Container];
  readonly volumes: readonly Volume[];
  readonly hostNetwork: boolean;
}

const manifest = (name: string): unknown => parse(readFileSync(`${ROOT}deploy/base/${name}`, 'utf8'));
const pod = (manifest('daemonset.yaml') as { spec: { template: { spec: PodSpec } } }).spec.template.spec;

if (!existsSync(IMAGE)) {
  test(`the image: NOT RUN, ${IMAGE} is missing (node scripts/image-check.mjs --run makes and runs it)`, {
    skip: true,
  });
} else runImage();

function runImage(): void {
  const step = steps();
  let lab: Lab;
  let api: FakeApiServer;
  let daemon: ChildProcess | undefined;
  let log = '';

  before(async () => {
    lab = await Lab.create({
      pods: [
        { name: 'client', addresses: ['10.128.0.10'] },
        { name: 'one', addresses: [BACKEND] },
      ],
    });
    await lab.agent.serve('one', { protocol: 'TCP', address: BACKEND, port: 8080, by: 'one' });
    api = new FakeApiServer({ tls: true, tokens: [TOKEN], bookmarkEveryMs: 10_000 });
    api.set(...([node(), service(WEB), endpointSlice(WEB, [BACKEND])] as ApiObject[]));
    await api.start();
    writeVolumes(api.url);
  });

  after(async () => {
    daemon?.kill('SIGKILL');
    lab.close();
    await api.stop();
  });

  step('the init container makes the node fit, modules and sysctls', async () => {
    const { code, output } = await ended(container(pod.initContainers[0], 'init'));
    console.log(output);
    assert.equal(code, 0, output);
    assert.match(output, /^ok +module ip_vs: /m);
    assert.doesNotMatch(output, /^(FAIL|TODO)/m);
  });

  step(
    'the daemon programs a Service, which answers, with the two capabilities and a root that it cannot write',
    async () => {
      daemon = container(pod.containers[0], 'daemon');
      const add = (chunk: Buffer): void => void (log += chunk.toString());
      daemon.stdout!.on('data', add);
      daemon.stderr!.on('data', add);
      await waitUntil('the daemon to be ready', isReady, 120_000, () => log);
      const { outcome } = await lab.agent.open('client', {
        protocol: 'TCP',
        address: WEB.address,
        port: WEB.port,
        reset: true,
      });
      assert.deepEqual([outcome.result, 'by' in outcome ? outcome.by : ''], ['answered', 'one']);
      assert.ok((await ipvsRules()).includes(`-a -t ${WEB.address}:80 -r ${BACKEND}:8080 -m -w 1`));
      assert.match(await shell('$IPTABLES-save -t nat'), /^-A KUBE-SERVICES /m);
      const status = await processStatus();
      const { add: capabilities, drop } = pod.containers[0].securityContext.capabilities!;
      assert.deepEqual(drop, ['ALL']);
      const mask = capabilities
        .reduce((sum, name) => sum + 2 ** CAPABILITY_BITS[name]!, 0)
        .toString(16)
        .padStart(16, '0');
      for (const set of ['CapPrm', 'CapEff', 'CapBnd']) assert.match(status, new RegExp(`^${set}:\\t${mask}$`, 'm'));
      assert.match(status, /^NoNewPrivs:\t1$/m);
      assert.match(status, /^Uid:\t0\t0\t0\t0$/m);
    },
  );

  step('a person in `kubectl exec` gets answers, and can write nothing', async () => {
    for (const [words, pattern] of [
      [['kube-proxy-ipvs', 'status'], /^node node-0, version \S+: healthy$/m],
      [['kube-proxy-ipvs', 'verify'], /^the kernel is as desired$/m],
      [['kube-proxy-ipvs', 'services'], /TCP 10\.96\.1\.1:80 +clusterIP/],
      [['kube-proxy', '--version'], /^\d+\.\d+\.\d+/m],
      [['ipvsadm', '-Ln'], /^TCP {2}10\.96\.1\.1:80 rr$/m],
    ] as const) {
      const { code, output } = await ended(container({ ...pod.containers[0], command: words }, 'exec'));
      assert.equal(code, 0, `${words.join(' ')}: ${output}`);
      assert.match(output, pattern, words.join(' '));
    }
    const write = await ended(container({ ...pod.containers[0], command: ['touch', '/opt/x'] }, 'exec'));
    assert.match(write.output, /Read-only file system/);
    const sysctl = await ended(
      container({ ...pod.containers[0], command: ['sh', '-c', 'echo 0 >/proc/sys/net/ipv4/ip_forward'] }, 'exec'),
    );
    assert.notEqual(sysctl.code, 0, 'a container has a read-only /proc/sys');
    const raw = await ended(container({ ...pod.containers[0], command: ['kube-proxy-ipvs', '--version=raw'] }, 'exec'));
    console.log(raw.output);
    assert.match((JSON.parse(raw.output) as { gitCommit: string }).gitCommit, /^[0-9a-f]{40}/);
  });
}

const VOLUMES = '/tmp/volumes';

/** The ConfigMap with its EDITs made, and what automounting gives. */
function writeVolumes(server: string): void {
  const { data } = manifest('configmap.yaml') as { data: Record<string, string> };
  const edited = Object.entries(data).map(([name, text]) => [
    name,
    text
      .replace(/^clusterCIDR: .*$/m, 'clusterCIDR: 10.128.0.0/9')
      .replace('https://api-server.example.com:6443', server),
  ]);
  const files: Readonly<Record<string, Readonly<Record<string, string>>>> = {
    config: Object.fromEntries(edited) as Record<string, string>,
    'api-access': { token: TOKEN, 'ca.crt': CA_CERTIFICATE, namespace: 'kube-system' },
  };
  for (const [name, contents] of Object.entries(files)) {
    mkdirSync(join(VOLUMES, name), { recursive: true });
    for (const [file, text] of Object.entries(contents)) writeFileSync(join(VOLUMES, name, file), text);
  }
  writeFileSync('/run/xtables.lock', '', { flag: 'a' });
}

/** A process as a container runtime starts it: namespaces of its own but for the network, mounts, capabilities. */
function container(spec: Container, name: string): ChildProcess {
  const { securityContext: security, volumeMounts, command } = spec;
  assert.equal(pod.hostNetwork, true);
  assert.equal(security.readOnlyRootFilesystem, true);
  const root = `/tmp/containers/${name}`;
  const isPrivileged = security.privileged === true;
  const points = volumeMounts.map(({ name: volume, mountPath, readOnly }) => {
    const source = sourceOf(volume);
    // /var/run is a link to /run: of the image, and not of the node.
    const point = execFileSync('chroot', [IMAGE, 'readlink', '-m', mountPath], { encoding: 'utf8' }).trim();
    const make = source.endsWith('.lock') ? `touch ${IMAGE}${point}` : `mkdir -p ${IMAGE}${point}`;
    const bind = `mount --bind ${source} ${root}${point}`;
    const seal = readOnly === true ? `\nmount -o remount,bind,ro ${root}${point}` : '';
    return { make: `mkdir -p ${IMAGE}${dirname(point)}\n${make}`, bind: `${bind}${seal}` };
  });
  const added = (security.capabilities?.add ?? []).map((one) => `+${one.toLowerCase()}`);
  const limit = isPrivileged
    ? []
    : ['setpriv', `--bounding-set=-all,${added.join(',')}`, '--inh-caps=-all', '--ambient-caps=-all'];
  if (security.allowPrivilegeEscalation === false) limit.push('--no-new-privs');
  const environment = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'NODE_ENV=production'];
  for (const { name: variable } of spec.env ?? []) {
    assert.equal(variable, 'NODE_NAME', 'no idea of another variable');
    environment.push('NODE_NAME=node-0');
  }
  const words = command.map((word) => word.replace('$(NODE_NAME)', 'node-0'));
  const script = `set -e
mkdir -p ${root}
${points.map(({ make }) => make).join('\n')}
mount --bind ${IMAGE} ${root}
mount -o remount,bind,ro ${root}
mount -t proc proc ${root}/proc
${isPrivileged ? '' : `mount --bind ${root}/proc/sys ${root}/proc/sys; mount -o remount,bind,ro ${root}/proc/sys`}
mount -t sysfs -o ro sysfs ${root}/sys
mount -t tmpfs tmpfs ${root}/dev
for device in null zero urandom; do touch ${root}/dev/$device; mount --bind /dev/$device ${root}/dev/$device; done
${points.map(({ bind }) => bind).join('\n')}
exec chroot ${root} ${[...limit, 'env', '-i', ...environment, ...words].map(quoted).join(' ')}`;
  return spawn('unshare', ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', script], { stdio: 'pipe' });
}

function sourceOf(name: string): string {
  const volume = pod.volumes.find((one) => one.name === name)!;
  if (volume.hostPath === undefined) return join(VOLUMES, name);
  // In the test kernel /lib/modules is a link, or holds one; a node has the files themselves there.
  return name === 'lib-modules' ? dirname(realpathSync(`/lib/modules/${release()}`)) : volume.hostPath.path;
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

async function ended(child: ChildProcess): Promise<{ code: number | null; output: string }> {
  let output = '';
  for (const stream of [child.stdout!, child.stderr!])
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, output };
}

async function isReady(): Promise<boolean> {
  try {
    return (await fetch('http://127.0.0.1:10256/readyz')).ok;
  } catch {
    return false;
  }
}

/** /proc/PID/status of the daemon, as the node sees it. */
async function processStatus(): Promise<string> {
  return shell(`for pid in /proc/[0-9]*; do
    tr '\\0' ' ' <$pid/cmdline 2>/dev/null | grep -q 'kube-proxy-ipvs --config=' || continue
    grep -q '^Name:.*\\(node\\|MainThread\\)' $pid/status && cat $pid/status && exit 0
  done; exit 1`);
}
