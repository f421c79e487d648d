#!/usr/bin/env node
/**
 * Runs a command where IPVS exists and nothing of the host's network is touched.
 *
 *   node test/kernel/harness/run.mjs [options] -- command args...
 *   node test/kernel/harness/run.mjs -- sh -c 'modprobe ip_vs; ipvsadm -Ln'
 *
 *   --mem 2G         memory of the test kernel
 *   --timeout 300    seconds until everything is killed and the exit code is 124
 *   --share DIR      a directory of the host that the command may write to, made if need be (repeatable); all else it
 *                    writes vanishes
 *   --cpu N          the host's CPU to run on, counted from 0 among those allowed; by default the least busy one
 *   --env NAME[=V]   an environment variable to hand on (repeatable), besides those named in PASSED_ON
 *   --verbose        show the kernel's console log also after success
 *
 * The command runs as root in the current directory, its standard output and error come out here as they are written,
 * and its exit code is this program's. KERNEL=uml (user-mode-linux, no root needed), KERNEL=host (fresh network and
 * mount namespaces on this machine's kernel) or KERNEL=qemu:NAME (a kernel of Debian under QEMU, see
 * scripts/debian-kernel.sh; two CPUs, emulated, so several times slower) chooses the place; by default the host's
 * kernel is taken when it has ip_vs and this is root. The command finds the choice in TEST_KERNEL. Several may run at
 * once.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { onOneCpu } from './pin.mjs';

const UML = '/usr/bin/linux.uml';
const PASSED_ON = /^(PATH|LANG|CI|HOME|FORCE_COLOR|NO_COLOR|NODE_[A-Z_]+|(TEST|LAB|CHAOS|BENCH|FUZZ|DEMO)_[A-Z0-9_]+)$/;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    mem: { type: 'string', default: '2G' },
    timeout: { type: 'string', default: '300' },
    share: { type: 'string', multiple: true, default: [] },
    cpu: { type: 'string' },
    env: { type: 'string', multiple: true, default: [] },
    verbose: { type: 'boolean', default: false },
  },
});
if (
  positionals.length === 0 ||
  !/^\d+[KMG]?$/i.test(values.mem) ||
  !(Number(values.timeout) > 0) ||
  !/^\d*$/.test(values.cpu ?? '')
) {
  fail(
    'usage: run.mjs [--mem 2G] [--timeout SECONDS] [--share DIR] [--cpu N] [--env NAME[=VALUE]] [--verbose] -- command args...',
  );
}

const kernel = chooseKernel();
const runDirectory = mkdtempSync(join(tmpdir(), 'test-kernel-'));
process.on('exit', () => rmSync(runDirectory, { recursive: true, force: true }));
writeFileSync(join(runDirectory, 'command.sh'), commandScript(kernel));
for (const path of values.share) mkdirSync(path, { recursive: true });
writeFileSync(join(runDirectory, 'shares'), values.share.map((path) => `${resolve(path)}\n`).join(''));
const places = { host: runOnHost, uml: runInUml, qemu: runInQemu };
process.exitCode = await places[kernel]();

/** @returns {'uml' | 'host' | 'qemu'} */
function chooseKernel() {
  const wanted = process.env.KERNEL;
  if (/^qemu:[a-z]+$/.test(wanted ?? '')) return 'qemu';
  if (wanted !== undefined && wanted !== '' && wanted !== 'uml' && wanted !== 'host') {
    fail(`KERNEL=${wanted}: must be uml, host or qemu:NAME`);
  }
  const isRoot = process.getuid?.() === 0;
  if (wanted === 'host' && !isRoot) fail('KERNEL=host needs root');
  if (wanted !== 'uml' && isRoot && (wanted === 'host' || hostHasIpvs())) return 'host';
  if (!existsSync(UML))
    fail(`${UML} is missing: apt-get install user-mode-linux (or run as root on a kernel with ip_vs)`);
  return 'uml';
}

