/** The program as a process: nothing of its output is lost in a pipe, and what ends the daemon is a line of its log. */
import assert from 'node:assert/strict';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, describe, it } from 'node:test';

const MAIN = join(import.meta.dirname, '../../../src/main.js');
const directory = mkdtempSync(join(tmpdir(), 'output-'));
after(() => rmSync(directory, { recursive: true }));

function start(...args: string[]): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, [MAIN, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
}

/** Reads to the end, so much at a time with a pause after each, so that the pipe is full nearly always. */
async function slowly(stream: NodeJS.ReadableStream & AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
    await sleep(5);
  }
  return Buffer.concat(chunks).toString();
}

function exited(child: ChildProcessWithoutNullStreams): Promise<number | null> {
  return new Promise((resolve) => child.once('close', (code) => resolve(code)));
}

function configFile(name: string, cidr: (i: number) => string): string {
  const path = join(directory, name);
  const list = Array.from({ length: 20_000 }, (_item, i) => `    - ${cidr(i)}\n`).join('');
  const head = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8\n';
  writeFileSync(path, `${head}ipvs:\n  excludeCIDRs:\n${list}`);
  return path;
}

const right = configFile('right.yaml', (i) => `10.${i >> 8}.${i & 255}.0/24`);
const wrong = configFile('wrong.yaml', (i) => `wrong-${i}`);

describe('output that does not fit into a pipe', () => {
  it('is whole when its reader is slow, and so is what goes to standard error', async () => {
    const print = start('config', 'print', right, '--json');
    const [text, code] = await Promise.all([slowly(print.stdout), exited(print)]);
    assert.equal(code, 0);
    assert.ok(text.length > 400_000, String(text.length));
    const { ipvs } = JSON.parse(text) as { ipvs: { excludeCIDRs: string[] } };
    assert.equal(ipvs.excludeCIDRs.length, 20_000);

    const check = start('config', 'check', wrong);
    const [problems, refused] = await Promise.all([slowly(check.stderr), exited(check)]);
    assert.equal(refused, 1);
    assert.equal(problems.trimEnd().split('\n').length, 20_000);
    assert.match(problems, /\/wrong\.yaml:20005: ipvs\.excludeCIDRs\[19999\]: "wrong-19999" is not allowed;[^\n]*\n$/);
  });

  it('ends quietly when its reader has gone', async () => {
    const print = start('config', 'print', right);
    let errors = '';
    print.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
    print.stdout.once('data', () => print.stdout.destroy());
    assert.equal(await exited(print), 0);
    assert.equal(errors, '');
  });
});

describe('what ends the program', () => {
  it('is a line of the log when it is the daemon', async () => {
    const daemon = start('--config', join(directory, 'absent'));
    const [out, errors, code] = await Promise.all([slowly(daemon.stdout), slowly(daemon.stderr), exited(daemon)]);
    assert.deepEqual([code, errors], [1, '']);
    const line = JSON.parse(out) as Record<string, string>;
    assert.equal(line.level, 'fatal');
    assert.match(line.error!, /absent: it cannot be read: ENOENT/);
  });

  it('is plain text on standard error when it is a command', async () => {
    const verify = start('verify', '--config', join(directory, 'absent'));
    const [out, errors, code] = await Promise.all([slowly(verify.stdout), slowly(verify.stderr), exited(verify)]);
    assert.deepEqual([code, out], [1, '']);
    assert.match(errors, /^kube-proxy-ipvs: \S+\/absent: it cannot be read: ENOENT/);
  });
});
