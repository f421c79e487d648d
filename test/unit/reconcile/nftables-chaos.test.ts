/**
 * Services come, change and go while somebody plays with our tables of a real kernel's nf_tables: after the next
 * verification they are what a daemon writes that finds none.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { NFTABLES_TABLE } from '../../../src/values/nftables.js';
import { seededRandom } from '../../fakes/cluster-generator.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { fuzzRuns, fuzzSeeds } from '../../support/fuzz-seed.js';
import { nftKernel } from '../../support/nft-kernel.js';
import { isInOwnNamespace, testInOwnNamespace } from '../../support/own-namespace.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

const ROUNDS = fuzzRuns(6);
const SERVICES = 12;
const RANGES = [
  ...['10.0.0.0/8', '10.1.0.0/16', '10.1.2.0/24', '10.1.2.3/32', '10.128.0.0/9', '172.16.0.0/12', '0.0.0.0/1'],
  ...['2001:db8::/32', '2001:db8:1::/48', '2001:db8:1::7/128', 'fd00::/8'],
];
const EVERYWHERE = { all: true, primary: false, cidrs: [] };

class Play {
  readonly cluster = newCluster();
  readonly #random: () => number;
  /** What fills a cluster with each Service as it is now. */
  readonly #services = new Map<number, (cluster: TestCluster) => void>();

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  change(): void {
    for (let i = 0; i < 4; i++) {
      const number = 1 + this.#below(SERVICES);
      if (this.#random() < 0.25) {
        this.#services.delete(number);
        this.cluster.state.deleteService(`default/s${number}`);
        continue;
      }
      const loadBalancerSourceRanges = RANGES.filter(() => this.#random() < 0.3);
      const local =
        this.#random() < 0.3 ? { externalTrafficPolicy: 'Local', healthCheckNodePort: 32_000 + number } : {};
      const fields = { loadBalancerSourceRanges, ...local };
      const backends = Array.from({ length: this.#below(3) }, (_, n) => `10.0.${number}.${n + 1}`);
      const make = (cluster: TestCluster): void => makeService(cluster, number, fields, backends);
      this.#services.set(number, make);
      make(this.cluster);
    }
  }

  /** One thing that somebody does; what it is about may not be there. */
  damage(): string {
    const [family, table] = this.#pick([
      [4, `ip ${NFTABLES_TABLE}`],
      [6, `ip6 ${NFTABLES_TABLE}`],
    ] as const);
    const prefix = family === 4 ? 'KUBE-' : 'KUBE-6-';
    const number = 1 + this.#below(SERVICES);
    const balancer = family === 4 ? `203.0.113.${number}` : `2001:db8:9::${number}`;
    const range = this.#pick(RANGES.filter((one) => one.includes(':') === (family === 6)));
    const cidrs = `${table} ${`${prefix}LOAD-BALANCER-SOURCE-CIDR`.slice(0, 31)}`;
    const base = this.#pick(['filter-INPUT', 'nat-PREROUTING', 'nat-POSTROUTING', 'mangle-OUTPUT', 'nat-OUTPUT']);
    const chain = this.#pick(['nat-KUBE-SERVICES', 'nat-KUBE-NODE-PORT', 'filter-KUBE-PROXY-FIREWALL']);
    const verb = this.#pick(['add', 'delete']);
    return this.#pick([
      `${verb} element ${cidrs} { ${balancer} . tcp . 80 . ${range} }`,
      `${verb} element ${table} ${prefix}NODE-PORT-TCP { ${30_000 + number} }`,
      `${verb} element ${table} ${prefix}LOAD-BALANCER { ${balancer} . tcp . 80 }`,
      `flush set ${cidrs}`,
      `flush set ${table} ${prefix}CLUSTER-IP`,
      `flush chain ${table} ${this.#pick([base, chain])}`,
      `insert rule ${table} ${this.#pick([base, chain])} drop`,
      `rename chain ${table} ${this.#pick([base, chain])} other-${number}`,
      `add chain ${table} other-${number}; add rule ${table} ${chain} jump other-${number}`,
      `add chain ${table} his; add map ${table} ways { type inet_service : verdict; elements = { ${number} : goto his }; }`,
      `add chain ${table} his-${number} { type filter hook input priority ${number}; policy drop; }`,
      `chain ${table} filter-INPUT { type filter hook input priority -1; policy drop; }`,
      `add table ${table} { flags dormant; }`,
      `flush table ${table}`,
      `delete table ${table}`,
      `flush table ${table}; delete set ${cidrs}; add set ${cidrs} { type inet_service; }`,
      'flush ruleset',
    ]);
  }

  /** The same Services in a cluster that knows nothing of what was before. */
  again(): TestCluster {
    const cluster = newCluster();
    for (const make of this.#services.values()) make(cluster);
    return cluster;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #pick<T>(values: readonly T[]): T {
    return values[this.#below(values.length)]!;
  }
}

function newCluster(): TestCluster {
  return new TestCluster({ families: [4, 6], widestRangesOnly: true });
}

function makeService(cluster: TestCluster, number: number, fields: object, backends: readonly string[]): void {
  cluster.service(
    `s${number}`,
    {
      type: 'LoadBalancer',
      clusterIP: `10.96.0.${number}`,
      clusterIPs: [`10.96.0.${number}`, `fd00:96::${number}`],
      externalIPs: [`198.51.100.${number}`],
      ports: [{ port: 80, nodePort: 30_000 + number }],
      ...fields,
    },
    { ingress: [{ ip: `203.0.113.${number}` }, { ip: `2001:db8:9::${number}` }] },
  );
  cluster.slice(`s${number}`, backends);
}

/**
 * Elements come in no order, and chains in the order in which they were made. Maps of somebody else's are left out:
 * nothing of ours looks into them.
 */
function ruleset(): string {
  const { stdout } = spawnSync('nft', ['-s', 'list', 'ruleset'], { encoding: 'utf8' });
  const tables = stdout.split(/^(?=table )/m).map((table) => {
    const [head = '', ...blocks] = table
      .split(/^(?=\t(?:set|chain|map) )/m)
      .map((block) => block.replace(/^\}\n/m, ''));
    const kept = blocks.filter((block) => !block.startsWith('\tmap ')).map(sortedElements);
    return [head.trim(), ...kept.sort()].join('\n');
  });
  return tables
    .sort()
    .join('\n')
    .replaceAll(/\n\s*\n/g, '\n');
}

