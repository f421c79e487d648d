import { type Environment } from '../daemon/environment.js';
import { IpvsClient } from '../kernel/ipvs/client.js';
import { type DumpedRealServer } from '../kernel/ipvs/message.js';
import { type VirtualServerReport } from '../serve/inspection.js';
import { STEPS_PER_READ, Turns } from '../time/turns.js';
import { parseAddress } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { isProtocol } from '../values/protocol.js';
import { type VirtualServerKey, addressServerKey } from '../values/virtual-server.js';

/**
 * The IPVS table of this node for a command that can do without: the first failure is kept and nothing more is asked.
 */
export class KernelView {
  /** Why the kernel cannot be read; undefined while it can. */
  failure: string | undefined;
  readonly #client: IpvsClient | undefined;
  readonly #stop: AbortSignal;
  /** A signal can end it in between. */
  readonly #turns = new Turns();

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
    if (this.#turns.spend(STEPS_PER_READ)) await this.#turns.next();
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
