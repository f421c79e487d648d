import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { watchConfig } from '../../../src/config/watch.js';

/** A ConfigMap volume as the kubelet lays it out: config -> ..data/config, ..data -> ..<timestamp>. */
async function configMapVolume(content: string): Promise<{ directory: string; path: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'config-watch-'));
  await mkdir(join(directory, '..2026_1'));
  await writeFile(join(directory, '..2026_1', 'config'), content);
  await symlink('..2026_1', join(directory, '..data'));
  await symlink('..data/config', join(directory, 'config'));
  return { directory, path: join(directory, 'config') };
}

async function swap(directory: string, version: string, content: string): Promise<void> {
  await mkdir(join(directory, version));
  await writeFile(join(directory, version, 'config'), content);
  await symlink(version, join(directory, '..data_tmp'));
  await rename(join(directory, '..data_tmp'), join(directory, '..data'));
}

it('sees the symbolic link swap of a ConfigMap volume, once', { timeout: 60_000 }, async (t) => {
  const { directory, path } = await configMapVolume('a: 1\n');
  t.after(() => rm(directory, { recursive: true }));
  let changes = 0;
  const changed = new Promise<void>((resolve) => {
    void watchConfig(path, { settleMs: 1, onChange: () => (changes++, resolve(), 'stop') }).then(() =>
      swap(directory, '..2026_2', 'a: 2\n'),
    );
  });
  const keepAlive = setInterval(() => undefined, 1000);
  await changed;
  await swap(directory, '..2026_3', 'a: 3\n');
  await new Promise((resolve) => setTimeout(resolve, 50));
  clearInterval(keepAlive);
  assert.equal(changes, 1);
});

it('ignores a swap to equal content and a touch, and works by polling alone', { timeout: 60_000 }, async (t) => {
  const { directory, path } = await configMapVolume('a: 1\n');
  t.after(() => rm(directory, { recursive: true }));
  let changes = 0;
  let notify = (): void => undefined;
  const changed = new Promise<void>((resolve) => (notify = resolve));
  const watch = await watchConfig(path, { settleMs: 1, pollMs: 5, onChange: () => (changes++, notify(), 'stop') });
  await swap(directory, '..2026_2', 'a: 1\n');
  await utimes(path, 1, 1);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(changes, 0);
  await swap(directory, '..2026_3', 'a: 2\n');
  const keepAlive = setInterval(() => undefined, 1000);
  await changed;
  clearInterval(keepAlive);
  watch.close();
  assert.equal(changes, 1);
});

it('is silent after close', async (t) => {
  const { directory, path } = await configMapVolume('a: 1\n');
  t.after(() => rm(directory, { recursive: true }));
  let changes = 0;
  const watch = await watchConfig(path, { settleMs: 1, pollMs: 5, onChange: () => (changes++, 'go on') });
  watch.close();
  await swap(directory, '..2026_2', 'a: 2\n');
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(changes, 0);
});
