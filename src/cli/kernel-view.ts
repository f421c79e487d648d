import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Environment } from '../daemon/environment.js';
import { IpvsClient } from '../kernel/ipvs/client.js';
import { type DumpedRealServer } from '../kernel/ipvs/message.js';
import { type VirtualServerReport } from '../serve/inspection.js';
import { parseAddress } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { isProtocol } from '../values/protocol.js';
import { type VirtualServerKey, addressServerKey } from '../values/virtual-server.js';

/** So many virtual servers are read before a signal can end it. */
const TURN = 64;

/**
 * The IPVS table of this node for a command that can do without: the first failure is kept and nothing more is asked.
 */
export class KernelView {
  /** Why the kernel cannot be read; undefined while it can. */
  failure: string | undefined;
  readonly #client: IpvsClient | undefined;
  readonly #stop: AbortSignal;
  #reads = 0;

  constructor({ openNetlinkSocket, stop }: Pick<Environment, 'openNetlinkSocket' | 'stop'>) {
    this.#stop = stop;
    try {
      this.#client = new IpvsClient(openNetlinkSocket);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** What cannot be told; empty while all can. */
  get notes(): readonly string[] {
    return this.failure === undefined ? [] : [this.failure];
  }

  /** The real servers of a virtual server; empty when there is none, undefined when the kernel cannot be read. */
  async realServers(key: VirtualServerKey): Promise<readonly DumpedRealServer[] | undefined> {
    if (this.failure !== undefined || this.#client === undefined) return undefined;
    if (++this.#reads % TURN === 0) await nextTurn();
    this.#stop.throwIfAborted();
    try {
      return this.#client.listRealServers(key);
    } catch (error) {
      this.#failed(error);
      return undefined;
    }
  }

  close(): void {
    this.#client?.close();
  }

  #failed(error: unknown): void {
    this.failure = `weights and connections are not known: ${errorMessage(error)} (the kernel shows them to root with NET_ADMIN, in the daemon's pod say)`;
  }
}

/** What names a reported virtual server in the kernel. */
export function serverKeyOf({ protocol, address, port }: VirtualServerReport): VirtualServerKey {
  const packed = parseAddress(address);
  if (packed === undefined || !isProtocol(protocol)) throw new Error(`not a virtual server: ${protocol} ${address}`);
  return addressServerKey(protocol, packed, port);
}
