/** ipset as net/netfilter/ipset/ip_set_core.c answers it, as far as the client asks. */
import {
  type WireAttribute,
  type WireMessage,
  NESTED,
  byte,
  attribute,
  doneMessage,
  errorMessage,
  message,
  nested,
  netfilterMessage,
  number32,
  splitAttributes,
  text,
  textOf,
  valueOf,
} from './fake-nfnetlink-wire.js';

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

  /** The answers to one request. */
  answer(request: WireMessage): Buffer[] {
    const attributes = splitAttributes(request.body.subarray(4));
    const version = valueOf(attributes, 1)?.[0];
    const command = request.type & 255;
    if (version === undefined || (command !== 1 && version > this.protocol))
      return [errorMessage(request, ERR_PROTOCOL)];
    switch (command) {
      case 1:
        return this.#reply(request, 1, byte(1, this.protocol), byte(10, 6));
      case 7:
        return this.#list(request, attributes);
      case 9:
      case 10:
        return this.#change(request, attributes, command === 9);
      case 13:
        return this.#describeType(request, attributes);
      default:
        return [errorMessage(request, this.#administer(command, request, attributes))];
    }
  }

  #reply(request: WireMessage, command: number, ...parts: Buffer[]): Buffer[] {
    return [netfilterMessage((6 << 8) | command, 0, request.sequence, 2, ...parts), errorMessage(request, 0)];
  }

  #describeType(request: WireMessage, attributes: WireAttribute[]): Buffer[] {
    const name = textOf(attributes, 3);
    const revision = this.revisions.get(name);
    if (revision === undefined) return [errorMessage(request, ERR_FIND_TYPE)];
    return this.#reply(request, 13, byte(1, this.protocol), text(3, name), byte(5, 2), byte(4, revision), byte(10, 0));
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

  #list(request: WireMessage, attributes: WireAttribute[]): Buffer[] {
    const wanted = textOf(attributes, 2);
    const isHeaderOnly = ((valueOf(attributes, 6)?.readUInt32BE() ?? 0) & 4) !== 0;
    if (wanted !== '' && !this.sets.has(wanted)) return [errorMessage(request, ENOENT)];
    const answers: Buffer[] = [];
    for (const [name, set] of this.sets) {
      if (wanted !== '' && name !== wanted) continue;
      const first = nested(8, ...[...set.elements.values()].slice(0, 2).map((element) => nested(7, element)));
      const header = this.#header(set);
      const head = [
        byte(1, this.protocol),
        text(2, name),
        text(3, set.type),
        byte(5, set.family),
        byte(4, set.revision),
      ];
      const type = (6 << 8) | 7;
      const parts = isHeaderOnly ? [...head, header] : [...head, header, first];
      answers.push(netfilterMessage(type, 2, request.sequence, 2, ...parts));
      if (isHeaderOnly || set.elements.size <= 2) continue;
      // what does not fit goes on in a message of its own, without a header
      const rest = [...set.elements.values()].slice(2).map((element) => nested(7, element));
      for (let i = 0; i < rest.length; i += 50) {
        const part = nested(8, ...rest.slice(i, i + 50));
        answers.push(netfilterMessage(type, 2, request.sequence, 2, byte(1, this.protocol), text(2, name), part));
      }
    }
    return [...answers, doneMessage(request.sequence)];
  }

  #header(set: FakeSet): Buffer {
    const size = set.maxElements === undefined ? [] : [number32(18, 1024), number32(19, set.maxElements)];
    return nested(7, ...size, number32(25, set.references), number32(26, 400), number32(24, set.elements.size));
  }

  #change(request: WireMessage, attributes: WireAttribute[], isAdd: boolean): Buffer[] {
    const name = textOf(attributes, 2);
    const set = this.sets.get(name);
    const list = attributes.find(({ type }) => type === 8);
    if (list === undefined || (list.rawType & NESTED) === 0) return [errorMessage(request, ERR_PROTOCOL)];
    if (set === undefined) return [errorMessage(request, ENOENT)];
    for (const { type, value } of splitAttributes(list.value)) {
      const element = splitAttributes(value);
      const line = valueOf(element, LINE_NUMBER)?.readUInt32LE() ?? 0;
      const errno = type === 7 ? this.#changeOne(name, set, element, isAdd) : ERR_PROTOCOL;
      if (errno !== 0) return [this.#lineError(request, errno, line)];
    }
    return [errorMessage(request, 0)];
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

  /** call_ad of ip_set_core.c: the whole request again, with the line at fault in its own line number attribute. */
  #lineError(request: WireMessage, errno: number, line: number): Buffer {
    if (line === 0) return errorMessage(request, errno);
    const copy = Buffer.from(request.bytes);
    for (let at = 20; at < copy.length; at += (copy.readUInt16LE(at) + 3) & ~3) {
      if (copy.readUInt16LE(at + 2) === LINE_NUMBER) copy.writeUInt32LE(line, at + 4);
    }
    const code = Buffer.alloc(4);
    code.writeInt32LE(-errno);
    return message(2, 0, request.sequence, code, copy);
  }
}
