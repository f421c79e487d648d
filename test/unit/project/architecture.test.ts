/**
 * The import rule of the design, read from the sources: which folder may know which, what the pure core may use, how
 * long files may be.
 */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, test } from 'node:test';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '../../../..');

/** What each folder of src may import: other folders of src, packages, and modules of Node. */
interface Allowed {
  readonly folders: readonly string[];
  readonly packages?: readonly string[];
  readonly node?: readonly string[] | 'any';
}

const ALLOWED: Readonly<Record<string, Allowed>> = {
  values: { folders: [] },
  time: { folders: [], node: ['node:timers/promises'] },
  model: { folders: ['values'] },
  desired: { folders: ['values', 'model'] },
  plan: { folders: ['values', 'model', 'desired'] },
  netlink: { folders: ['values'], node: ['node:os'] },
  kernel: { folders: ['values', 'time', 'netlink'], node: 'any' },
  reconcile: {
    folders: ['values', 'time', 'model', 'desired', 'plan', 'netlink', 'kernel'],
    node: ['node:timers/promises'],
  },
  kube: { folders: ['values', 'time', 'model'], packages: ['@kubernetes/client-node', 'yaml', 'pino'], node: 'any' },
  serve: { folders: ['values', 'time'], packages: ['prom-client', 'pino'], node: 'any' },
  config: { folders: ['values'], packages: ['yaml', 'zod'], node: 'any' },
  daemon: {
    folders: [
      ...['values', 'time', 'config', 'desired', 'kernel', 'kube', 'model', 'netlink', 'plan', 'reconcile', 'serve'],
    ],
    packages: ['pino'],
    node: 'any',
  },
  cli: {
    folders: ['values', 'time', 'config', 'daemon', 'kernel', 'reconcile', 'serve'],
    packages: ['commander', 'yaml'],
    node: 'any',
  },
};

/** No I/O, no clock, no waiting, no chance: the same input gives the same output. */
const PURE = ['values', 'model', 'desired', 'plan'];
const IMPURE_NAMES = new Set([
  ...['performance', 'process', 'console', 'fetch', 'require', 'crypto', 'queueMicrotask'],
  ...['setTimeout', 'setInterval', 'setImmediate', 'Promise'],
]);
const IMPURE_MEMBERS = new Set(['Date.now', 'Math.random']);

interface Source {
  /** Path from the root: `src/plan/applied.ts`. */
  readonly path: string;
  readonly text: string;
}

function sources(...folders: string[]): Source[] {
  return folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => join(folder, name))
      .map((path) => ({ path, text: readFileSync(join(ROOT, path), 'utf8') })),
  );
}

/** Every module named by import, export from, import() or import type. */
function importsOf({ text }: Source): string[] {
  return ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName);
}

/** The source file that a relative import means, from the root: `src/values/address.ts`. */
function resolved({ path }: Source, specifier: string): string {
  return normalize(join(dirname(path), specifier)).replace(/\.js$/, '.ts');
}

function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

function importViolations(source: Source): string[] {
  const folder = source.path.split('/')[1]!;
  const allowed = ALLOWED[folder];
  if (allowed === undefined) return [`${source.path}: no rule for the folder ${folder}`];
  return importsOf(source)
    .filter((specifier) => !isAllowed(source, folder, allowed, specifier))
    .map((specifier) => `${source.path}: ${specifier}`);
}

function isAllowed(source: Source, folder: string, { folders, packages, node }: Allowed, specifier: string): boolean {
  if (specifier.startsWith('node:')) return node === 'any' || node?.includes(specifier) === true;
  if (!specifier.startsWith('.')) return packages?.includes(packageOf(specifier)) === true;
  const [top, other] = resolved(source, specifier).split('/');
  return specifier.endsWith('.js') && top === 'src' && (other === folder || folders.includes(other!));
}

function impurities({ path, text }: Source): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    const name = impureName(node);
    if (name !== undefined) found.push(`${path}: ${name}`);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true));
  return found;
}

function impureName(node: ts.Node): string | undefined {
  if (ts.isAwaitExpression(node)) return 'await';
  if (node.kind === ts.SyntaxKind.AsyncKeyword) return 'async';
  if (ts.isNewExpression(node) && node.expression.getText() === 'Date' && !node.arguments?.length) return 'new Date()';
  if (ts.isPropertyAccessExpression(node) && IMPURE_MEMBERS.has(node.getText())) return node.getText();
  if (!ts.isIdentifier(node) || !IMPURE_NAMES.has(node.text)) return undefined;
  const isMember = ts.isPropertyAccessExpression(node.parent) && node.parent.name === node;
  const isDeclared = 'name' in node.parent && node.parent.name === node;
  return isMember || isDeclared ? undefined : node.text;
}

/** File to the files that it imports. */
function graphOf(files: readonly Source[]): Map<string, string[]> {
  return new Map(
    files.map((source) => [
      source.path,
      importsOf(source)
        .filter((specifier) => specifier.startsWith('.'))
        .map((specifier) => resolved(source, specifier)),
    ]),
  );
}

