import { Counter, Gauge, Registry } from 'prom-client';

/**
 * /metrics/slis as Kubernetes' component-base serves it (metrics/prometheus/slis): results of the health checks of the
 * server that it is on. Like kube-proxy's metrics server, ours has one check, `ping` of `healthz`, counted when asked.
 */
export class SliMetrics {
  readonly #register = new Registry();
  readonly #healthcheck: Gauge<'name' | 'type'>;
  readonly #total: Counter<'name' | 'type' | 'status'>;

  constructor() {
    const registers = [this.#register];
    this.#healthcheck = new Gauge({
      name: 'kubernetes_healthcheck',
      help: 'Result of a health check: 1 for success, 0 for error',
      labelNames: ['name', 'type'],
      registers,
    });
    this.#total = new Counter({
      name: 'kubernetes_healthchecks_total',
      help: 'Results of health checks',
      labelNames: ['name', 'type', 'status'],
      registers,
    });
    const started = Date.now() / 1000 - process.uptime();
    new Gauge({ name: 'process_start_time_seconds', help: 'Unix time when the process started', registers }).set(
      started,
    );
  }

  get contentType(): string {
    return this.#register.contentType;
  }

  text(): Promise<string> {
    return this.#register.metrics();
  }

  /** /healthz was asked, and could answer. */
  pinged(): void {
    const labels = { name: 'ping', type: 'healthz' };
    this.#healthcheck.set(labels, 1);
    this.#total.inc({ ...labels, status: 'success' });
  }
}
