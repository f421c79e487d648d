#!/usr/bin/env node
/**
 * Bundles src/main.ts into the one file that ships, dist/main.js; only the two compiled FFI addons stay in
 * node_modules.
 *
 *   node scripts/bundle.mjs            quiet but for one line
 *   node scripts/bundle.mjs --report   and which packages the bytes come from
 *   node scripts/bundle.mjs --notice   and writes NOTICE anew
 *   node scripts/bundle.mjs --out DIR  into another directory
 *
 * Beside it comes THIRD-PARTY-LICENSES, with the licences of all that is inside (scripts/licenses.mjs).
 * Bundling matters for memory: @kubernetes/client-node's index alone takes 80 MB resident from node_modules.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { clientWithoutApi, ffiInside } from './bundle-plugins.mjs';
import { bundledPackages, notice, thirdPartyLicenses } from './licenses.mjs';

const { values } = parseArgs({
  options: { report: { type: 'boolean' }, notice: { type: 'boolean' }, out: { type: 'string', default: 'dist' } },
});
const root = fileURLToPath(new URL('../', import.meta.url));
const outfile = join(root, relative(root, values.out), 'main.js');
const { version } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));

/** What git says, or undefined where there is no git or no checkout (an image's build stage). */
function git(...args) {
  try {
    return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return undefined;
  }
}

/** The date is the commit's, not the clock's: the same commit makes the same bundle. */
const epoch = process.env.SOURCE_DATE_EPOCH || git('log', '-1', '--format=%ct');
const buildInfo = {
  BUNDLED_COMMIT: process.env.GIT_COMMIT || git('describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'),
  BUNDLED_DATE: epoch ? new Date(Number(epoch) * 1000).toISOString() : undefined,
};

const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: ['src/main.ts'],
  outfile,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: 'linked',
  sourcesContent: false,
  legalComments: 'external',
  minifySyntax: true,
  minifyWhitespace: true,
  treeShaking: true,
  metafile: true,
  logLevel: 'warning',
  plugins: [ffiInside, clientWithoutApi],
  define: Object.fromEntries(
    Object.entries({ BUNDLED_VERSION: version, ...buildInfo })
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name, JSON.stringify(value)]),
  ),
  // Small young generations: 25 MB less resident during a sync of 10,000 Services, and shorter pauses.
  // One arena of the C library for all threads: 5 MB less, since what one frees another takes.
  // expose-gc: for the one collection that ends the start (native/memory.ts).
  // CommonJS packages inside call require() for Node's own modules.
  banner: {
    js: "#!/usr/bin/env -S MALLOC_ARENA_MAX=1 node --max-semi-space-size=2 --expose-gc\nimport { createRequire as __createRequire } from 'node:module';\nconst require = __createRequire(import.meta.url);",
  },
}).catch((failure) => {
  if (failure.errors === undefined) throw failure;
  process.exit(1); // esbuild has said what is wrong
});
chmodSync(outfile, 0o755);
// One character beyond Latin-1 and V8 keeps the whole source, which stays in memory, in two bytes a character.
const beyond = readFileSync(outfile).findIndex((byte) => byte > 0x7f);
if (beyond >= 0) throw new Error(`dist/main.js is not ASCII at byte ${beyond}: write the character as an escape`);

const output = metafile.outputs[relative(root, outfile)];
const included = Object.entries(output.inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0);
const packages = bundledPackages(
  root,
  included.map(([input]) => input),
);
const comments = `${outfile}.LEGAL.txt`;
writeFileSync(join(outfile, '../THIRD-PARTY-LICENSES'), thirdPartyLicenses(packages, readFileSync(comments, 'utf8')));
rmSync(comments);
if (values.notice) writeFileSync(join(root, 'NOTICE'), notice(packages));
console.log(`bundle: ${relative(root, outfile)}, ${Math.round(output.bytes / 1024)} KiB`);
if (values.report) {
  const sizes = new Map();
  for (const [input, { bytesInOutput }] of included) {
    const name = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(input)?.[1] ?? '(this project)';
    sizes.set(name, (sizes.get(name) ?? 0) + bytesInOutput);
  }
  for (const [name, bytes] of [...sizes].sort((a, b) => b[1] - a[1])) {
    console.log(`${String(Math.round(bytes / 1024)).padStart(6)} KiB  ${name}`);
  }
}
