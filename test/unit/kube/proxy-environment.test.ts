/** Which proxy the environment names: golang.org/x/net/http/httpproxy, which client-go follows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { proxyFromEnvironment } from '../../../src/kube/proxy-environment.js';

const PROXY = 'http://proxy.example:3128';

function isProxied(server: string, noProxy: string): boolean {
  const found = proxyFromEnvironment(new URL(server), { HTTPS_PROXY: PROXY, HTTP_PROXY: PROXY, NO_PROXY: noProxy });
  assert.ok(found === undefined || found === PROXY);
  return found !== undefined;
}

test('by the scheme of the server, in capital or small letters; a proxy without scheme is an HTTP one', () => {
  const https = new URL('https://api.example:6443');
  const http = new URL('http://api.example:8080');
  assert.equal(proxyFromEnvironment(https, {}), undefined);
  assert.equal(proxyFromEnvironment(https, { HTTP_PROXY: PROXY }), undefined);
  assert.equal(proxyFromEnvironment(https, { HTTPS_PROXY: PROXY, HTTP_PROXY: 'http://other:1' }), PROXY);
  assert.equal(proxyFromEnvironment(http, { HTTPS_PROXY: 'http://other:1', HTTP_PROXY: PROXY }), PROXY);
  assert.equal(proxyFromEnvironment(https, { https_proxy: 'proxy.example:3128' }), PROXY);
  assert.equal(proxyFromEnvironment(https, { HTTPS_PROXY: '', https_proxy: PROXY }), PROXY);
  assert.equal(proxyFromEnvironment(https, { https_proxy: 'socks5://proxy:1080' }), 'socks5://proxy:1080');
});

for (const [server, noProxy, expected] of [
  ['https://api.example:6443', '', true],
  ['https://api.example:6443', '*', false],
  ['https://localhost:6443', '', false],
  ['https://127.0.0.1:6443', '', false],
  ['https://127.8.9.1:6443', '', false],
  ['https://[::1]:6443', '', false],
  ['https://10.96.0.1:443', '10.96.0.1', false],
  ['https://10.96.0.1:443', '10.96.0.2', true],
  ['https://10.96.0.1:443', '10.96.0.0/12', false],
  ['https://10.112.0.1:443', '10.96.0.0/12', true],
  ['https://10.96.0.1', '10.96.0.1:443', false],
  ['https://10.96.0.1:6443', '10.96.0.1:443', true],
  ['https://[fd00::1]:443', 'fd00::/64', false],
  ['https://[fd00::1]:443', 'fd00::1', false],
  ['https://[fd00::1]:443', '[fd00::1]:443', false],
  ['https://[fd00::1]:443', '[fd00::1]:444', true],
  ['https://api.example.com', 'example.com', false],
  ['https://example.com', 'example.com', false],
  ['https://badexample.com', 'example.com', true],
  ['https://api.example.com', '.example.com', false],
  ['https://example.com', '.example.com', true],
  ['https://api.example.com', '*.example.com', false],
  ['https://API.Example.COM.', 'a, b , EXAMPLE.com', false],
  ['https://api.example.com:6443', 'example.com:6443', false],
  ['https://api.example.com:6443', 'example.com:443', true],
  ['http://api.example.com', 'example.com:80', false],
  ['https://10.0.0.1', '10.0.0', true],
] as const) {
  test(`NO_PROXY=${noProxy || '(empty)'}: ${server} is ${expected ? '' : 'not '}proxied`, () => {
    assert.equal(isProxied(server, noProxy), expected);
  });
}
