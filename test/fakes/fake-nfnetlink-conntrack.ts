/**
 * ctnetlink as net/netfilter/nf_conntrack_netlink.c answers it: dumps, with or without CTA_FILTER, and deletion by
 * tuple and id.
 */
import {
  type WireAttribute,
  type WireMessage,
  NET_BYTEORDER,
  attribute,
  byte,
  doneMessage,
  errorMessage,
  nested,
  netfilterMessage,
  number32,
  splitAttributes,
  valueOf,
} from './fake-nfnetlink-wire.js';

const ENOENT = 2;
const EINVAL = 22;

/** One direction of a flow: packed addresses. */
export interface FakeTuple {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
}

export interface FakeFlow {
  readonly protocol: number;
  readonly original: FakeTuple;
  readonly reply: FakeTuple;
  readonly id: number;
}

export class FakeConntrack {
  flows: FakeFlow[] = [];
  /** Linux 5.8 and later; `refuses` is a kernel that answers EINVAL to what it does not know. */
  filter: 'yes' | 'ignores' | 'refuses' = 'yes';
  dumps = 0;
  /** Entries that were sent in dumps. */
  listed = 0;

  answer(request: WireMessage): Buffer[] {
    const family = request.body[0]!;
    const attributes = splitAttributes(request.body.subarray(4));
    const command = request.type & 255;
    if (command === 1) return this.#dump(request, family, attributes);
    if (command === 2) return [errorMessage(request, this.#delete(family, attributes))];
    return [errorMessage(request, EINVAL)];
  }

  #dump(request: WireMessage, family: number, attributes: WireAttribute[]): Buffer[] {
    this.dumps++;
    const isFiltered = valueOf(attributes, 25) !== undefined;
    if (isFiltered && this.filter === 'refuses') return [errorMessage(request, EINVAL)];
    const protocol = isFiltered && this.filter === 'yes' ? filterProtocol(attributes) : undefined;
    const listed = this.flows.filter(
      (flow) => familyOf(flow) === family && (protocol === undefined || flow.protocol === protocol),
    );
    this.listed += listed.length;
    const type = 1 << 8;
    const answers = listed.map((flow) =>
      netfilterMessage(
        type,
        2,
        request.sequence,
        family,
        tuple(1, flow.protocol, flow.original),
        tuple(2, flow.protocol, flow.reply),
        number32(3, 8),
        number32(12, flow.id),
      ),
    );
    return [...answers, doneMessage(request.sequence)];
  }

  #delete(family: number, attributes: WireAttribute[]): number {
    const wanted = valueOf(attributes, 1)?.toString('hex');
    const id = valueOf(attributes, 12)?.readUInt32BE();
    const index = this.flows.findIndex((flow) => {
      const bytes = tuple(1, flow.protocol, flow.original).subarray(4);
      return familyOf(flow) === family && bytes.toString('hex') === wanted && flow.id === id;
    });
    if (index < 0) return ENOENT;
    this.flows.splice(index, 1);
    return 0;
  }
}

function filterProtocol(attributes: WireAttribute[]): number | undefined {
  const flags = valueOf(splitAttributes(valueOf(attributes, 25)!), 1)?.readUInt32LE();
  if (flags !== 8) return undefined; // CTA_FILTER_F_CTA_PROTO_NUM alone
  const original = splitAttributes(valueOf(attributes, 1)!);
  return valueOf(splitAttributes(valueOf(original, 2)!), 1)?.[0];
}

function familyOf(flow: FakeFlow): number {
  return flow.original.source.length === 4 ? 2 : 10;
}

function tuple(
  type: number,
  protocol: number,
  { source, sourcePort, destination, destinationPort }: FakeTuple,
): Buffer {
  const first = source.length === 4 ? 1 : 3;
  return nested(
    type,
    nested(
      1,
      attribute(first, Buffer.from(source, 'latin1')),
      attribute(first + 1, Buffer.from(destination, 'latin1')),
    ),
    nested(2, byte(1, protocol), port(2, sourcePort), port(3, destinationPort)),
  );
}

function port(type: number, value: number): Buffer {
  return attribute(type & ~NET_BYTEORDER, Buffer.from([value >> 8, value & 255]));
}
