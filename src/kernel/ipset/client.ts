/** Client for ipset through nfnetlink (subsystem 6): sets, and thousands of elements in one message. */
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter, NLA_F_NET_BYTEORDER } from '../../netlink/attribute-writer.js';
import { type NetlinkCounters } from '../../netlink/connection.js';
import { NetlinkError } from '../../netlink/errors.js';
import { type NetlinkMessage, NLM_F_EXCL } from '../../netlink/message.js';
import { netfilterAttributes } from '../../netlink/nfnetlink.js';
import { type OpenNetlinkSocket } from '../../netlink/socket.js';
import { type IpsetDefinition, type IpsetEntry } from '../../values/ipset.js';
import { type ElementOutcome, IpsetElementSender } from './elements.js';
import { IpsetError } from './error.js';
import {
  IPSET_FLAG_LIST_HEADER,
  IpsetAttribute,
  IpsetCommand,
  IpsetListReader,
  type ObservedSet,
  setFamilyNumber,
  writeCreateData,
} from './message.js';
import { IpsetProtocol } from './protocol.js';

/**
 * maxelem of new sets, as kube-proxy makes them: it could not take a set with another one over again, because
 * `ipset create -exist` refuses to (the way back would be blocked). A set that gets full is replaced by a larger one.
 */
export const DEFAULT_MAX_ELEMENTS = 65_536;
const DEFAULT_HASH_SIZE = 1024;
const TEMPORARY_SUFFIX = '~';

/** True for the temporary set of a replacement that was killed half-way; nothing refers to it. */
export function isTemporarySet(name: string): boolean {
  return name.startsWith('KUBE-') && name.endsWith(TEMPORARY_SUFFIX);
}

/** One element that the kernel refused (or whose fate is unknown: `error.resultUnknown`). */
export interface IpsetFailure {
  readonly operation: 'add' | 'delete';
  readonly set: string;
  readonly entry: IpsetEntry;
  readonly error: IpsetError;
}

/** Whether a set that is there can hold the elements of `definition`. */
export function isSameKind(definition: IpsetDefinition, present: ObservedSet): boolean {
  const hasFamily = definition.type !== 'bitmap:port';
  return present.type === definition.type && (!hasFamily || present.family === definition.family);
}

export class IpsetClient {
  readonly #protocol: IpsetProtocol;
  readonly #sender: IpsetElementSender;
  readonly #attributes = new AttributeReader();
  readonly #listReader = new IpsetListReader();

  /** Throws IpsetUnavailableError without the kernel module, IpsetError for anything else. */
  constructor(open: OpenNetlinkSocket) {
    this.#protocol = new IpsetProtocol(open);
    this.#sender = new IpsetElementSender(this.#protocol.connection, this.#protocol.version);
  }

  /** Version of the ipset protocol that both sides speak: 7, or 6 before Linux 4.20. */
  get protocolVersion(): number {
    return this.#protocol.version;
  }

  get counters(): Readonly<NetlinkCounters> {
    return this.#protocol.connection.counters;
  }

  close(): void {
    this.#protocol.connection.close();
  }

