/**
 * Messages about address-keyed virtual servers differ in a few bytes: each kind is made once, then copied and patched.
 * A cold sync makes 110,000 of them; writing each attribute by attribute cost more than the kernel takes to act on
 * them.
 */
import { MessageWriter } from '../../netlink/attribute-writer.js';
import { writeGenericHeader } from '../../netlink/genetlink.js';
import { HEADER_LENGTH, NLM_F_REQUEST } from '../../netlink/message.js';
import { type Family } from '../../values/address.js';
import {
  type VirtualServerKey,
  type VirtualServerSettings,
  isFwmarkKey,
  virtualServerFamily,
} from '../../values/virtual-server.js';
import {
  type DestinationOffsets,
  IPVS_VERSION,
  type ServiceOffsets,
  patchService,
  writeDestination,
  writeService,
} from './message.js';

/** Longer than any message here: identity, settings and a real server make 132 bytes. */
export const MAX_MESSAGE = 256;
/** Where the command is in a message: the first byte of struct genlmsghdr. */
export const COMMAND_AT = HEADER_LENGTH;

export interface VirtualServerTemplate {
  readonly bytes: Buffer;
  /** Where the virtual server is named; undefined for one keyed by a firewall mark, whose template is its own. */
  readonly service: ServiceOffsets | undefined;
}

export interface RealServerTemplate extends VirtualServerTemplate {
  readonly destination: DestinationOffsets;
  /** Bytes of a real server's address. */
  readonly addressLength: 4 | 16;
}

export class IpvsTemplates {
  readonly #virtualServers = new Map<
    Family,
    { settings: VirtualServerSettings | undefined; made: VirtualServerTemplate }
  >();
  readonly #realServers = new Map<Family, RealServerTemplate>();

  /** `type` is the number of the generic netlink family. */
  constructor(readonly type: number) {}

  /**
   * A message about a virtual server, with its settings if given. Its own bytes are still to be patched (`service`).
   */
  virtualServer(key: VirtualServerKey, settings: VirtualServerSettings | undefined): VirtualServerTemplate {
    const family = virtualServerFamily(key);
    const last = this.#virtualServers.get(family);
    if (last?.made.service !== undefined && last.settings === settings && !isFwmarkKey(key)) return last.made;
    const made = this.#make((writer) => ({ service: writeService(writer, key, settings) }));
    this.#virtualServers.set(family, { settings, made });
    return made;
  }

  /** A message about a real server of `key`; who both are is still to be patched, and the weight. */
  realServer(key: VirtualServerKey): RealServerTemplate {
    const family = virtualServerFamily(key);
    const known = isFwmarkKey(key) ? undefined : this.#realServers.get(family);
    if (known !== undefined) return known;
    const made = this.#make((writer) => ({
      service: writeService(writer, key),
      destination: writeDestination(writer),
      addressLength: family === 4 ? (4 as const) : (16 as const),
    }));
    if (!isFwmarkKey(key)) this.#realServers.set(family, made);
    return made;
  }

  #make<Offsets>(write: (writer: MessageWriter) => Offsets): Offsets & { readonly bytes: Buffer } {
    const writer = new MessageWriter(Buffer.alloc(MAX_MESSAGE));
    const start = writer.beginMessage(this.type, NLM_F_REQUEST, 0);
    writeGenericHeader(writer, 0, IPVS_VERSION);
    const offsets = write(writer);
    writer.endMessage(start);
    return { ...offsets, bytes: writer.buffer.subarray(0, writer.offset) };
  }
}

/** Names the virtual server in a copy of a template, or in the template itself, that begins at `start` of `buffer`. */
export function nameVirtualServer(
  buffer: Buffer,
  start: number,
  template: VirtualServerTemplate,
  virtualServer: VirtualServerKey,
): void {
  if (template.service !== undefined) patchService(buffer, start, template.service, virtualServer);
}
