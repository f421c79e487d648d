#!/usr/bin/env node
/**
 * Builds the image without a container engine: every step of the Dockerfile is carried out in chroots that debootstrap
 * makes, so that each RUN line is proven where no Docker daemon runs. Needs root, ten minutes and 3 GB.
 *
 *   node scripts/image-check.mjs [--run] [--arch amd64|arm64] [--keep DIR] [--log FILE] [--build-arg NAME=VALUE ...]
 *
 * Bases: a `node:` image is Debian's suite of its tag plus Node's binary, headers and npm from the npm registry; a
 * `debian:` image is debootstrap's minimal variant. Afterwards the entry point has answered --version, the size is
 * printed, and what the last stage must not have (npm, a compiler, headers) is looked for. `--run` then starts it in
 * the test kernel as the DaemonSet does (test/kernel/image.test.ts, which needs the tests compiled). Exit code 1 when a
 * step fails or something is found. What is kept, in `DIR/image`, saves half of the time when it is made again.
 * `--arch` of another machine carries the steps out by qemu-user-static, which the kernel's binfmt_misc is told of for
 * that time; that image cannot be run in the test kernel, which is of this machine's architecture.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

/** Debian's names for Node's. */
const ARCHITECTURES = { x64: 'amd64', arm64: 'arm64' };
/** binfmt_misc: an ELF program of that machine, whatever the system; F: the interpreter is opened at once. */
const FOREIGN = {
  arm64: String.raw`:kube-proxy-ipvs-image:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F`,
};

const root = fileURLToPath(new URL('../', import.meta.url));
const { values } = parseArgs({
  options: {
    ...{ keep: { type: 'string' }, log: { type: 'string' }, run: { type: 'boolean', default: false } },
    arch: { type: 'string', default: ARCHITECTURES[process.arch] },
    'build-arg': { type: 'string', multiple: true, default: [] },
  },
});
/** As `docker build --build-arg`; without any the commit at hand, as docs/operations.md has it. */
const buildArguments = new Map([
  ['GIT_COMMIT', git('rev-parse', 'HEAD')],
  ['SOURCE_DATE_EPOCH', git('log', '-1', '--format=%ct')],
  ...values['build-arg'].map(argument),
]);
if (process.getuid?.() !== 0) fail('image-check: needs root (debootstrap, chroot)');
const isForeign = values.arch !== ARCHITECTURES[process.arch];
const nodePlatform = Object.keys(ARCHITECTURES).find((name) => ARCHITECTURES[name] === values.arch);
if (nodePlatform === undefined || (isForeign && FOREIGN[values.arch] === undefined))
  fail(`image-check: no idea of the architecture ${values.arch} on ${process.arch}`);
if (isForeign && values.run) fail('image-check: --run needs an image of this machine: the test kernel is one of it');
execFileSync('sh', [join(root, 'scripts/packages.sh'), isForeign ? 'image-foreign' : 'image'], { stdio: 'inherit' });
if (isForeign) interpret();
/** Where test/kernel/image.test.ts looks. */
const kept = values.keep ?? (values.run ? '/var/tmp/kube-proxy-ipvs-image' : undefined);
const work = kept === undefined ? mkdtempSync(join(tmpdir(), 'image-')) : resolve(kept);
mkdirSync(work, { recursive: true });
process.on('exit', () => kept ?? rmSync(work, { recursive: true, force: true }));

const stages = [];
const globals = new Map();
for (const { word, rest } of instructions(readFileSync(join(root, 'Dockerfile'), 'utf8'))) {
  const stage = stages.at(-1);
  if (word === 'FROM') from(rest);
  else if (word === 'ARG') declare(stage, rest);
  else if (word === 'ENV') setEnvironment(stage, rest);
  else if (word === 'WORKDIR') enter(stage, rest);
  else if (word === 'COPY') copy(stage, rest.split(/\s+/));
  else if (word === 'RUN') inside(stage, rest);
  else if (!['LABEL', 'USER', 'ENTRYPOINT'].includes(word)) fail(`image-check: no idea of ${word}`);
}
judge(stages.at(-1));
run('ln', ['-sfn', stages.at(-1).directory, join(work, 'image')]);
if (values.run) runInTestKernel();