/** The first cycle of imports found, as a path; types count too. */
function findCycle(files: readonly Source[]): string[] | undefined {
  const graph = graphOf(files);
  const done = new Set<string>();
  const walk = (path: string, trail: string[]): string[] | undefined => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path];
    if (done.has(path)) return undefined;
    for (const next of graph.get(path) ?? []) {
      const cycle = walk(next, [...trail, path]);
      if (cycle !== undefined) return cycle;
    }
    done.add(path);
    return undefined;
  };
  for (const path of graph.keys()) {
    const cycle = walk(path, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

const main = 'src/main.ts';
const all = sources('src');
const layered = all.filter(({ path }) => path !== main);

describe('the sources', () => {
  test('import only what their folder may know', () => {
    assert.deepEqual(layered.flatMap(importViolations), []);
    assert.ok(layered.length > 50, 'the sources were not found');
  });

  test('of every folder that has a rule exist', () => {
    const folders = new Set(layered.map(({ path }) => path.split('/')[1]));
    assert.deepEqual([...folders].sort(), Object.keys(ALLOWED).sort());
  });

  test('of the pure core wait for nothing and read no clock', () => {
    const pure = layered.filter(({ path }) => PURE.includes(path.split('/')[1]!));
    assert.deepEqual(pure.flatMap(impurities), []);
  });

  test('import native code in main.ts alone', () => {
    const users = all.filter((source) => importsOf(source).some((specifier) => specifier.includes('native/')));
    assert.deepEqual(
      users.map(({ path }) => path),
      [main],
    );
  });

  test('of native code know of the rest the seams alone that they fill', () => {
    const known = sources('native').flatMap((source) =>
      importsOf(source)
        .filter((specifier) => specifier.startsWith('.'))
        .map((specifier) => resolved(source, specifier)),
    );
    assert.deepEqual(known.sort(), [
      ...['src/kernel/command.ts', 'src/kernel/option-socket.ts'],
      ...['src/netlink/errors.ts', 'src/netlink/socket.ts'],
    ]);
  });

  test('import each other without cycles', () => {
    assert.equal(findCycle([...all, ...sources('native')]), undefined);
  });

  test('all have a use: the entry point reaches them', () => {
    const graph = graphOf([...all, ...sources('native')]);
    const reached = new Set([main]);
    for (const path of reached) for (const next of graph.get(path) ?? []) reached.add(next);
    const unused = [...graph.keys()].filter((path) => !reached.has(path));
    assert.deepEqual(unused, []);
  });

  test('are at most 400 lines long (blank ones not counted), and have no barrel files', () => {
    const files = [...all, ...sources('native', 'test')].filter(({ path }) => !path.startsWith('test/fixtures'));
    const lines = (text: string): number => text.split('\n').filter((line) => line.trim() !== '').length;
    assert.deepEqual(
      files.filter(({ text }) => lines(text) > 400).map(({ path }) => path),
      [],
    );
    const barrels = all.filter(({ path, text }) => path.endsWith('/index.ts') || /^export \* from/m.test(text));
    assert.deepEqual(barrels, []);
  });
});

describe('the rule itself', () => {
  const source = (path: string, text: string): Source => ({ path, text });

  test('sees every kind of import', () => {
    const seen: [string, string][] = [
      ['src/plan/a.ts', "import { x } from '../kernel/ipvs.js';"],
      ['src/plan/a.ts', "import { type X } from '../reconcile/runner.js';"],
      ['src/plan/a.ts', "export { x } from '../netlink/batch.js';"],
      ['src/plan/a.ts', "const x = import('../kube/client.js');"],
      ['src/plan/a.ts', "import 'node:fs';"],
      ['src/values/a.ts', "import {\n  x,\n} from '../model/json.js';"],
      ['src/kube/a.ts', "import { x } from '../kernel/ipvs.js';"],
      ['src/kube/a.ts', "import { x } from '../../native/libc.js';"],
      ['src/serve/a.ts', "import { x } from '../cli/run.js';"],
      ['src/config/a.ts', "import { x } from 'commander';"],
      ['src/model/a.ts', "import { x } from '../values/address.ts';"],
      ['src/other/a.ts', ''],
    ];
    for (const [path, text] of seen) assert.equal(importViolations(source(path, text)).length, 1, `${path} ${text}`);
  });

  test('sees what is not pure', () => {
    for (const text of [
      'async function f() {}',
      'const x = await y;',
      'const x = Date.now();',
      'const x = new Date();',
      'const x = performance.now();',
      'setTimeout(f, 1);',
      'const x = process.env.X;',
      'const x = Math.random();',
    ])
      assert.ok(impurities(source('src/plan/a.ts', text)).length > 0, text);
    assert.deepEqual(impurities(source('src/plan/a.ts', 'const x = Date.parse(t) + a.process; new Date(0);')), []);
  });

  test('sees a cycle', () => {
    const files = [
      source('src/a/one.ts', "import { x } from './two.js';"),
      source('src/a/two.ts', "import { x } from '../b/three.js';"),
      source('src/b/three.ts', "import { x } from '../a/one.js';"),
    ];
    assert.deepEqual(findCycle(files), ['src/a/one.ts', 'src/a/two.ts', 'src/b/three.ts', 'src/a/one.ts']);
    assert.equal(findCycle(files.slice(0, 2)), undefined);
  });
});