function hostHasIpvs() {
  if (existsSync('/proc/net/ip_vs')) return true;
  return spawnSync('modprobe', ['-n', '-q', 'ip_vs']).status === 0 && spawnSync('modprobe', ['ip_vs']).status === 0;
}

/** @param {'uml' | 'host' | 'qemu'} place */
function commandScript(place) {
  const variables = new Map(Object.entries(process.env).filter(([name]) => PASSED_ON.test(name)));
  for (const item of values.env) {
    const [, name, value] =
      /^([A-Za-z_]\w*)(?:=([\s\S]*))?$/.exec(item) ?? fail(`--env ${item}: not NAME or NAME=VALUE`);
    if (value ?? process.env[name] !== undefined) variables.set(name, value ?? process.env[name]);
  }
  variables.set('TEST_KERNEL', place);
  const exports = [...variables].map(([name, value]) => `export ${name}=${quote(value ?? '')}\n`).join('');
  return `${exports}cd ${quote(process.cwd())} || exit 1\nexec ${positionals.map(quote).join(' ')}\n`;
}

/** @param {string} text */
function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

async function runInUml() {
  const log = join(runDirectory, 'console.log');
  const logStream = createWriteStream(log);
  const kernelArguments = [
    `mem=${values.mem}`,
    'root=/dev/root',
    'rootfstype=hostfs',
    'hostfs=/',
    'rw',
    `uml_dir=${runDirectory}`,
    'umid=uml',
    'con=null',
    'con0=null,fd:1',
    'con1=null,fd:3',
    'ssl=null',
    'quiet',
    'panic=1',
    `RUN_DIR=${runDirectory}`,
    `init=${join(import.meta.dirname, 'init.sh')}`,
  ];
  const cpu = values.cpu === undefined ? undefined : Number(values.cpu);
  const [program, programArguments] = await onOneCpu(UML, kernelArguments, cpu);
  const child = spawn(program, programArguments, {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    detached: true,
    env: { ...process.env, TMPDIR: memoryDirectory() },
  });
  child.stdout.pipe(logStream, { end: false });
  child.stderr.pipe(logStream, { end: false });
  child.stdio[3].pipe(process.stdout, { end: false });
  return outcomeOf(child, log, logStream);
}

