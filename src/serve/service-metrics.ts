import { Counter, Gauge, type Registry } from 'prom-client';

/** Counted by IPVS since its virtual servers were made: packets and bytes from clients (in) and to them (out). */
export interface ServicePortTraffic {
  readonly namespace: string;
  readonly service: string;
  /** `TCP` */
  readonly protocol: string;
  readonly port: number;
  readonly connections: number;
  readonly inPackets: number;
  readonly outPackets: number;
  readonly inBytes: number;
  readonly outBytes: number;
}

const LABELS = ['namespace', 'service', 'protocol', 'port'] as const;
const DIRECTED = [...LABELS, 'direction'] as const;

/** The series by Service, each scrape's in place of the one before. */
export class ServiceMetrics {
  readonly #connections;
  readonly #packets;
  readonly #bytes;
  readonly #cut;

  constructor(register: Registry) {
    const registers = [register];
    const name = (what: string): string => `kubeproxy_ipvs_service_${what}`;
    this.#connections = new Counter({
      ...{ name: name('connections_total'), labelNames: LABELS, registers },
      help: 'Connections that IPVS has opened to a port of a Service (kubeProxyIpvs.serviceMetrics)',
    });
    this.#packets = new Counter({
      ...{ name: name('packets_total'), labelNames: DIRECTED, registers },
      help: 'Packets from clients of a port of a Service (in) and to them (out)',
    });
    this.#bytes = new Counter({
      ...{ name: name('bytes_total'), labelNames: DIRECTED, registers },
      help: 'Bytes from clients of a port of a Service (in) and to them (out)',
    });
    this.#cut = new Gauge({
      ...{ name: name('ports_cut'), registers },
      help: 'Ports of Services of which nothing is told because others have more connections',
    });
  }

  /** `cut` ports are left out of `ports`. */
  show(ports: readonly ServicePortTraffic[], cut: number): void {
    for (const counter of [this.#connections, this.#packets, this.#bytes]) counter.reset();
    this.#cut.set(cut);
    for (const { namespace, service, protocol, port, ...counted } of ports) {
      const labels = { namespace, service, protocol, port };
      this.#connections.inc(labels, counted.connections);
      this.#packets.inc({ ...labels, direction: 'in' }, counted.inPackets);
      this.#packets.inc({ ...labels, direction: 'out' }, counted.outPackets);
      this.#bytes.inc({ ...labels, direction: 'in' }, counted.inBytes);
      this.#bytes.inc({ ...labels, direction: 'out' }, counted.outBytes);
    }
  }
}
