/**
 * The laboratory: nodes, pods and an outside host as network namespaces (layout.ts draws it), each with hands
 * (agent.ts).
 */
import { type Protocol } from '../../../src/values/protocol.js';
import { Agent } from './agent.js';
import { shell } from './kernel-state.js';
import {
  DEFAULTS,
  type LabSpec,
  OTHER_NODE,
  OUTSIDE,
  type PodSpec,
  ROUTER,
  bridgeScript,
  fabricScript,
  machineSysctls,
  podInterface,
  podScript,
} from './layout.js';

/** The namespace in which the daemon runs: the test kernel's own. */
export const NODE = '';

/** Of the backends of `withTwoBackends`. */
export const ONE = '10.128.0.11';
export const TWO = '10.128.0.12';

export class Lab {
  readonly agent: Agent;
  readonly #spec: Required<LabSpec>;
  #hasBridge = false;

  private constructor(agent: Agent, spec: Required<LabSpec>) {
    this.agent = agent;
    this.#spec = spec;
  }

  /** A pod `client`, and two, `one` and `two`, that answer on port 8080 by each of `protocols`, saying who they are. */
  static async withTwoBackends(protocols: readonly Protocol[] = ['TCP']): Promise<Lab> {
    const backends = [
      { name: 'one', address: ONE },
      { name: 'two', address: TWO },
    ];
    const pods = backends.map(({ name, address }) => ({ name, addresses: [address] }));
    const lab = await Lab.create({ pods: [{ name: 'client', addresses: ['10.128.0.10'] }, ...pods] });
    for (const { name, address } of backends)
      for (const protocol of protocols) await lab.agent.serve(name, { protocol, address, port: 8080, by: name });
    return lab;
  }

  /** Builds the whole network; the test kernel must not have another laboratory in it. */
  static async create(spec: LabSpec): Promise<Lab> {
    const full = { ...DEFAULTS, ...spec };
    await shell(`modprobe -q ipv6 || true\n${[ROUTER, OTHER_NODE, OUTSIDE].map(addNamespace).join('')}`);
    const lab = new Lab(await Agent.start(), full);
    try {
      await lab.#build(spec.pods);
      return lab;
    } catch (error) {
      lab.close();
      throw error;
    }
  }

  async #build(pods: readonly PodSpec[]): Promise<void> {
    const { agent } = this;
    await Promise.all([
      ...[NODE, ROUTER, OTHER_NODE].map((name) => agent.write(name, machineSysctls(true))),
      agent.write(OUTSIDE, machineSysctls(false)),
    ]);
    await shell(fabricScript(this.#spec));
    await this.addPods(pods);
  }

  /** Adds pods, in one go. */
  async addPods(pods: readonly PodSpec[]): Promise<void> {
    if (pods.length === 0) return;
    const needsBridge = !this.#hasBridge && pods.some((pod) => pod.link === 'bridge');
    this.#hasBridge ||= needsBridge;
    await shell((needsBridge ? bridgeScript(this.#spec) : '') + pods.map((pod) => addNamespace(pod.name)).join(''));
    await Promise.all(pods.map((pod) => this.agent.write(pod.name, machineSysctls(false))));
    await shell(pods.map((pod) => podScript(pod, this.#spec)).join(''));
    const routed = pods.filter((pod) => pod.link !== 'bridge');
    await Promise.all(
      routed.map((pod) =>
        // Without a delay: proxied ARP answers wait up to 0.8 s by default.
        this.agent.write(pod.place === 'other' ? OTHER_NODE : NODE, [
          [`/proc/sys/net/ipv4/conf/${podInterface(pod)}/proxy_arp`, '1'],
          [`/proc/sys/net/ipv4/neigh/${podInterface(pod)}/proxy_delay`, '0'],
        ]),
      ),
    );
  }

  /** Removes pods with their interfaces, as the end of a pod does: nothing answers there any more. */
  async removePods(...names: string[]): Promise<void> {
    await shell(names.map((name) => `ip netns del ${name}\n`).join(''));
  }

  /** Ends all servers and clients. The namespaces go with the test kernel. */
  close(): void {
    this.agent.stop();
  }
}

function addNamespace(name: string): string {
  return `ip netns add ${name}\n`;
}
