/** ipset as net/netfilter/ipset/ip_set_core.c answers it, as far as the client asks. */
import { type FakeAnswer, type FakeMessage } from './fake-kernel.js';
import {
  type WireAttribute,
  type WireMessage,
  NESTED,
  attribute,
  nested,
  networkNumber,
  splitAttributes,
  text,
  textOf,
  u8,
  valueOf,
} from './netlink-bytes.js';

const ENOENT = 2;
const EEXIST = 17;
const ERR_PROTOCOL = 4097;
const ERR_FIND_TYPE = 4098;
const ERR_BUSY = 4100;
const ERR_INVALID_CIDR = 4104;
const ERR_HASH_FULL = 4352;
const NLM_F_EXCL = 0x200;
const LINE_NUMBER = 9;

export interface FakeSet {
  type: string;
  family: number;
  revision: number;
  maxElements: number | undefined;
  /** Rules that refer to the name. */
  references: number;
  /** Element attributes without the line number, as they came, by their hex. */
  elements: Map<string, Buffer>;
}

export class FakeIpset {
  readonly sets = new Map<string, FakeSet>();
  protocol = 7;
  readonly revisions = new Map<string, number>([
    ['hash:ip', 5],
    ['hash:ip,port', 6],
    ['hash:ip,port,ip', 6],
    ['hash:ip,port,net', 8],
    ['bitmap:port', 3],
  ]);
  /** Makes the kernel refuse an element: a positive errno for its attributes. */
  refuse: (set: string, element: string) => number = () => 0;

  answer(request: WireMessage): FakeAnswer {
    const attributes = splitAttributes(request.body.subarray(4));
    const version = valueOf(attributes, 1)?.[0];
    const command = request.type & 255;
    if (version === undefined || (command !== 1 && version > this.protocol)) return { error: ERR_PROTOCOL };
    switch (command) {
      case 1:
        return { messages: [this.#message(1, attribute(10, u8(6)))] };
      case 7:
        return this.#list(attributes);
      case 9:
      case 10:
        return this.#change(request, attributes, command === 9);
      case 13:
        return this.#describeType(attributes);
      default:
        return errorAnswer(this.#administer(command, request, attributes));
    }
  }

  /** struct nfgenmsg, the protocol, and attributes. */
  #message(command: number, ...attributes: Buffer[]): FakeMessage {
    const body = [Buffer.from([2, 0, 0, 0]), attribute(1, u8(this.protocol)), ...attributes];
    return { type: (6 << 8) | command, body: Buffer.concat(body) };
  }

  #describeType(attributes: WireAttribute[]): FakeAnswer {
    const name = textOf(attributes, 3);
    const revision = this.revisions.get(name);
    if (revision === undefined) return { error: ERR_FIND_TYPE };
    const described = [attribute(3, text(name)), attribute(5, u8(2)), attribute(4, u8(revision)), attribute(10, u8(0))];
    return { messages: [this.#message(13, ...described)] };
  }

  #administer(command: number, request: WireMessage, attributes: WireAttribute[]): number {
    const name = textOf(attributes, 2);
    const set = this.sets.get(name);
    if (command === 2) return this.#create(name, attributes);
    if (set === undefined) return command === 3 && (request.flags & NLM_F_EXCL) === 0 ? 0 : ENOENT;
    if (command === 3) {
      if (set.references > 0) return ERR_BUSY;
      this.sets.delete(name);
    } else if (command === 4) set.elements.clear();
    else if (command === 6) return this.#swap(set, textOf(attributes, 3));
    else return ERR_PROTOCOL;
    return 0;
  }

  #create(name: string, attributes: WireAttribute[]): number {
    const type = textOf(attributes, 3);
    if (name === '' || name.length > 31) return ERR_PROTOCOL;
    if (this.sets.has(name)) return EEXIST;
    const revision = valueOf(attributes, 4)?.[0] ?? 0;
    if (revision > (this.revisions.get(type) ?? -1)) return ERR_FIND_TYPE;
    const data = splitAttributes(valueOf(attributes, 7) ?? Buffer.alloc(0));
    const maxElements = valueOf(data, 19)?.readUInt32BE();
    const family = valueOf(attributes, 5)?.[0] ?? 0;
    this.sets.set(name, { type, family, revision, maxElements, references: 0, elements: new Map() });
    return 0;
  }

  #swap(set: FakeSet, otherName: string): number {
    const other = this.sets.get(otherName);
    if (other === undefined) return ENOENT;
    // references belong to the name, all else to the set
    const content = { ...set };
    Object.assign(set, { ...other, references: set.references });
    Object.assign(other, { ...content, references: other.references });
    return 0;
  }

