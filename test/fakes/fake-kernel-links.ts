/** The rtnetlink family of the fake kernel: links and their addresses, with notifications. */
import { NETLINK_ROUTE } from '../../src/netlink/socket.js';
import { type Address, formatAddress, parseAddress } from '../../src/values/address.js';
import { type FakeAnswer, type FakeKernel, type FakeMessage } from './fake-kernel.js';
import { DELETE_ROUTE, FakeRoutes, GET_ROUTE, NEW_ROUTE } from './fake-kernel-routes.js';
import { type WireMessage, attribute, attributeMap, i32, packed, text, u16, u32, u8 } from './netlink-bytes.js';

export interface FakeLink {
  readonly index: number;
  readonly name: string;
  readonly kind: string;
  /** IFF_* */
  flags: number;
  /** By packed address. */
  readonly addresses: Map<Address, { readonly prefixLength: number; readonly scope: number; readonly flags: number }>;
}

const [NEW_LINK, DELETE_LINK, GET_LINK] = [16, 17, 18];
const [NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS] = [20, 21, 22];
const GROUP_LINK = 1;
const [GROUP_IPV4, GROUP_IPV6] = [5, 9];
const IFF_UP = 1;
const [FLAG_EXCLUSIVE, FLAG_CREATE] = [0x200, 0x400];
const PERMANENT = 0x80;

export class FakeLinks {
  readonly links = new Map<number, FakeLink>();
  readonly routes: FakeRoutes;
  /** The errno name with which an address is refused by request. */
  refuse: (address: Address) => string | undefined = () => undefined;
  /** Set to false, links of kind dummy cannot be made: the module is missing. */
  hasDummy = true;
  #nextIndex = 1;

  readonly #kernel: FakeKernel;

  /** A kernel with `lo` and its addresses. */
  constructor(kernel: FakeKernel) {
    this.#kernel = kernel;
    this.routes = new FakeRoutes(kernel);
    kernel.addFamily(NETLINK_ROUTE, (request, isDump) => this.#handle(request, isDump));
    this.addLink('lo', '', IFF_UP);
    this.addAddress('lo', '127.0.0.1', 8, 254);
    this.addAddress('lo', '::1', 128, 254);
  }

  // What somebody else does to the node; each sends its notification.

  addLink(name: string, kind = '', flags = IFF_UP): FakeLink {
    const link = { index: this.#nextIndex++, name, kind, flags, addresses: new Map() };
    this.links.set(link.index, link);
    this.#notifyLink(NEW_LINK, link);
    return link;
  }

  deleteLink(name: string): void {
    const link = this.#link(name);
    for (const address of [...link.addresses.keys()]) this.#removeFrom(link, address);
    this.links.delete(link.index);
    this.routes.linkGone(link.index);
    this.#notifyLink(DELETE_LINK, link);
  }

  setUp(name: string, up: boolean): void {
    const link = this.#link(name);
    link.flags = up ? link.flags | IFF_UP : link.flags & ~IFF_UP;
    this.#notifyLink(NEW_LINK, link);
  }

  addAddress(name: string, address: string, prefixLength: number, scope = 0): void {
    this.#addTo(this.#link(name), parseAddress(address)!, prefixLength, scope, PERMANENT);
  }

  removeAddress(name: string, address: string): void {
    this.#removeFrom(this.#link(name), parseAddress(address)!);
  }

  /** The addresses of a link as text with their prefix lengths, sorted; empty without the link. */
  addressesOf(name: string): string[] {
    const link = this.find(name);
    return [...(link?.addresses ?? [])].map(([address, it]) => `${formatAddress(address)}/${it.prefixLength}`).sort();
  }

  find(name: string): FakeLink | undefined {
    return [...this.links.values()].find((link) => link.name === name);
  }

  #link(name: string): FakeLink {
    const link = this.find(name);
    if (link === undefined) throw new Error(`no link ${name}`);
    return link;
  }

  #addTo(link: FakeLink, address: Address, prefixLength: number, scope: number, flags: number): void {
    link.addresses.set(address, { prefixLength, scope, flags });
    this.#notifyAddress(NEW_ADDRESS, link, address);
  }

