// test-kernel: timeout=1200 seconds=77
/**
 * The same packets with VIPs as routes: who answers, from which address, and who answers ARP must not depend on it. The
 * phases that differ in their scheduler alone are left out.
 */
import assert from 'node:assert/strict';
import { kubeIpvs0Addresses, shell } from './harness/kernel-state.js';
import { PHASES } from './traffic-cases.js';
import { testPhases } from './traffic-phases.js';

const phases = PHASES.filter(({ name }) => !name.startsWith('scheduler'));

testPhases(phases, { vips: 'routes' }, async () => {
  assert.deepEqual(await kubeIpvs0Addresses(), []);
  const routes = await shell('ip route show table local proto 75; ip -6 route show table local proto 75');
  assert.match(routes, /^local 10\.96\.0\.1 dev lo scope host metric 75/m);
  assert.match(routes, /^local fd00:96::1 dev lo metric 75/m);
});