  /** Headers of all sets, also other people's, in one dump without elements. Throws IpsetError. */
  listSets(): ObservedSet[] {
    const flags = (writer: MessageWriter): void => {
      writer.u32be(IpsetAttribute.flags | NLA_F_NET_BYTEORDER, IPSET_FLAG_LIST_HEADER);
    };
    return this.#protocol.dump('list', '', flags, (message, sets: ObservedSet[]) => {
      const set = this.#listReader.header(netfilterAttributes(message, this.#attributes));
      if (set !== undefined) sets.push(set);
    });
  }

  /** All elements of one set, in the kernel's order. Throws IpsetError (`ENOENT` when there is no such set). */
  listEntries(definition: IpsetDefinition): IpsetEntry[] {
    const decode = this.#elementDecoder<IpsetEntry[]>(definition, (entries, entry) => entries.push(entry));
    return this.#protocol.dump('list', definition.name, undefined, decode);
  }

  /**
   * Puts all elements of one set into what `fresh` makes (once for each attempt), with a `pause` after each datagram,
   * so that a set of 50,000 does not hold up the event loop. Throws as `listEntries` does.
   */
  listEntriesPaced<Found>(
    definition: IpsetDefinition,
    fresh: () => Found,
    add: (found: Found, entry: IpsetEntry) => void,
    pause: () => Promise<void>,
  ): Promise<Found> {
    return this.#protocol.dumpPaced(definition.name, this.#elementDecoder(definition, add), fresh, pause);
  }

  #elementDecoder<Found>(
    { type }: IpsetDefinition,
    add: (found: Found, entry: IpsetEntry) => void,
  ): (message: NetlinkMessage, found: Found) => void {
    return (message, found) => {
      const attributes = netfilterAttributes(message, this.#attributes);
      this.#listReader.elements(attributes, type, (entry) => add(found, entry));
    };
  }

  /** Makes a new, empty set; throws IpsetError `EEXIST` when there is one of that name. */
  createSet(definition: IpsetDefinition, maxElements = DEFAULT_MAX_ELEMENTS): void {
    const { name, type, family } = definition;
    const revision = this.#protocol.revisionOf(definition);
    this.#protocol.request('create', IpsetCommand.create, name, NLM_F_EXCL, (writer) => {
      writer.string(IpsetAttribute.typeName, type);
      writer.u8(IpsetAttribute.revision, revision);
      writer.u8(IpsetAttribute.family, setFamilyNumber(type, family));
      writeCreateData(writer, type, DEFAULT_HASH_SIZE, maxElements);
    });
  }

  /** Returns false when there was no such set; throws IpsetError `IPSET_ERR_BUSY` when rules refer to it. */
  destroySet(name: string): boolean {
    try {
      this.#protocol.request('destroy', IpsetCommand.destroy, name, NLM_F_EXCL);
      return true;
    } catch (error) {
      if (error instanceof IpsetError && error.code === 'ENOENT') return false;
      throw error;
    }
  }

  /** Exchanges the contents of two sets of one type at once; rules go on referring to the names. Throws IpsetError. */
  swapSets(name: string, other: string): void {
    this.#protocol.request('swap', IpsetCommand.swap, name, 0, (writer) =>
      writer.string(IpsetAttribute.setName2, other),
    );
  }

  /**
   * Adds elements; present ones are no error. A refused element does not keep the others out. A set that gets full is
   * replaced by one twice as large, with its elements. Returns what failed.
   *
   * Blocks while the kernel works, about a microsecond and a half an element: hand over slices of a few thousand.
   */
  addEntries(definition: IpsetDefinition, entries: readonly IpsetEntry[]): IpsetFailure[] {
    const failures: IpsetFailure[] = [];
    let from = 0;
    while (from < entries.length) {
      const outcome = this.#sender.send('add', definition, entries, from);
      for (const failure of this.#failuresOf('add', definition, entries, outcome)) failures.push(failure);
      from = outcome.next;
      if (outcome.isFull) {
        const failure = this.#tryGrow(definition, entries, from);
        if (failure.length > 0) return [...failures, ...failure];
      }
    }
    return failures;
  }

  /** Deletes elements; absent ones are no error. Returns what failed. */
  deleteEntries(definition: IpsetDefinition, entries: readonly IpsetEntry[]): IpsetFailure[] {
    const outcome = this.#sender.send('delete', definition, entries, 0);
    return this.#failuresOf('delete', definition, entries, outcome);
  }

  /**
   * Makes the set hold exactly `entries`, of which rules that refer to it never see a mixture: fills a temporary set,
   * swaps, and destroys what was there. Throws IpsetError; on any failure the present set stays as it is.
   */
  replaceSet(definition: IpsetDefinition, entries: readonly IpsetEntry[], maxElements = DEFAULT_MAX_ELEMENTS): void {
    const temporary = { ...definition, name: definition.name.slice(0, 30) + TEMPORARY_SUFFIX };
    this.destroySet(temporary.name); // left by a run that was killed in between
    this.createSet(temporary, maxElements);
    try {
      const outcome = this.#sender.send('add', temporary, entries, 0);
      const [failure] = this.#failuresOf('add', temporary, entries, outcome);
      if (failure !== undefined) throw failure.error;
      if (outcome.isFull) throw new NetlinkError({ operation: 'ipset replace', errno: 4352 });
      this.swapSets(definition.name, temporary.name);
    } catch (error) {
      this.destroySet(temporary.name);
      throw error instanceof NetlinkError ? new IpsetError('replace', definition.name, error, definition.type) : error;
    }
    this.destroySet(temporary.name);
  }

  /** Replaces the set by one that can hold `maxElements`, keeping its elements. Throws IpsetError. */
  growSet(definition: IpsetDefinition, maxElements: number): void {
    this.replaceSet(definition, this.listEntries(definition), maxElements);
  }

  /**
   * Makes sure that the set exists with the right type and family, given `present` of `listSets`. A set that fits is
   * kept whoever made it and whatever its maxelem; one whose elements expire is replaced; one of another type is
   * destroyed and made anew. Throws IpsetError, `IPSET_ERR_BUSY` for a set of another type that rules refer to.
   */
  ensureSet(definition: IpsetDefinition, present: ObservedSet | undefined): 'created' | 'kept' | 'replaced' {
    if (present === undefined) {
      this.createSet(definition);
      return 'created';
    }
    if (!isSameKind(definition, present)) {
      this.destroySet(definition.name);
      this.createSet(definition);
      return 'replaced';
    }
    if (!present.hasTimeout) return 'kept';
    this.growSet(definition, present.maxElements ?? DEFAULT_MAX_ELEMENTS);
    return 'replaced';
  }

  #tryGrow(definition: IpsetDefinition, entries: readonly IpsetEntry[], from: number): IpsetFailure[] {
    try {
      const present = this.listSets().find((set) => set.name === definition.name);
      const needed = (present?.maxElements ?? DEFAULT_MAX_ELEMENTS) * 2;
      this.growSet(definition, Math.max(needed, nextPower((present?.elements ?? 0) + entries.length - from)));
      return [];
    } catch (error) {
      if (!(error instanceof IpsetError)) throw error;
      const { name } = definition;
      return entries.slice(from).map((entry) => ({ operation: 'add' as const, set: name, entry, error }));
    }
  }

  #failuresOf(
    operation: 'add' | 'delete',
    definition: IpsetDefinition,
    entries: readonly IpsetEntry[],
    outcome: ElementOutcome,
  ): IpsetFailure[] {
    const { name, type } = definition;
    return outcome.failures.map(({ index, error }) => ({
      operation,
      set: name,
      entry: entries[index]!,
      error: new IpsetError(operation, name, error, type),
    }));
  }
}

function nextPower(count: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(count, 2)));
}
