/** The set-up scripts: what they do when something is missing, and that they do nothing when nothing is. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';

const SETUP = join(import.meta.dirname, '../../../../scripts');
const directories: string[] = [];
let project = '';

/** A project that has only the scripts, a lock file, and a bin/ in which `npm` and others can be played. */
beforeEach(() => {
  project = mkdtempSync(join(tmpdir(), 'setup-test-'));
  directories.push(project);
  chmodSync(project, 0o755);
  mkdirSync(join(project, 'bin'));
  cpSync(SETUP, join(project, 'scripts'), { recursive: true });
  writeFileSync(join(project, 'package-lock.json'), '{"a":1}\n');
});

after(() => directories.forEach((path) => rmSync(path, { recursive: true, force: true })));

function play(program: string, script: string): void {
  writeFileSync(join(project, 'bin', program), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

function sh(args: readonly string[], uid?: number): { status: number | null; stdout: string; stderr: string } {
  return spawnSync('sh', args, {
    cwd: project,
    encoding: 'utf8',
    env: { ...process.env, PATH: `${project}/bin:${process.env['PATH']}` },
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
}

/** packages.sh, asking for a program that no machine has, in the place of ipvsadm. */
function missingIpvsadm(): void {
  const path = join(project, 'scripts/packages.sh');
  const script = readFileSync(path, 'utf8');
  assert.ok(script.includes('need ipvsadm ipvsadm\n'));
  writeFileSync(path, script.replace('need ipvsadm ipvsadm\n', 'need no-such-program ipvsadm\n'));
}

test('an old Node is named in one line', () => {
  play('node', 'case $1 in --version) echo v18.20.1 ;; *) echo 18 ;; esac');
  const { status, stderr, stdout } = sh(['scripts/packages.sh', 'build']);
  assert.equal(status, 1);
  assert.match(stderr, /^set-up: Node\.js 20 or newer is needed, found v18\.20\.1: \S+\n$/);
  assert.equal(stdout, '');
});

test('a missing package without root: one line with its name and the command', () => {
  missingIpvsadm();
  play('apt-get', 'echo must not run; exit 9');
  const uid = process.getuid?.() === 0 ? 65534 : undefined;
  const { status, stderr, stdout } = sh(['scripts/packages.sh', 'build', 'kernel'], uid);
  assert.equal(status, 1);
  assert.match(
    stderr,
    /^set-up: missing Debian packages and no root .*: sudo apt-get install -y (\S+ )*ipvsadm\b.*\n$/,
  );
  assert.equal(stdout, '');
});

test('a missing package with root is installed; the package lists are fetched only when that fails', (context) => {
  if (process.getuid?.() !== 0) return context.skip('NOT TESTED: needs root');
  missingIpvsadm();
  const calls = join(project, 'calls');
  play(
    'apt-get',
    `echo "$*" >>${calls}; [ "$1" != install ] || [ -e ${project}/lists ] || { touch ${project}/lists; exit 100; }`,
  );
  assert.equal(sh(['scripts/packages.sh', 'kernel']).status, 0);
  const verbs = readFileSync(calls, 'utf8').split('\n').map((line) => line.split(' ')[0]); // prettier-ignore
  assert.deepEqual(verbs, ['install', 'update', 'install', '']);
  assert.match(readFileSync(calls, 'utf8'), /^install -y --no-install-recommends (\S+ )*ipvsadm/);
});

test('npm ci runs when node_modules is missing or from another lock file, and not otherwise', () => {
  const calls = join(project, 'calls');
  play('npm', `echo "$*" >>${calls}; mkdir -p node_modules`);
  const count = (): number => (existsSync(calls) ? readFileSync(calls, 'utf8').trim().split('\n').length : 0);
  const counts: number[] = [];
  const install = (): void => {
    const { status, stderr } = sh(['scripts/npm-ci.sh']);
    assert.equal(status, 0, stderr);
    counts.push(count());
  };
  install();
  install();
  writeFileSync(join(project, 'package-lock.json'), '{"a":2}\n');
  install();
  install();
  rmSync(join(project, 'node_modules'), { recursive: true });
  install();
  assert.deepEqual(counts, [1, 1, 2, 2, 3]);
  assert.match(readFileSync(calls, 'utf8'), /^ci /);
});

test('a failing npm ci fails the set-up and is tried again', () => {
  play('npm', 'mkdir -p node_modules; exit 7');
  assert.equal(sh(['scripts/npm-ci.sh']).status, 7);
  assert.equal(sh(['scripts/npm-ci.sh']).status, 7);
});
