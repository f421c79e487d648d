/** The status page over a data plane of fakes, put together as the daemon does it, and served on loopback. */
import { type TestContext } from 'node:test';
import { inspectionSource } from '../../src/daemon/answer/inspection-source.js';
import { KernelLook } from '../../src/daemon/answer/kernel-look.js';
import { statusSource } from '../../src/daemon/answer/status-source.js';
import { type HealthReport } from '../../src/serve/health.js';
import { metricsHandler } from '../../src/serve/metrics-server.js';
import { type StatusSource } from '../../src/serve/status.js';
import { serve } from './http.js';
import { ReconcileRig } from './reconcile-rig.js';

const HEALTHY: HealthReport = {
  healthy: true,
  nodeEligible: true,
  lastUpdated: new Date(0),
  reasons: [],
  families: [],
};

export class PageRig extends ReconcileRig {
  health: HealthReport = HEALTHY;
  notes: readonly string[] = [];
  readonly source: StatusSource = statusSource({
    dataPlane: this.dataPlane,
    state: this.reporter.state,
    health: { healthz: () => this.health, livez: () => this.health, readyz: () => this.health },
    watches: () => new Map(),
    skipped: () => [],
    notes: () => this.notes,
    node: 'node-0',
    version: '0.1.0',
    startedAt: new Date(Date.now() - 3_600_000),
    events: this.reporter.events,
    versions: { kernel: '6.1.0', iptables: '1.8.9 (legacy)', families: 'IPv4, IPv6' },
  });
  readonly inspection = inspectionSource(this.dataPlane, () => [], new KernelLook(this.kernel.open));

  constructor(...args: ConstructorParameters<typeof ReconcileRig>) {
    super(...args);
    this.cluster.updater.events.updated = (...change) => this.reporter.updated(...change);
  }

  /** The port. */
  async listen(t: TestContext): Promise<number> {
    const handler = metricsHandler({
      metrics: this.reporter.metrics,
      status: this.source,
      inspection: this.inspection,
      configz: () => ({}),
      events: (sinceMs) => this.reporter.events.report(sinceMs),
      access: 'loopback',
    });
    return serve(t, { handler });
  }
}
