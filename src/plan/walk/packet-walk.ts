/**
 * What happens to a packet that opens a connection, by the desired state alone: our own rules are held against it as
 * the
 * kernel holds them, in the order of its hooks (proxy-rules.ts says where IPVS stands among them). Pure.
 */
import { type Address, familyOf, formatAddress, isLoopback } from '../../values/address.js';
import { addressPortAddressEntry } from '../../values/ipset.js';
import { type Protocol } from '../../values/protocol.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  addressServerKey,
  formatRealServer,
  formatVirtualServer,
  realServerAddress,
  realServerKeys,
  realServerPort,
  virtualServerFamily,
} from '../../values/virtual-server.js';
import { type DesiredState } from '../../desired/desired-state.js';
import { type RuleSet } from '../../desired/iptables-rule-set.js';
import { type DesiredVirtualServer } from '../../desired/service.js';
import { ipsetName } from '../../desired/ipset-definitions.js';
import { type FoundEntry, type PacketState, type Surroundings } from './rule-match.js';
import { type HookVerdict, type MetRule, walkHook } from './rule-walk.js';
import { ruleInWords } from './rule-words.js';

/** The first packet of a connection. */
export interface Packet {
  readonly protocol: Protocol;
  readonly destination: Address;
  readonly port: number;
  readonly source: Address;
  /** Made by this node itself, not come from elsewhere. */
  readonly isFromNode: boolean;
  /** From a pod of this node: what answers it comes through this node again, whatever its source. */
  readonly isFromPodHere: boolean;
  /** Whether it comes in by an interface of this name (`+` at the end: one whose name begins so). */
  readonly comesBy: (name: string) => boolean;
}

export interface WalkedState {
  readonly desired: Pick<DesiredState, 'hasEntry' | 'hasAddress' | 'virtualServers' | 'services' | 'healthChecks'>;
  /** Those of the packet's family. */
  readonly rules: RuleSet;
  /** The node's own addresses, those of kube-ipvs0 left out. */
  readonly localAddresses: ReadonlySet<Address>;
  /** What becomes of a packet in filter INPUT that no rule of ours decides. */
  readonly inputPolicy: 'ACCEPT' | 'DROP';
  /** Whether the daemon's health check node ports listen on an address. */
  readonly servesHealthChecks: (address: Address) => boolean;
}

export interface WalkStep {
  /** `nat KUBE-SERVICES`, `IPVS`, `routing`. */
  readonly at: string;
  readonly text: string;
  /** The rule that it follows from, as iptables-save prints it after `-A CHAIN`. */
  readonly rule?: string | undefined;
  /** The entries by which sets hold the packet. */
  readonly entries?: readonly FoundEntry[] | undefined;
}

/** Whom the server sees: the client's own address, or one of this node's. */
export type SeenAs = 'client' | 'node';

export interface WalkBackend {
  readonly address: string;
  readonly port: number;
  readonly seenAs: SeenAs;
  /**
   * False when a backend on another node sees a client from elsewhere as itself: its answer goes there past this
   * node, which
   * alone could give it the address that was asked, and the client hears nothing.
   */
  readonly answersThisWay: boolean;
}

export type WalkVerdict =
  | {
      readonly kind: 'served';
      readonly service: string;
      readonly virtualServer: string;
      readonly scheduler: string;
      /** Seconds for which one client keeps its backend; 0: connections are spread one by one. */
      readonly persistenceTimeout: number;
      readonly backends: readonly WalkBackend[];
    }
  | { readonly kind: 'refused'; readonly by: 'reset' | 'unreachable' }
  | { readonly kind: 'dropped' }
  /** For a process of this node, if one listens; then not for a Service. */
  | { readonly kind: 'host'; readonly healthCheck?: HealthCheck | undefined }
  /** Neither the node's nor a Service's: it is routed on as if this program were not there. */
  | { readonly kind: 'not-ours' };

export interface HealthCheck {
  readonly service: string;
  readonly localEndpoints: number;
}

