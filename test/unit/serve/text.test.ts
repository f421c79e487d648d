/** Numbers and times as the page writes them: short, and never in a unit that hides what they say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ago, bytes, duration, grouped } from '../../../src/serve/page/text.js';

test('a duration has the unit that a reader would choose', () => {
  const said = {
    0: '0 ms',
    0.00123: '1.2 ms',
    0.00994: '9.9 ms',
    0.01: '10 ms',
    0.0126: '13 ms',
    0.999: '999 ms',
    1: '1 s',
    1.005: '1 s',
    4.52: '4.5 s',
    119: '119 s',
    120: '2 min',
    7199: '120 min',
    7200: '2 h',
    172_799: '48 h',
    172_800: '2 d',
    [9 * 86_400]: '9 d',
  };
  for (const [seconds, text] of Object.entries(said)) assert.equal(duration(Number(seconds)), text, seconds);
});

test('a time is that long ago, and one in the future, by clocks that differ, just now', () => {
  const now = new Date('2026-11-26T08:00:00Z');
  const at = (seconds: number): string => ago(new Date(now.getTime() - seconds * 1000), now);
  assert.deepEqual([12, 0.25, -5].map(at), ['12 s ago', '250 ms ago', '0 ms ago']);
});

test('counts have a comma at every third digit, bytes the unit that keeps them below 1,024', () => {
  assert.deepEqual([0, 999, 1000, 50_000, 1_234_567].map(grouped), ['0', '999', '1,000', '50,000', '1,234,567']);
  const said = { 0: '0 B', 1023: '1023 B', 1024: '1 KiB', 1536: '1.5 KiB', [3.42 * 2 ** 20]: '3.4 MiB' };
  for (const [count, text] of Object.entries(said)) assert.equal(bytes(Number(count)), text);
  assert.equal(bytes(200.6 * 2 ** 30), '201 GiB');
});
