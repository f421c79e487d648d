/**
 * What is bundled ships with its licences: read from the source map, which knows nothing of the code that wrote them.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

const ROOT = join(import.meta.dirname, '../../../..');
const out = mkdtempSync(join(tmpdir(), 'bundle-test-'));
after(() => rmSync(out, { recursive: true, force: true }));

function manifest(directory: string): Manifest {
  return JSON.parse(readFileSync(join(ROOT, directory, 'package.json'), 'utf8')) as Manifest;
}

/** Directories of the packages whose files the source map names. */
function bundled(): string[] {
  const { sources } = JSON.parse(readFileSync(join(out, 'main.js.map'), 'utf8')) as { sources: string[] };
  const paths = sources.map((source) => resolve(out, source));
  return [...new Set(paths.flatMap((path) => /node_modules\/.*/.exec(path)?.[0] ?? []))]
    .map((path) => /^(?:.*node_modules\/)(?:@[^/]+\/)?[^/]+/.exec(path)![0])
    .filter((directory, index, list) => list.indexOf(directory) === index);
}

describe('the bundle', () => {
  let licences = '';

  before(() => {
    const { status, stderr } = spawnSync(process.execPath, ['scripts/bundle.mjs', '--out', out], {
      cwd: ROOT,
      encoding: 'utf8',
    });
    assert.equal(status, 0, stderr);
    licences = readFileSync(join(out, 'THIRD-PARTY-LICENSES'), 'utf8');
  });

  it('comes with the licence of every package inside', () => {
    const directories = bundled();
    assert.ok(directories.length >= 25, `${directories.length} packages in the source map`);
    for (const directory of directories) {
      const { name, version, license } = manifest(directory);
      assert.ok(licences.includes(`\n${name} ${version} (${license})\n`), name);
      const file = readdirSync(join(ROOT, directory)).find((entry) => /^licen[cs]e/i.test(entry));
      assert.ok(licences.includes(readFileSync(join(ROOT, directory, file!), 'utf8').trim()), name);
    }
  });

  it('names what is compiled into the addons, and what packages have inside their own built file', () => {
    const native = ['node_modules/ffi-napi', 'node_modules/@2060.io/ref-napi'].flatMap((directory) =>
      Object.keys(manifest(directory).dependencies ?? {}),
    );
    const headers = native.filter((name) => /-h$|node-addon-api/.test(name));
    assert.ok(headers.length >= 3);
    const inside = Object.keys(manifest('node_modules/jsonpath-plus').dependencies ?? {});
    for (const name of [...headers, ...inside, 'libffi']) assert.ok(licences.includes(`\n${name} `), name);
  });

  it('keeps the legal comments of the files inside', () => {
    const comments = licences.slice(licences.indexOf('Comments in their source files'));
    assert.match(comments, /^\S+\/lib\/\S+\.js:$/m);
    assert.deepEqual(readdirSync(out).sort(), ['THIRD-PARTY-LICENSES', 'main.js', 'main.js.map']);
  });

  it('has a NOTICE that names the same packages', () => {
    const listed = [...licences.matchAll(/^={80}\n(\S+) .* \((.+)\)$/gm)].map(
      ([, name, license]) => `  ${name} (${license})`,
    );
    const text = readFileSync(join(ROOT, 'NOTICE'), 'utf8');
    const named = text.split('\n').filter((line) => line.startsWith('  '));
    assert.deepEqual(named, [...new Set(listed)], 'node scripts/bundle.mjs --notice');
  });
});

describe('licences', () => {
  it('stop the build for a package without a text', async () => {
    const { bundledPackages } = (await import(pathToFileURL(join(ROOT, 'scripts/licenses.mjs')).href)) as {
      bundledPackages: (root: string, files: readonly string[]) => { name: string }[];
    };
    assert.throws(() => bundledPackages(ROOT, ['node_modules/stream-buffers/lib/x.js']), /no licence file/);
  });

  it('of the project is the Apache License in full', () => {
    const text = readFileSync(join(ROOT, 'LICENSE'), 'utf8');
    assert.equal(manifest('.').license, 'Apache-2.0');
    assert.match(text, /Apache License\s+Version 2\.0, January 2004/);
    assert.match(text, /9\. Accepting Warranty or Additional Liability\./);
    assert.match(text, /APPENDIX: How to apply the Apache License to your work\./);
  });
});
