import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import { formatBindAddress, parseBindAddress } from '../../../src/config/bind-address.js';
import { formatGoDuration, parseGoDuration } from '../../../src/config/go-duration.js';

describe('Go durations', () => {
  const accepted: [string, number][] = [
    ['0', 0],
    ['0s', 0],
    ['30s', 30_000],
    ['1m0s', 60_000],
    ['1h2m3.5s', 3_723_500],
    ['100ms', 100],
    ['250us', 0.25],
    ['250µs', 0.25],
    ['1ns', 1e-6],
    ['.5s', 500],
    ['1.s', 1000],
    ['-1m', -60_000],
    ['+2s', 2000],
    ['24h0m0s', 86_400_000],
  ];
  for (const [text, milliseconds] of accepted) {
    it(`reads ${text}`, () => assert.equal(parseGoDuration(text), milliseconds));
  }
  for (const text of ['', 's', '30', '1 s', '1d', '1m 0s', '.s', '1e3s', '--1s', '1s-', 'NaN', '9999999999h']) {
    it(`refuses ${JSON.stringify(text)}`, () => assert.equal(parseGoDuration(text), undefined));
  }
  it("writes Go's own form", () => {
    const texts = ['0s', '30s', '1m0s', '1h0m0s', '24h0m0s', '1h2m3.5s', '100ms', '250µs', '-1m0s'];
    const edges = [
      '1ns',
      '999ns',
      '1µs',
      '999µs',
      '1ms',
      '999ms',
      '1s',
      '1.5s',
      '59.999s',
      '59m59s',
      '1h0m0.001s',
      '-100ms',
      '-250µs',
    ];
    for (const text of [...texts, ...edges]) assert.equal(formatGoDuration(parseGoDuration(text)!), text);
  });
  it('reads back what it writes', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 1e12 }), (ms) => parseGoDuration(formatGoDuration(ms)) === ms));
  });
  it('survives any text', () => {
    fc.assert(fc.property(fc.string(), (text) => (parseGoDuration(text), true)));
  });
});

describe('bind addresses', () => {
  it('reads IP:port, bracketed IPv6 and bare addresses', () => {
    assert.deepEqual(parseBindAddress('0.0.0.0:1', 9), { host: '0.0.0.0', port: 1 });
    assert.deepEqual(parseBindAddress('[::1]:65535', 9), { host: '::1', port: 65_535 });
    assert.deepEqual(parseBindAddress('::', 9), { host: '::', port: 9 });
    assert.deepEqual(parseBindAddress('[fd00::1]', 9), { host: 'fd00::1', port: 9 });
  });
  it('refuses everything else', () => {
    const wrong = [
      '',
      ':80',
      'localhost:80',
      '1.2.3.4:',
      '1.2.3.4:0',
      '1.2.3.4:65536',
      '[1.2.3.4]:80',
      '[::1',
      '::1]:80',
    ];
    for (const text of wrong) assert.equal(parseBindAddress(text, 9), undefined, text);
  });
  it('writes brackets for IPv6 only', () => {
    assert.equal(formatBindAddress({ host: '::1', port: 80 }), '[::1]:80');
    assert.equal(formatBindAddress({ host: '127.0.0.1', port: 80 }), '127.0.0.1:80');
  });
});