/** One entry per instruction: comments dropped, continued lines joined. */
function instructions(text) {
  const lines = text.split('\n').filter((line) => !/^\s*#/.test(line) && line.trim() !== '');
  const joined = lines.join('\n').replaceAll('\\\n', ' ').split('\n');
  return joined.map((line) => ({ word: line.split(/\s/, 1)[0], rest: line.replace(/^\S+\s+/, '').trim() }));
}

/** A build argument is set where a stage declares it, and an environment variable of that stage's RUN lines. */
function declare(stage, text) {
  const [name, fallback] = argument(text);
  const value = buildArguments.get(name) ?? fallback;
  (stage?.variables ?? globals).set(name, value);
  if (stage !== undefined) stage.arguments[name] = value;
}

function git(...args) {
  return execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
}

function argument(text) {
  const [name, value = ''] = text.split(/=(.*)/s);
  return [name, value];
}

function expand(text, variables) {
  return text.replace(/\$\{(\w+)\}/g, (_, name) => variables.get(name) ?? globals.get(name) ?? '');
}

function from(text) {
  const [reference, , name = String(stages.length)] = text.split(/\s+/);
  const image = expand(reference, globals);
  const [, family, tag] = /^(node|debian):([^@]+)/.exec(image) ?? fail(`image-check: no idea how to make ${image}`);
  const directory = join(work, name);
  const suite = family === 'node' ? tag.split('-')[1] : tag.split('-')[0];
  say(`FROM ${image}: debootstrap ${suite}`);
  bootstrap(suite, directory);
  if (family === 'node') addNode(directory, tag.split('-')[0]);
  stages.push({ name, directory, variables: new Map(), arguments: {}, environment: {}, workdir: '/' });
}

/** From now to the end of this process programs of the other machine run as if they were this one's. */
function interpret() {
  const directory = '/proc/sys/fs/binfmt_misc';
  if (!existsSync(join(directory, 'register'))) run('mount', ['-t', 'binfmt_misc', 'binfmt_misc', directory]);
  const entry = join(directory, 'kube-proxy-ipvs-image');
  if (existsSync(entry)) writeFileSync(entry, '-1');
  writeFileSync(join(directory, 'register'), FOREIGN[values.arch]);
  process.on('exit', () => writeFileSync(entry, '-1'));
}

/** debootstrap once per suite, then copies. */
function bootstrap(suite, directory) {
  const base = join(work, `debian-${suite}-${values.arch}`);
  if (!existsSync(base)) {
    const site = execFileSync('apt-get', ['indextargets', '--format', '$(SITE)', 'Created-By: Packages'], {
      encoding: 'utf8',
    });
    const mirror = site.split('\n').find((line) => line !== '' && !line.includes('security'));
    run('debootstrap', ['--variant=minbase', `--arch=${values.arch}`, suite, base, mirror]);
  }
  rmSync(directory, { recursive: true, force: true });
  run('cp', ['-a', base, directory]);
}

/** What the official image has in /usr/local: Node's binary and headers, and npm. */
function addNode(directory, major) {
  const packages = join(work, `node-${values.arch}`);
  if (!existsSync(join(packages, 'node_modules'))) {
    mkdirSync(packages, { recursive: true });
    writeFileSync(join(packages, 'package.json'), '{}');
    run('npm', [
      'install',
      '--prefix',
      packages,
      '--no-audit',
      '--no-fund',
      // The package is for its own machine alone.
      ...(isForeign ? ['--force'] : []),
      `node-linux-${nodePlatform}@${major}`,
      'npm@latest',
    ]);
  }
  const modules = join(packages, 'node_modules');
  const node = join(modules, `node-linux-${nodePlatform}`);
  const local = join(directory, 'usr/local');
  for (const folder of ['bin', 'include', 'lib', 'share'])
    if (existsSync(join(node, folder))) run('cp', ['-a', join(node, folder), local]);
  mkdirSync(join(local, 'lib/node_modules'), { recursive: true });
  rmSync(join(local, 'lib/node_modules/npm'), { recursive: true, force: true });
  run('cp', ['-a', join(modules, 'npm'), join(local, 'lib/node_modules/npm')]);
  run('ln', ['-sf', '../lib/node_modules/npm/bin/npm-cli.js', join(local, 'bin/npm')]);
}

function setEnvironment(stage, text) {
  const [name, value] = argument(text);
  stage.environment[name] = expand(value, stage.variables);
}

function enter(stage, path) {
  stage.workdir = path;
  mkdirSync(join(stage.directory, path), { recursive: true });
}

function copy(stage, words) {
  const source = /^--from=(.+)$/.exec(words[0])?.[1];
  const paths = source === undefined ? words : words.slice(1);
  const top = source === undefined ? root : stages.find(({ name }) => name === source).directory;
  const target = paths.at(-1);
  say(`COPY ${words.join(' ')}`);
  for (const path of paths.slice(0, -1)) {
    const to = join(
      stage.directory,
      resolve(stage.workdir, target),
      target.endsWith('/') ? path.split('/').at(-1) : '',
    );
    mkdirSync(dirname(to), { recursive: true });
    cpSync(join(top, path), to, { recursive: true });
  }
}

function inside(stage, command) {
  say(`RUN ${command.replace(/\s+/g, ' ')}`);
  const environment = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    ...stage.arguments,
    ...stage.environment,
  };
  const words = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  cpSync('/etc/resolv.conf', join(stage.directory, 'etc/resolv.conf'));
  // A machine behind a proxy that signs with its own authority lends the chroot its trust for the time of the step.
  const authority = process.env.NODE_EXTRA_CA_CERTS;
  const lent = join(stage.directory, 'run/build-authority.crt');
  if (authority !== undefined && existsSync(authority)) {
    cpSync(authority, lent, { dereference: true });
    words.push('NODE_EXTRA_CA_CERTS=/run/build-authority.crt', 'npm_config_cafile=/run/build-authority.crt');
  }
  run('chroot', [stage.directory, 'env', '-i', ...words, 'sh', '-c', `cd ${stage.workdir} && ${command}`]);
  rmSync(lent, { force: true });
}