async function runInQemu() {
  const name = process.env.KERNEL.slice('qemu:'.length);
  const made = spawnSync('sh', [join(import.meta.dirname, '../../../scripts/debian-kernel.sh'), name], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  if (made.status !== 0) fail(`KERNEL=qemu:${name}: the kernel could not be unpacked`);
  const directory = made.stdout.trim();
  const image = readdirSync(join(directory, 'boot')).find((file) => file.startsWith('vmlinuz-'));
  const log = join(runDirectory, 'console.log');
  const logStream = createWriteStream(log);
  const folder = (tag, path, options = '') => [
    ...['-fsdev', `local,id=${tag},path=${path},security_model=none,multidevs=remap${options}`],
    ...['-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
  ];
  const words = [
    ...['console=ttyS0', 'quiet', 'panic=-1', `RUN_DIR=${runDirectory}`, `KERNEL_DIR=${directory}`],
    // Both CPUs read the host's own counter; by the emulated HPET every look at the clock costs a system call and more.
    ...['clocksource=tsc', 'tsc=reliable'],
    `INIT=${join(import.meta.dirname, 'init-qemu.sh')}`,
  ];
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-nodefaults', '-display', 'none', '-no-reboot', '-m', values.mem, '-smp', '2', '-cpu', 'max'],
      ...['-accel', 'tcg,thread=multi', '-kernel', join(directory, 'boot', image)],
      ...['-initrd', join(directory, 'initrd.gz'), '-append', words.join(' ')],
      // Two serial lines: the kernel's console, and what the command writes. Node's pipes are socket pairs.
      ...['-chardev', 'socket,id=console,fd=4', '-serial', 'chardev:console'],
      ...['-chardev', 'socket,id=output,fd=3', '-serial', 'chardev:output'],
      ...folder('host', '/', ',readonly=on'),
      ...folder('results', runDirectory),
      ...values.share.flatMap((path, number) => folder(`share${number}`, resolve(path))),
    ],
    { stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'], detached: true },
  );
  for (const stream of [child.stdout, child.stderr, child.stdio[4]]) stream.pipe(logStream, { end: false });
  child.stdio[3].pipe(process.stdout, { end: false });
  return outcomeOf(child, log, logStream);
}

/** Waits for the test kernel's end; the exit code is what its init left in the run's directory. */
async function outcomeOf(child, log, logStream) {
  const outcome = await finished(child);
  await new Promise((done) => logStream.end(done));
  const exit = existsSync(join(runDirectory, 'exit')) ? readFileSync(join(runDirectory, 'exit'), 'utf8').trim() : '';
  const console_ = readFileSync(log, 'utf8');
  const isCrash = /BUG:|Oops|Kernel panic|Call Trace|Out of memory|oom-kill/.test(console_);
  if (values.verbose || outcome !== 'exited' || exit === '' || isCrash) {
    process.stderr.write(`--- console of the test kernel\n${console_.slice(-20_000)}\n--- end of console\n`);
  }
  if (outcome === 'timeout') return timedOut();
  if (exit === '') {
    process.stderr.write('run.mjs: the test kernel ended before the command did\n');
    return 125;
  }
  return Number(exit);
}

async function runOnHost() {
  const inside = `
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/netns /run/lock
    ip link set lo up
    exec sh ${quote(join(runDirectory, 'command.sh'))}`;
  const child = spawn('unshare', ['-n', '-m', '-p', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', inside], {
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  });
  const outcome = await finished(child);
  return outcome === 'timeout' ? timedOut() : (child.exitCode ?? 125);
}

function timedOut() {
  process.stderr.write(`run.mjs: killed after ${values.timeout} s: ${positionals.join(' ')}\n`);
  return 124;
}

/**
 * Waits for the child's end and for its pipes, killing its process group at the time-out or when this process is told
 * to stop.
 * @param {import('node:child_process').ChildProcess} child
 * @returns {Promise<'exited' | 'timeout'>}
 */
function finished(child) {
  const watchdog = startWatchdog(child.pid);
  const killGroup = () => {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // already gone
    }
  };
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
    ['SIGHUP', 1],
  ]) {
    process.on(signal, () => {
      killGroup();
      process.exit(128 + number);
    });
  }
  process.on('exit', killGroup);
  return new Promise((done, reject) => {
    let outcome = 'exited';
    const timer = setTimeout(
      () => {
        outcome = 'timeout';
        killGroup();
      },
      Number(values.timeout) * 1000,
    );
    child.on('error', (error) => reject(error));
    child.on('close', () => {
      clearTimeout(timer);
      killGroup(); // helpers of the kernel that outlived it
      watchdog.kill('SIGKILL');
      done(outcome);
    });
  });
}

/**
 * Kills the process group and removes the run's directory when this process has gone without doing so (SIGKILL): its
 * standard input is a pipe from here that ends then.
 */
function startWatchdog(group) {
  const script = 'cat >/dev/null; kill -s KILL -- "-$1"; rm -rf -- "$2"';
  const watchdog = spawn('sh', ['-c', script, 'watchdog', String(group), runDirectory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  watchdog.stdin.on('error', () => undefined);
  watchdog.unref();
  return watchdog;
}

/** The kernel's memory is a file that it maps: in memory when there is room, which is several times faster. */
function memoryDirectory() {
  const unit = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[values.mem.slice(-1).toUpperCase()] ?? 1;
  const wanted = parseInt(values.mem, 10) * unit;
  try {
    const mounts = readFileSync('/proc/mounts', 'utf8');
    const isExecutable = !/^\S+ \/dev\/shm \S+ \S*\bnoexec\b/m.test(mounts);
    const { bavail, bsize } = statfsSync('/dev/shm');
    if (isExecutable && bavail * bsize > wanted * 1.1) return '/dev/shm';
  } catch {
    // no /dev/shm: the temporary directory will do
  }
  return tmpdir();
}

/** @returns {never} */
function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(2);
}