function sortedElements(block: string): string {
  return block
    .replace(/elements = \{[^}]*\}/, (elements) =>
      elements
        .split(/[\s,]*,\s*|[{}]/)
        .map((one) => one.trim())
        .sort()
        .join(' '),
    )
    .trimEnd();
}

if (isInOwnNamespace) {
  for (const seed of fuzzSeeds('nftables'))
    test(`inside: seed ${seed}: what a verification leaves is what a daemon writes that finds nothing`, async () => {
      const play = new Play(seed);
      const kernel = nftKernel();
      const config = { rules: 'nftables', nodePortAddresses: { 4: EVERYWHERE, 6: EVERYWHERE } } as const;
      const rigOf = (cluster: TestCluster): ReconcileRig => new ReconcileRig(cluster, kernel, [], undefined, config);
      const settle = async ({ dataPlane }: ReconcileRig): Promise<void> => {
        await dataPlane.rules.settled();
        assert.equal(dataPlane.rules.lastError, undefined);
      };
      const rig = rigOf(play.cluster);
      play.change();
      assert.ok((await rig.sync()).ok);
      for (let round = 1; round <= ROUNDS; round++) {
        const done: string[] = [];
        for (let i = 0; i < 6; i++) {
          const command = play.damage();
          const { status } = spawnSync('nft', [command]);
          done.push(`${command}${status === 0 ? '' : ' (refused)'}`);
          if (i % 2 === 1) {
            play.change();
            await rig.sync();
          }
        }
        await rig.verify();
        await settle(rig);
        // A rule that looks into a set which is made anew goes with it, and comes back beside the sync.
        await rig.verify();
        await settle(rig);
        const left = ruleset();
        assert.deepEqual(await rig.verify(), [], done.join('\n'));
        await settle(rig);
        spawnSync('nft', ['flush', 'ruleset']);
        const fresh = rigOf(play.again());
        assert.ok((await fresh.sync()).ok);
        await settle(fresh);
        assert.equal(left, ruleset(), done.join('\n'));
      }
    });
} else
  testInOwnNamespace('our tables come through whatever happens to them in a real kernel', fuzzSeeds('nftables').length);
