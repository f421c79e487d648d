/**
 * Whose work is in the bundle, and on what terms: packages found in esbuild's metafile, their licence files from
 * node_modules. `node scripts/bundle.mjs` writes dist/THIRD-PARTY-LICENSES with it, and NOTICE when asked to.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/**
 * What is compiled into the two addons without being JavaScript: npm packages of headers, and a library inside
 * ffi-napi.
 */
const COMPILED_IN = ['node-addon-api', 'get-uv-event-loop-napi-h', 'get-symbol-from-current-process-h'];
/** Packages that ship others inside their own built file, where esbuild does not see them. */
const BUILT_IN = { 'jsonpath-plus': ['jsep', '@jsep-plugin/assignment', '@jsep-plugin/regex'] };
const LIBFFI = { name: 'libffi', directory: 'node_modules/ffi-napi/deps/libffi', license: 'MIT' };

const LICENCE_FILE = /^(licen[cs]e|copying|notice)(\.(md|txt))?$/i;

/**
 * The packages that these files come from and those compiled into the addons, sorted by name.
 * @param {string} root the project's directory
 * @param {readonly string[]} files paths from the root, as in the metafile's inputs
 * @returns {{ name: string, version: string, license: string, text: string }[]} text: the licence, in full
 */
export function bundledPackages(root, files) {
  const directories = new Set(files.flatMap((file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0] ?? []));
  for (const name of COMPILED_IN) directories.add(`node_modules/${name}`);
  for (const [name, inside] of Object.entries(BUILT_IN)) {
    if (directories.has(`node_modules/${name}`)) for (const one of inside) directories.add(`node_modules/${one}`);
  }
  const packages = [...directories].map((directory) => {
    const { name, version, license } = JSON.parse(readFileSync(join(root, directory, 'package.json'), 'utf8'));
    return { name, version, license, text: licenceText(root, directory) };
  });
  const { name, license, directory } = LIBFFI;
  packages.push({ name, version: 'as in ffi-napi', license, text: licenceText(root, directory) });
  const once = new Map(packages.map((one) => [`${one.name} ${one.version}`, one]));
  return [...once.values()].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** Fails for a package without a licence file: then its terms must be looked up before it can be shipped. */
function licenceText(root, directory) {
  const path = join(root, directory);
  const files = existsSync(path) ? readdirSync(path).filter((name) => LICENCE_FILE.test(name)) : [];
  if (files.length === 0) throw new Error(`${directory}: no licence file`);
  return files.map((name) => readFileSync(join(path, name), 'utf8').trim()).join('\n\n');
}

/**
 * The text of THIRD-PARTY-LICENSES.
 * @param {ReturnType<typeof bundledPackages>} packages
 * @param {string} comments the legal comments of the bundled files, as esbuild collects them
 */
export function thirdPartyLicenses(packages, comments) {
  const parts = packages.map(
    ({ name, version, license, text }) => `${'='.repeat(80)}\n${name} ${version} (${license})\n\n${text}\n`,
  );
  const collected = comments.trim() === '' ? '' : `${'='.repeat(80)}\nComments in their source files\n\n${comments}`;
  return `dist/main.js and the two addons beside it contain these packages, each under its own licence.\n\n${parts.join('\n')}\n${collected}`;
}

/** The text of NOTICE: names and licences, without versions, so that an update changes it only when the set changes. */
export function notice(packages) {
  const names = new Map(packages.map(({ name, license }) => [name, license]));
  return `kube-proxy-ipvs
Copyright The kube-proxy-ipvs authors

Licensed under the Apache License, Version 2.0; see LICENSE.

The bundle contains these packages. Their licence texts are in dist/THIRD-PARTY-LICENSES, which is made with the bundle
and is in the image. This list is written by \`node scripts/bundle.mjs --notice\`.

${[...names].map(([name, license]) => `  ${name} (${license})`).join('\n')}
`;
}