  #list(attributes: WireAttribute[]): FakeAnswer {
    const wanted = textOf(attributes, 2);
    const isHeaderOnly = ((valueOf(attributes, 6)?.readUInt32BE() ?? 0) & 4) !== 0;
    if (wanted !== '' && !this.sets.has(wanted)) return { error: ENOENT };
    const messages: FakeMessage[] = [];
    for (const [name, set] of this.sets) {
      if (wanted !== '' && name !== wanted) continue;
      const elements = [...set.elements.values()].map((element) => nested(7, element));
      const head = [
        attribute(2, text(name)),
        attribute(3, text(set.type)),
        attribute(5, u8(set.family)),
        attribute(4, u8(set.revision)),
        this.#header(set),
      ];
      if (isHeaderOnly) messages.push(this.#message(7, ...head));
      else messages.push(this.#message(7, ...head, nested(8, ...elements.slice(0, 2))));
      if (isHeaderOnly) continue;
      // what does not fit goes on in a message of its own, without a header
      for (let i = 2; i < elements.length; i += 50)
        messages.push(this.#message(7, attribute(2, text(name)), nested(8, ...elements.slice(i, i + 50))));
    }
    return { messages };
  }

  #header(set: FakeSet): Buffer {
    const size = set.maxElements === undefined ? [] : [networkNumber(18, 1024), networkNumber(19, set.maxElements)];
    return nested(
      7,
      ...size,
      networkNumber(25, set.references),
      networkNumber(26, 400),
      networkNumber(24, set.elements.size),
    );
  }

  #change(request: WireMessage, attributes: WireAttribute[], isAdd: boolean): FakeAnswer {
    const name = textOf(attributes, 2);
    const set = this.sets.get(name);
    const list = attributes.find(({ type }) => type === 8);
    if (list === undefined || (list.rawType & NESTED) === 0) return { error: ERR_PROTOCOL };
    if (set === undefined) return { error: ENOENT };
    for (const { type, value } of splitAttributes(list.value)) {
      const element = splitAttributes(value);
      const line = valueOf(element, LINE_NUMBER)?.readUInt32LE() ?? 0;
      const errno = type === 7 ? this.#changeOne(name, set, element, isAdd) : ERR_PROTOCOL;
      if (errno !== 0) return { error: errno, echo: line === 0 ? undefined : withLine(request, line) };
    }
    return {};
  }

  #changeOne(name: string, set: FakeSet, element: WireAttribute[], isAdd: boolean): number {
    const kept = element.filter(({ type }) => type !== LINE_NUMBER);
    const bytes = Buffer.concat(kept.map(({ rawType, value }) => attribute(rawType, value)));
    const key = bytes.toString('hex');
    const refused = this.refuse(name, key);
    if (refused !== 0) return refused;
    if (kept.some(({ type, value }) => type === 21 && value[0] === 0)) return ERR_INVALID_CIDR;
    if (!isAdd) set.elements.delete(key);
    else if (!set.elements.has(key)) {
      if (set.maxElements !== undefined && set.elements.size >= set.maxElements) return ERR_HASH_FULL;
      set.elements.set(key, bytes);
    }
    return 0;
  }
}

function errorAnswer(errno: number): FakeAnswer {
  return errno === 0 ? {} : { error: errno };
}

/** call_ad of ip_set_core.c: the whole request again, with the line at fault in its own line number attribute. */
function withLine(request: WireMessage, line: number): Buffer {
  const copy = Buffer.from(request.bytes);
  for (let at = 20; at < copy.length; at += (copy.readUInt16LE(at) + 3) & ~3) {
    if (copy.readUInt16LE(at + 2) === LINE_NUMBER) copy.writeUInt32LE(line, at + 4);
  }
  return copy;
}
