/** The bars of a sparkline: as high as their values are, whatever their unit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sparkline } from '../../../src/serve/page/sparkline.js';

function heights(values: readonly number[], isLogarithmic: boolean): number[] {
  const { text } = sparkline(values, { label: 'seconds', isLogarithmic });
  return [...text.matchAll(/<rect[^>]*? height="(\d+)/g)].map(([, height]) => Number(height));
}

test('linear: in proportion to the largest, and never so low that a value is not seen', () => {
  for (const unit of [1, 0.001, 60_000])
    assert.deepEqual(heights([8 * unit, 4 * unit, 2 * unit, unit / 1000, 0], false), [32, 16, 8, 2, 1], `${unit}`);
});

test('logarithmic: equal steps for equal factors, from the smallest that is not 0', () => {
  for (const unit of [1, 0.0001, 60_000])
    assert.deepEqual(heights([unit, 10 * unit, 100 * unit, 0], true), [2, 16, 32, 1], `${unit}`);
  assert.deepEqual(heights([0.3, 0.3], true), [32, 32]);
});
