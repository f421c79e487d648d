/** What the page says of one address of a Service: the worst, in few words. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type VirtualServerReport } from '../../../src/serve/inspection.js';
import { stateOf } from '../../../src/serve/page/services.js';

const FINE = {
  ...{ contestedBy: null, written: true, ready: 2, inKernel: 2, noLocalEndpoint: false },
} as VirtualServerReport;

test('contested, not in the kernel, refused, being written, without a local endpoint, ok: in this order', () => {
  const said = (change: Partial<VirtualServerReport>): string => stateOf({ ...FINE, ...change }).text;
  assert.match(
    said({ contestedBy: 'shop/early', written: false }),
    /class="bad">contested: <a [^>]*>shop\/early<\/a> has it/,
  );
  assert.equal(said({ written: false, ready: 0 }), '<span class="bad">not in the kernel</span>');
  assert.equal(said({ ready: 0, inKernel: 1 }), '<span class="warn">no endpoints: refused</span>');
  assert.equal(said({ inKernel: 1, noLocalEndpoint: true }), '<span class="warn">being written</span>');
  assert.match(said({ noLocalEndpoint: true }), /class="warn">no endpoint on this node: outside clients are dropped/);
  assert.equal(said({ ready: 1, inKernel: 1 }), '<span class="ok">ok</span>');
});
