/** Random changes of the cluster, random netlink faults and vandalism at once: when the faults end, nothing is lost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type FakeFault } from '../../fakes/fake-kernel-faults.js';
import { NETLINK_NETFILTER } from '../../../src/netlink/socket.js';
import { RandomCluster } from '../../fakes/cluster-generator-random.js';
import { seededRandom } from '../../fakes/cluster-generator.js';
import { FaultRig } from '../../support/fault-rig.js';
import { keyOf } from '../../support/fuzz-cluster.js';
import { assertReach, fuzzRuns, fuzzSeeds } from '../../support/fuzz-seed.js';

const CODES = ['EBUSY', 'ENOBUFS', 'EINTR', 'ENOMEM', 'EPERM', 'EAGAIN', 'EINVAL'];
/** These say "already so" of what is not: no retry can see through that, a verification does. */
const LIES = ['EEXIST', 'EADDRNOTAVAIL'];
const KINDS: Readonly<Record<string, string>> = { services: 'Service', endpointslices: 'EndpointSlice' };
/**
 * Syncs until everything must be right: what is unknown is read back in the second, and what that shows done in the
 * third.
 */
const SYNCS = 3;

class Storm {
  readonly rig: FaultRig;
  readonly #random: () => number;
  readonly #cluster: RandomCluster;
  #created = 0;
  readonly #births = new Map<string, string>();

  readonly #codes: readonly string[];

  /** A kernel that lies gives wrong errors and answers with a byte changed. */
  constructor(
    seed: number,
    reader: 'sockopt' | 'dump',
    readonly isLying: boolean,
  ) {
    this.rig = new FaultRig(reader);
    this.#random = seededRandom(seed);
    this.#codes = isLying ? [...CODES, ...LIES] : CODES;
    this.#cluster = new RandomCluster({ seed, conflicts: true, badFields: true });
    for (let i = 0; i < 25; i++) this.#apply(this.#cluster.create());
  }

  change(): void {
    for (let i = 0; i < 5; i++) this.#apply(this.#cluster.step());
  }