export interface PacketWalk {
  readonly steps: readonly WalkStep[];
  readonly verdict: WalkVerdict;
}

/** The whole way of a packet. Throws SyntaxError when the rules are none of ours. */
export function walkPacket(packet: Packet, state: WalkedState): PacketWalk {
  const walker = new Walker(packet, state);
  const verdict = walker.run();
  return { steps: walker.steps, verdict };
}

class Walker {
  readonly steps: WalkStep[] = [];
  readonly #around: Surroundings;
  #packet: PacketState;

  constructor(
    readonly packet: Packet,
    readonly state: WalkedState,
  ) {
    const { desired, localAddresses } = state;
    this.#packet = { ...packet, mark: 0, isRedirected: false, ...(packet.isFromNode ? { comesBy: () => false } : {}) };
    this.#around = {
      hasEntry: (set, entry) => desired.hasEntry(set, entry),
      isLocal: (address) => localAddresses.has(address) || desired.hasAddress(address) || isLoopback(address),
    };
  }

  run(): WalkVerdict {
    return this.packet.isFromNode ? this.#fromNode() : this.#fromElsewhere();
  }

  #fromElsewhere(): WalkVerdict {
    this.#hook('nat', 'PREROUTING');
    if (!this.#isForNode()) return this.#notOurs();
    this.#noteRouting();
    const verdict = this.#input();
    return verdict ?? this.#ipvs() ?? this.#host();
  }

  /** mangle is asked before nat, and IPVS right after both: what it takes never comes to INPUT. */
  #fromNode(): WalkVerdict {
    if (this.#hook('mangle', 'OUTPUT') === 'drop') return { kind: 'dropped' };
    this.#hook('nat', 'OUTPUT');
    const served = this.#ipvs();
    if (served !== undefined) return served;
    if (!this.#isForNode()) return this.#notOurs();
    this.#noteRouting();
    this.#packet = { ...this.#packet, comesBy: (name) => name === 'lo' };
    return this.#input() ?? this.#host();
  }

  /** undefined: it passes. */
  #input(): WalkVerdict | undefined {
    const verdict = this.#hook('filter', 'INPUT');
    if (verdict === 'drop') return { kind: 'dropped' };
    if (verdict === 'reset' || verdict === 'unreachable') return { kind: 'refused', by: verdict };
    if (verdict === 'accept' || this.state.inputPolicy === 'ACCEPT') return undefined;
    this.#note('filter INPUT', 'no rule of this program accepts it, and the policy of the chain is DROP: dropped');
    return { kind: 'dropped' };
  }

  /** undefined: no virtual server has this address, port and protocol. */
  #ipvs(): WalkVerdict | undefined {
    const { protocol, destination, port } = this.#packet;
    const key = addressServerKey(protocol, destination, port);
    const server = this.state.desired.virtualServers.get(key);
    const name = formatVirtualServer(key);
    if (server === undefined) {
      this.#note('IPVS', `no virtual server ${name}: not taken`);
      return undefined;
    }
    if (server.realServers === '') {
      this.#note('IPVS', `virtual server ${name} of ${server.service} has no backend: refused`);
      return { kind: 'refused', by: 'unreachable' };
    }
    return this.#served(key, name, server);
  }

  #served(key: VirtualServerKey, name: string, server: DesiredVirtualServer): WalkVerdict {
    const { scheduler, timeout } = server.settings;
    const reals = realServerKeys(server.realServers, virtualServerFamily(key));
    const kept = timeout > 0 ? `, and keeps a client there for ${timeout} s` : '';
    const count = reals.length === 1 ? '1 backend' : `${reals.length} backends`;
    this.#note('IPVS', `virtual server ${name} of ${server.service}: ${scheduler} chooses among ${count}${kept}`);
    const outcomes = new Set<string>();
    const backends = reals.map((real) => this.#toBackend(real, outcomes));
    return {
      kind: 'served',
      service: server.service,
      virtualServer: name,
      scheduler,
      persistenceTimeout: timeout,
      backends,
    };
  }

  /** What is on this node itself is reached without POSTROUTING, unless the node itself asks. */
  #toBackend(real: RealServerKey, outcomes: Set<string>): WalkBackend {
    const address = realServerAddress(real);
    const port = realServerPort(real);
    const backend = { address: formatAddress(address), port };
    if (!this.packet.isFromNode && this.#around.isLocal(address)) {
      this.#noteOnce(outcomes, `${formatRealServer(real)} is on this node's own network: the source stays as it is`);
      return { ...backend, seenAs: 'client', answersThisWay: true };
    }
    const packet = { ...this.#packet, destination: address, port };
    const { verdict, met } = walkHook(this.state.rules, 'nat', 'POSTROUTING', packet, this.#around);
    const seenAs = verdict === 'masquerade' ? 'node' : 'client';
    const outcome = met.map(({ rule }) => rule).join('\n');
    if (!outcomes.has(outcome)) for (const one of met) this.#noteRule(one, `to ${formatRealServer(real)}: `);
    outcomes.add(outcome);
    const { isFromNode, isFromPodHere } = this.packet;
    const answersThisWay = seenAs === 'node' || isFromNode || isFromPodHere || this.#isOnThisNode(real);
    return { ...backend, seenAs, answersThisWay };
  }

  /** The set for backends that ask themselves has all of this node's. */
  #isOnThisNode(real: RealServerKey): boolean {
    const address = realServerAddress(real);
    const entry = addressPortAddressEntry(
      addressServerKey(this.#packet.protocol, address, realServerPort(real)),
      address,
    );
    return this.#around.hasEntry(ipsetName(familyOf(address), 'LOOP-BACK'), entry);
  }

  #host(): WalkVerdict {
    const { protocol, destination, port } = this.#packet;
    const { desired, servesHealthChecks } = this.state;
    const check = protocol === 'TCP' && servesHealthChecks(destination) ? healthCheckAt(desired, port) : undefined;
    if (check === undefined) {
      this.#note('host', 'goes to a process of this node, if one listens there; else it is refused');
      return { kind: 'host' };
    }
    const count = `${check.localEndpoints} local endpoints`;
    this.#note('host', `the daemon answers for ${check.service}: ${check.localEndpoints > 0 ? 200 : 503}, ${count}`);
    return { kind: 'host', healthCheck: check };
  }

  #isForNode(): boolean {
    return this.#around.isLocal(this.#packet.destination);
  }

  #notOurs(): WalkVerdict {
    const { destination } = this.#packet;
    const text = `${formatAddress(destination)} is neither an address of this node nor of a Service: routed on as any other`;
    this.#note('routing', text);
    return { kind: 'not-ours' };
  }

  #noteRouting(): void {
    const { destination } = this.#packet;
    const address = formatAddress(destination);
    const isOwn = this.state.localAddresses.has(destination) || isLoopback(destination);
    this.#note(
      'routing',
      isOwn ? `${address} is this node's own address` : `${address} is a VIP, which this node takes in`,
    );
  }

  #hook(table: string, hook: string): HookVerdict {
    const { verdict, packet, met } = walkHook(this.state.rules, table, hook, this.#packet, this.#around);
    this.#packet = packet;
    for (const one of met) this.#noteRule(one, '');
    return verdict;
  }

  #noteRule({ table, chain, rule, parsed, entries }: MetRule, prefix: string): void {
    this.steps.push({ at: `${table} ${chain}`, text: `${prefix}${ruleInWords(parsed)}`, rule, entries });
  }

  #note(at: string, text: string): void {
    this.steps.push({ at, text });
  }

  #noteOnce(outcomes: Set<string>, text: string): void {
    if (!outcomes.has('local')) this.#note('IPVS', text);
    outcomes.add('local');
  }
}

function healthCheckAt(desired: WalkedState['desired'], port: number): HealthCheck | undefined {
  for (const service of desired.healthChecks) {
    const check = desired.services.get(service)?.healthCheck;
    if (check?.port === port) return { service, localEndpoints: check.localEndpoints };
  }
  return undefined;
}
