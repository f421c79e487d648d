/** Where the rules go: iptables wherever kube-proxy's IPVS mode could run; the reasons are for people. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RulesChoice, type RulesChoiceOptions, chooseRules } from '../../../src/daemon/rules/choose-rules.js';
import { type DetectedIptables } from '../../../src/kernel/iptables/detect.js';
import { FakeIptables } from '../../support/fake-iptables.js';
import { TestKernel } from '../../fakes/test-kernel.js';

const TOOLS = { ...new FakeIptables().tools, families: [4], failures: { 6: 'ip6tables: no' } } as DetectedIptables;
const AUTO = "kube-proxy's IPVS mode could run here, so the way back to it stays";

interface World extends Partial<RulesChoiceOptions> {
  /** Neither ipset nor nf_tables. */
  readonly isBare?: boolean;
}

function choose({ isBare = false, ...options }: World = {}): Promise<RulesChoice> {
  const kernel = new TestKernel();
  if (isBare) kernel.netfilter.ipset = undefined;
  return chooseRules({
    ...{ rules: 'auto', run: () => Promise.reject(new Error('no program is started')), modules: [] },
    openNetlinkSocket: kernel.open,
    isPresent: (name) => !name.includes('absent'),
    detect: (_run, asked) => {
      assert.deepEqual(asked, { probe: true }, 'they are tried');
      return Promise.resolve(TOOLS);
    },
    ...options,
  });
}

test('iptables that work with ipset are taken, with the families that work', async () => {
  const made = { iptables: TOOLS, families: [4], failures: TOOLS.failures };
  assert.deepEqual(await choose(), { ...made, reason: AUTO });
  assert.deepEqual(await choose({ rules: 'iptables' }), { ...made, reason: 'configured' });
});

test('configured for iptables nothing else is tried: that they are missing is the answer', async () => {
  const detect = (): Promise<never> => Promise.reject(new Error('no iptables in PATH'));
  await assert.rejects(choose({ rules: 'iptables', detect }), /^Error: no iptables in PATH$/);
});

test('configured for nf_tables iptables are not even looked for; what the kernel lacks is said for each family', async () => {
  const detect = (): Promise<never> => Promise.reject(new Error('looked for'));
  const { iptables, families, failures, reason } = await choose({ rules: 'nftables', detect });
  assert.deepEqual([iptables, families, reason], [undefined, [], 'configured']);
  assert.deepEqual(Object.keys(failures), ['4', '6']);
});

test('a node that has neither says what is missing of both', async () => {
  const both = (lack: RegExp): RegExp => new RegExp(`${lack.source}; nor are there nf_tables: .+`);
  const detect = (): Promise<never> => Promise.reject(new Error('no iptables in PATH'));
  await assert.rejects(choose({ detect }), both(/no iptables in PATH/));
  await assert.rejects(choose({ isBare: true }), both(/module ip_set is not loaded.*/));
  const lost = { name: 'ip_set_absent', state: 'missing', fix: 'modprobe' } as const;
  await assert.rejects(choose({ modules: [lost] }), both(/^Error: the kernel has no ip_set_absent/));
});

test('a module that is no matter of sets, or is there, is no reason to leave iptables', async () => {
  const modules = [
    { name: 'ip_vs_absent', state: 'missing', fix: 'modprobe' },
    { name: 'ip_set_absent', state: 'loaded' },
    // Built into a kernel that has no module files.
    { name: 'ip_set', state: 'missing', fix: 'modprobe' },
  ] as RulesChoiceOptions['modules'];
  assert.equal((await choose({ modules })).reason, AUTO);
});
