/**
 * What esbuild cannot know about the packages: which of their parts this program never reaches. Each saving is resident
 * memory at start, measured on Node 20 (docs/design.md).
 */
import { readFileSync } from 'node:fs';

/** The compiled addons, where npm's install script leaves them: the only files needed from node_modules at run time. */
export const ADDONS = ['ffi-napi/build/Release/ffi_bindings.node', '@2060.io/ref-napi/build/Release/binding.node'];

/**
 * Takes the JavaScript of ffi-napi and ref-napi into the bundle; 12 MB. Left outside they come in through Node's ESM
 * loader, which starts a WebAssembly lexer for them, and as two copies of ref-napi.
 */
export const ffiInside = {
  name: 'ffi-inside',
  setup(build) {
    // package.json installs the fork under two names; ffi-napi itself asks for the second.
    build.onResolve({ filter: /^ref-napi$/ }, ({ kind, resolveDir }) =>
      build.resolve('@2060.io/ref-napi', { kind, resolveDir }),
    );
    build.onResolve({ filter: /\.node$/ }, ({ path }) => ({ path, external: true }));
    build.onLoad({ filter: /\/(ffi-napi\/lib\/bindings|ref-napi\/lib\/ref)\.js$/ }, ({ path }) => {
      const addon = ADDONS[path.includes('/ffi-napi/') ? 0 : 1];
      const call = "require('node-gyp-build')(path.join(__dirname, '..'))";
      const source = readFileSync(path, 'utf8');
      if (source.split(call).length !== 2) throw new Error(`${path}: does not load its addon as expected: ${call}`);
      return { contents: source.replace(call, `require('${addon}')`), loader: 'js' };
    });
    replace(
      build,
      /^debug$/,
      /napi|ref-struct/,
      'const none = () => {}; none.enabled = false; module.exports = () => none;',
    );
  },
};

/**
 * @kubernetes/client-node is used for KubeConfig and credentials only, requests are src/kube's own: no generated API
 * classes, and Node's own fetch types; 5 MB. Node loads those when they are first named, so not even that is done
 * before they are used; 3 MB, and some time of every start.
 */
export const clientWithoutApi = {
  name: 'client-without-api',
  setup(build) {
    const unused = "throw new Error('not in this bundle: the generated API client')";
    replace(
      build,
      /^\.\/gen\/index\.js$/,
      /client-node\/dist\/config\.js$/,
      `export function createConfiguration() { ${unused}; }\nexport class ServerConfiguration { constructor() { ${unused}; } }`,
    );
    replace(
      build,
      /^node-fetch$/,
      /client-node/,
      'export class Headers { constructor(init) { return new globalThis.Headers(init); } }',
    );
  },
};

/** Replaces the modules whose name matches, when the importing file matches, by this source. */
function replace(build, filter, importer, contents) {
  const namespace = `replaced:${filter.source}`;
  build.onResolve({ filter }, (found) =>
    importer.test(found.importer) ? { path: found.path, namespace, sideEffects: false } : undefined,
  );
  build.onLoad({ filter: /.*/, namespace }, () => ({ contents, loader: 'js' }));
}
