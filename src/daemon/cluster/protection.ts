import { type Log } from '../../values/log.js';
import { type ProxyConfig } from '../../config/proxy-config.js';
import { type KubeClient } from '../../kube/client.js';
import { type WallClock } from '../../time/clock.js';
import { type ClusterState } from '../../model/cluster-state.js';
import { type Protection } from '../../model/protected-addresses.js';
import { type Address } from '../../values/address.js';
import { ApiServerAddresses } from './api-server-addresses.js';
import { NodeAddresses } from './node-addresses.js';

export interface AddressProtectionOptions {
  readonly client: KubeClient;
  readonly config: Pick<ProxyConfig, 'protectNodeAddresses'>;
  readonly nodeName: string;
  readonly cluster: ClusterState;
  readonly clock: WallClock;
  readonly log: Log;
  /** Services name an address that became protected, or is no longer: a sync is due. */
  readonly onChange: () => void;
  /** All addresses of a name; the system's resolver otherwise. */
  readonly resolve?: (name: string) => Promise<readonly string[]>;
}

/** Keeps ClusterState's protected addresses: API servers and other nodes. */
export class AddressProtection {
  readonly apiServers: ApiServerAddresses;
  readonly #nodes: NodeAddresses;

  constructor(options: AddressProtectionOptions) {
    const { client, cluster, nodeName, config, onChange, ...rest } = options;
    const protect = (source: string, protection: Protection | undefined): void => {
      if (cluster.protect(source, protection)) onChange();
    };
    this.apiServers = new ApiServerAddresses({ ...rest, hosts: client.hosts, protect });
    this.#nodes = new NodeAddresses({ ...rest, mode: config.protectNodeAddresses, nodeName, client, protect });
  }

  /** Before anything else: what the API server's name means now. Waits for a name server for `limitMs` at most. */
  async resolve(limitMs: number): Promise<readonly Address[]> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<readonly Address[]>((resolve) => (timer = setTimeout(() => resolve([]), limitMs)));
    const found = await Promise.race([this.apiServers.resolve(), late]);
    clearTimeout(timer);
    return found;
  }

  /** Resolves once the other nodes' addresses are known as far as they are going to be. */
  get ready(): Promise<void> {
    return this.#nodes.ready;
  }

  start(): void {
    this.apiServers.start();
    this.#nodes.start();
  }

  async close(): Promise<void> {
    await Promise.all([this.apiServers.close(), this.#nodes.close()]);
  }
}
