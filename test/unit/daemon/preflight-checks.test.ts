import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PreflightError, requireNetAdmin } from '../../../src/daemon/preflight-checks.js';
import { hasScheduler } from '../../../src/kernel/ipvs/probe-scheduler.js';
import { IpvsClient } from '../../../src/kernel/ipvs/client.js';
import { FakeIpvs } from '../../fakes/fake-kernel-ipvs.js';
import { FakeKernel } from '../../fakes/fake-kernel.js';

test('a process without CAP_NET_ADMIN is told so, one with it is not', (context) => {
  const directory = mkdtempSync(join(tmpdir(), 'caps-'));
  context.after(() => rmSync(directory, { recursive: true }));
  const status = (effective: string): string => {
    const path = join(directory, effective);
    writeFileSync(path, `Name:\tnode\nCapPrm:\t${effective}\nCapEff:\t${effective}\n`);
    return path;
  };
  requireNetAdmin(status('000001ffffffffff'));
  requireNetAdmin(status('0000000000001000'));
  const missing = /CAP_NET_ADMIN is missing \(run as root, or add NET_ADMIN/;
  assert.throws(() => requireNetAdmin(status('0000000000000000')), PreflightError);
  assert.throws(() => requireNetAdmin(status('fffffffffffffeff'.replace('fe', 'ef'))), missing);
});

test('a scheduler is probed by use, and nothing is left behind', () => {
  const kernel = new FakeKernel();
  new FakeIpvs(kernel);
  const ipvs = new IpvsClient(kernel.open);
  assert.equal(hasScheduler(ipvs, 'rr'), true);
  assert.equal(hasScheduler(ipvs, 'no-such'), false);
  assert.deepEqual(ipvs.listVirtualServers().servers, []);
});