  #removeFrom(link: FakeLink, address: Address): void {
    this.#notifyAddress(DELETE_ADDRESS, link, address);
    link.addresses.delete(address);
  }

  #notifyLink(type: number, link: FakeLink): void {
    this.#kernel.notify(NETLINK_ROUTE, GROUP_LINK, linkMessage(type, link));
  }

  #notifyAddress(type: number, link: FakeLink, address: Address): void {
    const group = address.length === 4 ? GROUP_IPV4 : GROUP_IPV6;
    this.#kernel.notify(NETLINK_ROUTE, group, addressMessage(type, link, address));
  }

  #handle(request: WireMessage, isDump: boolean): FakeAnswer {
    const { type, body } = request;
    if (type === NEW_ROUTE || type === DELETE_ROUTE || type === GET_ROUTE)
      return this.routes.handle(request, isDump, (index) => this.links.has(index));
    const isLink = type === NEW_LINK || type === DELETE_LINK || type === GET_LINK;
    const headerLength = isLink ? 16 : 8;
    if (body.length < headerLength) return { error: 'EINVAL' };
    const attributes = attributeMap(body.subarray(headerLength));
    const index = body.readInt32LE(4);
    if (isLink) return this.#handleLink(request, isDump, index, attributes);
    if (type === GET_ADDRESS) return isDump ? this.#listAddresses(index) : { error: 'EOPNOTSUPP' };
    if (type === NEW_ADDRESS || type === DELETE_ADDRESS) return this.#changeAddress(request, index, attributes);
    return { error: 'EOPNOTSUPP' };
  }

  #handleLink(request: WireMessage, isDump: boolean, index: number, attributes: Map<number, Buffer>): FakeAnswer {
    if (isDump) return { messages: [...this.links.values()].map((link) => linkMessage(NEW_LINK, link)) };
    const name = attributes.get(3)?.toString('utf8').replace(/\0.*/, '');
    const link = index !== 0 ? this.links.get(index) : name === undefined ? undefined : this.find(name);
    if (request.type === NEW_LINK && (request.flags & FLAG_CREATE) !== 0) {
      if (link !== undefined) return (request.flags & FLAG_EXCLUSIVE) !== 0 ? { error: 'EEXIST' } : {};
      if (name === undefined) return { error: 'EINVAL' };
      if (!this.hasDummy) return { error: 'EOPNOTSUPP', text: 'Unknown device type' };
      this.addLink(name, 'dummy', request.body.readUInt32LE(8));
      return {};
    }
    if (link === undefined) return { error: 'ENODEV' };
    if (request.type === GET_LINK) return { messages: [linkMessage(NEW_LINK, link)] };
    if (request.type === DELETE_LINK) this.deleteLink(link.name);
    else this.setUp(link.name, (request.body.readUInt32LE(8) & IFF_UP) !== 0);
    return {};
  }

  #listAddresses(index: number): FakeAnswer {
    const messages: FakeMessage[] = [];
    for (const link of this.links.values()) {
      if (index !== 0 && link.index !== index) continue;
      for (const address of link.addresses.keys()) messages.push(addressMessage(NEW_ADDRESS, link, address));
    }
    return { messages };
  }

  #changeAddress(request: WireMessage, index: number, attributes: Map<number, Buffer>): FakeAnswer {
    const bytes = attributes.get(2) ?? attributes.get(1);
    const link = this.links.get(index);
    if (link === undefined) return { error: 'ENODEV' };
    const [family, prefixLength, flags, scope] = request.body.subarray(0, 4);
    if (bytes?.length !== (family === 2 ? 4 : 16)) return { error: 'EINVAL' };
    const address = bytes.toString('latin1') as Address;
    if (request.type === NEW_ADDRESS) {
      const refusal = this.refuse(address);
      if (refusal !== undefined) return { error: refusal };
      if (link.addresses.has(address)) return { error: 'EEXIST' };
      this.#addTo(link, address, prefixLength!, scope!, flags! | PERMANENT);
    } else {
      if (!link.addresses.has(address)) return { error: 'EADDRNOTAVAIL' };
      this.#removeFrom(link, address);
    }
    return {};
  }
}

function linkMessage(type: number, link: FakeLink): FakeMessage {
  const info = link.kind === '' ? [] : [attribute(18, attribute(1, text(link.kind)))];
  const header = [u8(0), u8(0), u16(1), i32(link.index), u32(link.flags), u32(0)];
  return { type, body: Buffer.concat([...header, attribute(3, text(link.name)), ...info]) };
}

function addressMessage(type: number, link: FakeLink, address: Address): FakeMessage {
  const { prefixLength, scope, flags } = link.addresses.get(address)!;
  const header = [u8(address.length === 4 ? 2 : 10), u8(prefixLength), u8(flags & 255), u8(scope), u32(link.index)];
  const local = address.length === 4 ? [attribute(2, packed(address))] : [];
  return { type, body: Buffer.concat([...header, attribute(1, packed(address)), ...local, attribute(8, u32(flags))]) };
}
