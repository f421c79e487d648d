/** A virtual server as the kernel shows it, beside what was applied: the same, or each way in which it is not. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DumpView } from '../../../src/kernel/ipvs/dump-view.js';
import { type Forwarding } from '../../../src/kernel/ipvs/message.js';
import { type AppliedVirtualServer } from '../../../src/plan/applied.js';
import { observeTableEntry } from '../../../src/reconcile/observe-ipvs.js';
import { type RealServerList, addressServerKey, realServerList } from '../../../src/values/virtual-server.js';
import { RR, address, real } from '../../support/netlink-sessions.js';

type Seen = readonly [ip: string, weight: number, forwarding?: Forwarding | undefined];

for (const [family, vip, ip] of [
  ['IPv4', '10.96.0.1', (last: number) => `10.0.0.${last}`],
  ['IPv6', 'fd00::1', (last: number) => `fd01::${last}`],
] as const) {
  const list = (...lasts: number[]): RealServerList => realServerList(lasts.map((last) => real(ip(last), 8080)));
  const view = (reals: readonly Seen[], more: Partial<{ modified: boolean; timeout: number }> = {}): DumpView => {
    const made = new DumpView();
    const { modified = false, timeout = 0 } = more;
    made.begin({ key: addressServerKey('TCP', address(vip), 80), settings: { ...RR, timeout }, modified });
    for (const [text, weight, forwarding = 'masquerade'] of reals) made.add(real(text, 8080), weight, forwarding);
    return made;
  };
  const APPLIED: AppliedVirtualServer = {
    settings: RR,
    realServers: list(1, 2, 3),
    draining: list(7, 8),
    modified: list(),
  };
  const KERNEL: readonly Seen[] = [
    ...[8, 3, 2].map((last): Seen => [ip(last), last === 8 ? 0 : 1]),
    ...[7, 1].map((last): Seen => [ip(last), last === 7 ? 0 : 1]),
  ];
  const withServer = (last: number, weight: number, forwarding?: Forwarding): Seen[] =>
    KERNEL.map((seen) => (seen[0] === ip(last) ? [seen[0], weight, forwarding] : seen));

  describe(family, () => {
    test('just as applied, in whatever order, it is what was applied itself', () => {
      for (const reals of [KERNEL, [...KERNEL].reverse(), KERNEL.toSorted()])
        assert.equal(observeTableEntry(view(reals), APPLIED), APPLIED);
      const empty = { ...APPLIED, realServers: list(), draining: list() };
      assert.equal(observeTableEntry(view([]), empty), empty);
    });

    test('as the kernel lists what was added, the last one first, each real server is found at the first look', () => {
      const lasts = Array.from({ length: 64 }, (_, i) => i + 1);
      const applied = { ...APPLIED, realServers: list(...lasts), draining: list() };
      const lookedAt = (order: readonly number[]): number => {
        const observed = view(order.map((last): Seen => [ip(last), 1]));
        let compared = 0;
        const compare = observed.compare.bind(observed);
        observed.compare = (...position) => {
          compared++;
          return compare(...position);
        };
        assert.equal(observeTableEntry(observed, applied), applied);
        return compared;
      };
      // The first guess of all is one that most often is wrong, and is searched for.
      assert.ok(lookedAt(lasts.toReversed()) < 64 + 8, 'added in their order');
      const rotated = [...lasts.slice(0, 20).toReversed(), ...lasts.slice(20).toReversed()];
      assert.ok(lookedAt(rotated) < 64 + 8, 'some were taken away and added again');
    });

    test('each way in which it differs is seen', () => {
      const differing: Record<string, [readonly Seen[], active: number[], draining: number[], modified: number[]]> = {
        'a weight of an active one': [withServer(2, 2), [1, 3], [7, 8], [2]],
        'a weight of a draining one': [withServer(8, 2), [1, 2, 3], [7], [8]],
        'a negative weight': [withServer(2, -1), [1, 3], [7, 8], [2]],
        'an active one tunnels': [withServer(3, 1, 'tunnel'), [1, 2], [7, 8], [3]],
        'a draining one is routed': [withServer(7, 0, 'route'), [1, 2, 3], [8], [7]],
        'an active one drains': [withServer(1, 0), [2, 3], [1, 7, 8], []],
        'a draining one is active': [withServer(7, 1), [1, 2, 3, 7], [8], []],
        'one is gone': [KERNEL.slice(1), [1, 2, 3], [7], []],
        'one is new': [[...KERNEL, [ip(9), 1]], [1, 2, 3, 9], [7, 8], []],
        'one in the place of another': [[...KERNEL.slice(0, -1), [ip(9), 1]], [2, 3, 9], [7, 8], []],
        'a draining one in the place of another': [[...KERNEL.slice(1), [ip(9), 0]], [1, 2, 3], [7, 9], []],
      };
      for (const [what, [reals, active, draining, modified]] of Object.entries(differing))
        assert.deepEqual(
          observeTableEntry(view(reals), APPLIED),
          { settings: RR, realServers: list(...active), draining: list(...draining), modified: list(...modified) },
          what,
        );
    });

    test('its settings, and what this program never sets, are no match', () => {
      assert.equal(observeTableEntry(view(KERNEL, { timeout: 60 }), APPLIED).settings.timeout, 60);
      assert.notEqual(observeTableEntry(view(KERNEL, { modified: true }), APPLIED).settings.flags, RR.flags);
      const modified = { ...APPLIED, modified: list(9) };
      assert.deepEqual(observeTableEntry(view(KERNEL), modified), APPLIED);
      assert.deepEqual(observeTableEntry(view(KERNEL), undefined), APPLIED);
    });
  });
}
