/** Walks the table of traffic-cases.ts, one test for each phase, and prints it with the results. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { shell } from './harness/kernel-state.js';
import { type Lab } from './harness/lab.js';
import { isNftables } from './harness/rules-under-test.js';
import { PHASES } from './traffic-cases.js';
import { createTrafficLab } from './traffic-lab.js';
import { nodeObject, serviceObjects } from './traffic-objects.js';
import { Proxy } from './traffic-proxy.js';
import { casesOf, describeCase, walk } from './traffic-walk.js';
import { SERVICES } from './traffic-world.js';

/** What iptables accepts against a policy of its own, nf_tables cannot: docs/packets.md, "Rules in nf_tables". */
const IPTABLES_ALONE = /^policy DROP/;

type Phase = (typeof PHASES)[number];

/** `own`: fields of kubeProxyIpvs in all phases; `also` looks at the kernel while a phase's daemon runs. */
export function testPhases(
  phases: readonly Phase[],
  own: Readonly<Record<string, unknown>> = {},
  also = nothing,
): void {
  let lab: Lab;
  let proxy: Proxy;
  let isBroken = false;
  let cases = 0;
  let unexpected = 0;

  before(async () => {
    lab = await createTrafficLab();
    proxy = await Proxy.create([nodeObject(), ...SERVICES.flatMap(serviceObjects)]);
  });

  after(async () => {
    await proxy.close();
    lab.close();
    console.log(`traffic: ${cases} cases, ${unexpected} unexpected`);
  });

  for (const phase of phases) {
    const skip = isNftables() && IPTABLES_ALONE.test(phase.name) && 'SKIPPED: about accepting in iptables';
    test(`traffic, ${phase.name}`, { skip }, async () => {
      assert.ok(!isBroken, 'not tried: the daemon did not come up or end in an earlier phase');
      isBroken = true;
      if (phase.before !== undefined) await shell(phase.before);
      const { kubeProxyIpvs, ...config } = phase.config as { kubeProxyIpvs?: object };
      await proxy.start({ ...config, kubeProxyIpvs: { ...kubeProxyIpvs, ...own } });
      const verdicts = await walk(lab, casesOf(phase.rows, SERVICES));
      console.log(`--- ${phase.name}`);
      const wrong: string[] = [];
      for (const [one, verdict] of verdicts) {
        const line = describeCase(one, verdict);
        console.log(line);
        if (!verdict.isExpected) wrong.push(line);
      }
      cases += verdicts.size;
      unexpected += wrong.length;
      await also();
      await proxy.stop();
      if (phase.after !== undefined) await shell(phase.after);
      isBroken = false;
      assert.deepEqual(wrong, []);
    });
  }
}

function nothing(): Promise<void> {
  return Promise.resolve();
}
