import { proxyRules } from '../../desired/proxy-rules.js';
import { REFUSAL_REASONS, refusalRules } from '../../desired/refusal-rules.js';
import { openRuleCounters } from '../../kernel/iptables/rule-counters.js';
import { NftRuleCounters } from '../../kernel/nftables/rule-counters.js';
import { readTableFill } from '../../kernel/node/table-fill.js';
import { type HealthSource, allReasons } from '../../serve/health.js';
import { type Metrics } from '../../serve/metrics.js';
import { NFTABLES_TABLE } from '../../values/nftables.js';
import { type DataPlane } from '../data-plane.js';
import { RefusedPackets } from '../rules/refused-packets.js';
import { ServiceTrafficReader } from './service-traffic.js';
import { tableSizes, unservedServices } from '../report/sync-report.js';

export interface ScrapeOptions {
  readonly dataPlane: DataPlane;
  readonly metrics: Metrics;
  readonly health: Pick<HealthSource, 'healthz'>;
  /** What the watches know. */
  readonly collect: () => void;
}

/** /metrics: what is counted only when somebody asks, in turns with the node's other work, and then the text. */
export class Scrape {
  readonly #refused: RefusedPackets;
  readonly #services: ServiceTrafficReader | undefined;

  constructor(readonly options: ScrapeOptions) {
    const { dataPlane } = options;
    const { world, config } = dataPlane.options;
    this.#refused = newRefusedPackets(options);
    if (config.serviceMetrics > 0)
      this.#services = new ServiceTrafficReader(world.openNetlinkSocket, dataPlane, config.serviceMetrics);
  }

  async text(): Promise<string> {
    const { dataPlane, metrics, health, collect } = this.options;
    collect();
    // After every sync it would make a change cost what the cluster's size is.
    for (const [family, size] of await tableSizes(dataPlane)) metrics.tableSize(family, ...size);
    metrics.estimating(dataPlane.estimation.isRunning ?? true);
    metrics.tableFill({ ...readTableFill(), connections: dataPlane.table.counts.connections });
    for (const [family, unserved] of unservedServices(dataPlane.options.families, dataPlane.cluster))
      metrics.familyServed(family, unserved === undefined, unserved ?? 0);
    metrics.unhealthy(new Set(allReasons(health.healthz()).map(({ category }) => category)));
    await this.#refused.collect();
    const traffic = await this.#services?.read(performance.now());
    if (traffic !== undefined) metrics.serviceTraffic(traffic.ports, traffic.cut);
    return metrics.text();
  }

  close(): void {
    this.#refused.close();
    this.#services?.close();
  }
}

function newRefusedPackets({ dataPlane, metrics }: ScrapeOptions): RefusedPackets {
  const { families, iptables, world } = dataPlane.options;
  for (const family of families) for (const reason of REFUSAL_REASONS) metrics.packetsRefused(family, reason, 0);
  return new RefusedPackets({
    counters:
      iptables === undefined
        ? new NftRuleCounters(world.openNetlinkSocket, NFTABLES_TABLE)
        : openRuleCounters(iptables, world.openOptionSocket, world.runCommand),
    rules: () => {
      return new Map(dataPlane.ruleConfigs().map((one) => [one.family, refusalRules(proxyRules(one))]));
    },
    count: (family, reason, packets) => metrics.packetsRefused(family, reason, packets),
    now: () => performance.now(),
  });
}
