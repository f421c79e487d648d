/** Completion scripts: of every command that there is, and understood by the shell that this machine has. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { runCommandLine } from '../../../src/cli/command-line.js';
import { type CommandHandlers } from '../../../src/cli/options.js';

async function type(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ['', ''];
  const output = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
  const code = await runCommandLine(args, {} as CommandHandlers, '1.0.0', output);
  return { code, out, err };
}

/** What bash offers after these words. */
function offers(script: string, ...words: string[]): string[] {
  const path = join(mkdtempSync(join(tmpdir(), 'completion-')), 'script');
  writeFileSync(path, script);
  const line = ['kube-proxy-ipvs', ...words];
  const list = line.map((word) => `'${word}'`).join(' ');
  const ask = `. ${path}; COMP_WORDS=(${list}); COMP_CWORD=${line.length - 1}; _kube_proxy_ipvs; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return execFileSync('bash', ['-uc', ask], { encoding: 'utf8' }).trimEnd().split('\n');
}

describe('completion', () => {
  test('of bash offers every command that the help lists, their options and values', async () => {
    const { code, out: script } = await type('completion', 'bash');
    assert.equal(code, 0);
    const { out: help } = await type('--help');
    const listed = [...help.slice(help.indexOf('\nCommands:')).matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name!);
    assert.ok(listed.length > 10);
    assert.deepEqual(offers(script, '').sort(), listed.filter((name) => name !== 'help').sort());
    assert.deepEqual(offers(script, 'ba'), ['backends']);
    assert.deepEqual(offers(script, 'config', ''), ['check', 'print']);
    assert.deepEqual(offers(script, 'config', 'check', '--str'), ['--strict']);
    assert.deepEqual(offers(script, '--kubeconfig', 'file', 'services', '--name'), ['--namespace']);
    assert.deepEqual(offers(script, 'services', '-o', ''), ['wide', 'json', 'yaml', 'name']);
    assert.deepEqual(offers(script, 'table', '--output', 'y'), ['yaml']);
    assert.deepEqual(offers(script, 'plan', '-o', ''), ['json', 'yaml'], 'they differ from command to command');
    assert.deepEqual(offers(script, 'completion', 'f'), ['fish']);
    assert.ok(!offers(script, 'backends', '--').includes('--fix'), 'options of other commands');
  });

  test('of zsh and fish has the same commands; another shell is refused', async () => {
    assert.match((await type('completion', 'zsh')).out, /^#compdef kube-proxy-ipvs\n/);
    const { out } = await type('completion', 'fish');
    assert.match(
      out,
      /^complete -c kube-proxy-ipvs -n '__kube_proxy_ipvs_is \\'\\'' -f -a 'services' -d 'list the Services/m,
    );
    assert.match(out, /-l output -s o -x -a 'wide json yaml name' -d 'in another form; wide: with more'$/m);
    const refused = await type('completion', 'tcsh');
    assert.equal(refused.code, 1);
    assert.match(refused.err, /bash, zsh, fish/);
  });
});
