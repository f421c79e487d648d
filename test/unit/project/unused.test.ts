/**
 * Nothing in src and native is declared for others without a user; what only tests use is listed here, with its reason.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import ts from 'typescript';
import { unusedDeclarations } from '../../support/unused-declarations.js';

const ROOT = join(import.meta.dirname, '../../../..');
const scratch = mkdtempSync(join(tmpdir(), 'unused-test-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

/** What stays without a user in src, by the reason: `Class.member`. */
const KNOWN: Readonly<Record<string, readonly string[]>> = {
  'counts that carry a promise of tests: what a change costs in datagrams, processes, writes, and when it is done': [
    ...['NetlinkCounters.datagramsReceived', 'NetlinkCounters.datagramsSent', 'NetlinkCounters.dumpRetries'],
    ...['CommandRunner.spawned', 'RulesKeeper.settled', 'RulesKeeper.writes'],
  ],
  'read by name at run time: logged, or summed over Object.entries': ['Added', 'Changed', 'Deleted'].flatMap((what) => [
    `IpvsCounts.realServers${what}`,
    `IpvsCounts.virtualServers${what}`,
  ]),
  'what a client reads of the kernel, or can ask of it, so that tests compare it with recordings and with the real one':
    [
      ...['IpsetClient.protocolVersion', 'ObservedSet.references', 'ObservedSet.revision', 'StaleFlows.addBackend'],
      ...['IpvsClient.addRealServer', 'IpvsClient.getTimeouts', 'VirtualServerListing.foreign'],
      ...['Link.up', 'LinkAddress.prefixLength', 'LinkAddress.scope', 'SavedChain.policy'],
    ],
  'what tests wait for': [
    ...['ManifestState.brokenFiles', 'ManifestState.files', 'ReflectorState.lastEventAt', 'ReflectorState.malformed'],
    ...['RulesKeeper.settled', 'ServiceHealthServer.listening'],
  ],
};

const compilerOptions = (): ts.CompilerOptions => {
  const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), (path) => ts.sys.readFile(path)) as {
    config: { compilerOptions: unknown };
  };
  return ts.convertCompilerOptionsFromJson(config.compilerOptions, ROOT).options;
};

function sources(...folders: string[]): string[] {
  return folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => join(ROOT, folder, name)),
  );
}

test('exports and members all have a user', () => {
  const files = sources('src', 'native');
  const known = new Set(Object.values(KNOWN).flat());
  const found = unusedDeclarations({ files }, compilerOptions()).map((line) => line.slice(ROOT.length + 1));
  assert.ok(found.length > 10, 'those of KNOWN are not found: the check sees nothing');
  assert.deepEqual(
    found.filter((line) => !known.has(line.slice(line.indexOf(': ') + 2))),
    [],
    'delete what nobody uses, or give the reason in KNOWN',
  );
});

test('the check itself sees what is unused, and nothing else', () => {
  const write = (name: string, text: string): string => {
    const path = join(scratch, name);
    writeFileSync(path, text);
    return path;
  };
  const declares = write(
    'declares.ts',
    `export const used = 1, unused = 2;
     export function usedHere(): number { return 1; }
     export function recursive(): number { return recursive(); }
     export type UsedType = { a: 1 };
     export interface Shape { read: number; written: number; counted: number; destructured: number; byKey: number }
     export class Thing {
       field = usedHere();
       neverCalled(): void {}
       called(): void { this.#hidden(); }
       #hidden(): void {}
       static made(): Thing { return new Thing(); }
       get size(): number { return 1; }
       shape(): number { return 1; }
     }
     export interface Seam { shape(): number }`,
  );
  const uses = write(
    'uses.ts',
    `import { used, Thing, type Shape, type UsedType, type Seam } from './declares.js';
     export function f(shape: Shape, seam: Seam, type: UsedType): unknown {
       shape.written = 1;
       shape.counted++;
       const { destructured } = shape;
       Thing.made().called();
       return [used, shape.read, destructured, shape['byKey'], seam.shape(), type];
     }`,
  );
  const found = unusedDeclarations(
    { files: [declares], users: [uses] },
    { strict: true, module: ts.ModuleKind.NodeNext },
  );
  assert.deepEqual(
    found.map((line) => line.slice(scratch.length + 1)),
    [
      'declares.ts: Shape.counted',
      'declares.ts: Shape.written',
      'declares.ts: Thing.field',
      'declares.ts: Thing.neverCalled',
      'declares.ts: Thing.size',
      'declares.ts: recursive',
      'declares.ts: unused',
    ],
  );
});