function judge({ directory }) {
  const found = ['usr/local/bin/npm', 'usr/local/include/node', 'usr/bin/gcc', 'usr/bin/g++', 'usr/bin/python3'].filter(
    (path) => existsSync(join(directory, path)),
  );
  // As a container has it: nothing of this machine's environment, whose paths are not in there.
  const env = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };
  const raw = execFileSync('chroot', [directory, 'kube-proxy-ipvs', '--version=raw'], { encoding: 'utf8', env });
  const { gitCommit, buildDate } = JSON.parse(raw);
  const [commit, epoch] = ['GIT_COMMIT', 'SOURCE_DATE_EPOCH'].map((name) => buildArguments.get(name));
  if (gitCommit !== commit || buildDate !== new Date(Number(epoch) * 1000).toISOString())
    fail(`image-check: built from ${commit} at ${epoch}, and the program says ${raw}`);
  const size = execFileSync('du', ['-sm', directory], { encoding: 'utf8' }).split('\t')[0];
  say(`the image: ${size} MB unpacked`);
  if (found.length > 0) fail(`image-check: the last stage has ${found.join(', ')}`);
  say('every step of the Dockerfile ran; no compiler, npm or headers in the last stage');
}

function runInTestKernel() {
  const env = { ...process.env, TEST_IMAGE_ROOT: realpathSync(join(work, 'image')) };
  const test = [join(root, 'scripts/run-tests.mjs'), 'kernel', 'image.test'];
  const { status } = spawnSync(process.execPath, test, { stdio: 'inherit', cwd: root, env });
  if (status !== 0) fail('image-check: the image does not run as the DaemonSet starts it');
}

function run(program, args) {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 2 ** 28 });
  if (values.log !== undefined) appendFileSync(values.log, `$ ${program} ${args.join(' ')}\n${stdout}${stderr}`);
  if (status !== 0)
    fail(`${program} ${args.join(' ')}: exit code ${status}\n${stdout.slice(-2000)}${stderr.slice(-4000)}`);
}

function say(text) {
  console.log(text);
  if (values.log !== undefined) appendFileSync(values.log, `--- ${text}\n`);
}

/** @returns {never} */
function fail(message) {
  console.error(message);
  process.exit(1);
}