  #apply(changes: ReturnType<RandomCluster['step']>): void {
    for (const change of changes) {
      if (change.op === 'delete') {
        const [namespace = '', name = ''] = change.key.split('/');
        this.rig.core.delete({ kind: KINDS[change.resource]!, metadata: { namespace, name } });
        continue;
      }
      const { object } = change;
      const key = `${object.kind} ${keyOf(object)}`;
      if (!this.#births.has(key)) this.#births.set(key, new Date(++this.#created * 1000).toISOString());
      this.rig.core.set({ ...object, metadata: { ...object.metadata, creationTimestamp: this.#births.get(key) } });
    }
  }

  addFaults(): void {
    const { kernel } = this.rig;
    const count = Math.floor(this.#random() * 4);
    for (let i = 0; i < count; i++) kernel.faults.push(this.#fault());
    let left = Math.floor(this.#random() * 3);
    const strikes = (): boolean => left > 0 && this.#chance(0.1) && left-- > 0;
    const ofNetfilter = { protocol: NETLINK_NETFILTER, stays: true, when: strikes } as const;
    kernel.faults.push({ at: 'send', code: this.#pick(this.#codes), ...ofNetfilter });
    kernel.faults.push({ at: 'answer', change: (datagram) => this.#spoil(datagram), ...ofNetfilter });
    kernel.permitted = !this.#chance(0.03);
  }

  #fault(): FakeFault {
    const code = this.#pick(this.#codes);
    const dice = this.#random();
    if (dice < 0.5) return { at: 'message', code, skip: Math.floor(this.#random() * 60) };
    if (dice < 0.6) return { at: 'send', code };
    if (dice < 0.75) return { at: 'receive', code };
    if (dice < 0.9) return { at: 'answer', change: (datagram) => this.#spoil(datagram) };
    return { at: 'dump' };
  }

  /** Cut short (never between two messages, which the socket would show by its length), or with one byte changed. */
  #spoil(datagram: Buffer): Buffer {
    const cut = this.#chance(0.5) ? 1 + Math.floor(this.#random() * 15) : datagram.length - 5;
    if (!this.isLying || this.#chance(0.5)) return datagram.subarray(0, cut);
    const copy = Buffer.from(datagram);
    copy[Math.floor(this.#random() * Math.min(32, copy.length))] = Math.floor(this.#random() * 256);
    return copy;
  }

  vandalise(): void {
    const { ipvs, links, netfilter } = this.rig.kernel;
    const server = this.#pick([...ipvs.table.keys()]);
    const dice = this.#random();
    if (dice < 0.2 && server !== undefined) ipvs.table.delete(server);
    else if (dice < 0.4 && server !== undefined) ipvs.table.get(server)!.realServers.clear();
    else if (dice < 0.5) ipvs.table.clear();
    else if (dice < 0.7) links.find('kube-ipvs0')?.addresses.clear();
    else if (dice < 0.85) for (const set of netfilter.ipset!.sets.values()) set.elements.clear();
    else netfilter.ipset!.sets.clear();
  }

  /** Changes the cluster now and then until `work` is done. */
  async during(work: Promise<unknown>): Promise<void> {
    let isDone = false;
    const end = work.finally(() => (isDone = true));
    while (!isDone) {
      if (this.#chance(0.1)) this.#apply(this.#cluster.step());
      // Some come close together and are made together, some alone.
      if (this.#chance(0.2)) await this.rig.clock.advance(40 * this.#random());
      else await nextTurn();
    }
    await end;
  }

  calm(): void {
    this.rig.kernel.faults.length = 0;
    this.rig.kernel.permitted = true;
  }

  #chance(probability: number): boolean {
    return this.#random() < probability;
  }

  #pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.#random() * values.length)]!;
  }
}

for (const seed of fuzzSeeds('netlink faults')) {
  for (const reader of ['sockopt', 'dump'] as const) {
    test(`faults at random, table read by ${reader}: retries alone make up for them (seed ${seed})`, async () => {
      const storm = new Storm(seed, reader, false);
      const { rig } = storm;
      let failed = 0;
      for (let round = 0; round < fuzzRuns(30); round++) {
        storm.change();
        storm.addFaults();
        if (!(await rig.sync())) failed++;
        if (round % 7 === 0) await rig.verify();
        storm.calm();
        for (let i = 0; i < SYNCS; i++) await rig.sync();
        assert.deepEqual(rig.drift(), [], `round ${round}`);
        assert.deepEqual(rig.health().reasons, [], `round ${round}`);
      }
      assertReach(seed, failed, 4, 'syncs failed by faults');
    });

    test(`changes while the kernel is read back by ${reader}: made meanwhile, and taken for no drift (seed ${seed})`, async () => {
      const storm = new Storm(seed, reader, false);
      const { rig } = storm;
      await rig.sync();
      for (let round = 0; round < fuzzRuns(30); round++) {
        const isVandalised = round % 3 === 2;
        if (isVandalised) storm.vandalise();
        await storm.during(rig.verify());
        assert.ok(rig.hasVerified);
        const { drift } = rig.lastReport;
        if (!isVandalised) assert.equal(drift.total, 0, `round ${round}: ${drift.names.join()}`);
        for (let i = 0; i < SYNCS; i++) await rig.sync();
        if (isVandalised) await rig.verify(); // what was changed meanwhile was not compared
        assert.deepEqual(rig.drift(), [], `round ${round}`);
        assert.deepEqual(rig.health().reasons, [], `round ${round}`);
      }
      assertReach(seed, rig.interleaved, 100, 'changes in the middle of a verification');
    });

    test(`lies and vandalism, table read by ${reader}: one good verification repairs all (seed ${seed})`, async () => {
      const storm = new Storm(seed, reader, true);
      const { rig } = storm;
      await rig.sync();
      for (let round = 0; round < fuzzRuns(20); round++) {
        storm.change();
        storm.addFaults();
        storm.vandalise();
        await rig.verify();
        storm.vandalise();
        storm.calm();
        await rig.verify();
        for (let i = 0; i < SYNCS; i++) await rig.sync();
        assert.deepEqual(rig.drift(), [], `round ${round}`);
      }
    });
  }
}
