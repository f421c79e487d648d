/** What is wrong with a configuration, but not refused, is said by the commands with which an operator checks it. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type CommandHandlers } from '../../../src/cli/options.js';
import { runCommandLine } from '../../../src/cli/command-line.js';
import { commandHandlers } from '../../../src/cli/commands.js';
import { jsonLogger } from '../../../src/daemon/logger.js';

const CONFIG = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: 10.128.0.0/9
ipvs:
  schedular: lc
kubeProxyIpvs:
  drainTimout: 5s
`;

/** What a command writes to standard error before it fails for want of a kernel and a cluster. */
async function warningsOf(args: readonly string[]): Promise<string[]> {
  const written: string[] = [];
  const no = (): never => {
    throw new Error('no kernel in this test');
  };
  const output = { out: () => undefined, err: (text: string) => void written.push(text) };
  const handlers: CommandHandlers = commandHandlers({
    ...output,
    openNetlinkSocket: no,
    version: '0',
    hostname: 'node-0',
    variables: {},
    logger: (level) => jsonLogger(level, { write: () => undefined }),
    stop: AbortSignal.abort(),
    startedAt: 0,
  });
  await runCommandLine(args, handlers, '0', output).catch(() => undefined);
  return written.filter((text) => text.startsWith('warning: ')).map((text) => text.trimEnd());
}

test('plan, verify, explain and preflight name unknown fields, each once', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'warnings-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'config.conf');
  writeFileSync(file, CONFIG);
  for (const command of [['plan'], ['verify'], ['preflight'], ['explain', '10.96.0.1:443']]) {
    const warnings = await warningsOf([...command, '--config', file]);
    assert.deepEqual(
      warnings.toSorted(),
      [
        'warning: unknown field ipvs.schedular is ignored (line 5)',
        'warning: unknown field kubeProxyIpvs.drainTimout is ignored (line 7)',
      ],
      command[0],
    );
  }
});

test('and flags that a configuration file makes void', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'warnings-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'config.conf');
  writeFileSync(file, CONFIG.split('\n').slice(0, 3).join('\n'));
  for (const command of ['plan', 'verify', 'preflight'])
    assert.deepEqual(
      await warningsOf([command, '--config', file, '--ipvs-scheduler', 'lc']),
      ['warning: --ipvs-scheduler is ignored because --config is given'],
      command,
    );
});
