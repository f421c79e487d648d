/**
 * ctnetlink as net/netfilter/nf_conntrack_netlink.c answers it: dumps, with or without CTA_FILTER, and deletion by
 * tuple and id.
 */
import { type FakeAnswer } from './fake-kernel.js';
import {
  type WireAttribute,
  type WireMessage,
  attribute,
  nested,
  networkNumber,
  splitAttributes,
  u16be,
  u8,
  valueOf,
} from './netlink-bytes.js';

const NEW = 1 << 8;

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
  /** No kernel leaves it out; what reads a dump must not take the one before for it. */
  readonly reply: FakeTuple | undefined;
  readonly id: number;
}

export class FakeConntrack {
  flows: FakeFlow[] = [];
  /** Linux 5.8 and later; `refuses` is a kernel that answers EINVAL to what it does not know. */
  filter: 'yes' | 'ignores' | 'refuses' = 'yes';
  dumps = 0;
  /** Entries that were sent in dumps. */
  listed = 0;

  answer({ body, type }: WireMessage): FakeAnswer {
    const family = body[0]!;
    const attributes = splitAttributes(body.subarray(4));
    const command = type & 255;
    if (command === 1) return this.#dump(family, attributes);
    if (command === 2) return this.#delete(family, attributes);
    return { error: 'EINVAL' };
  }

  #dump(family: number, attributes: WireAttribute[]): FakeAnswer {
    this.dumps++;
    const isFiltered = valueOf(attributes, 25) !== undefined;
    if (isFiltered && this.filter === 'refuses') return { error: 'EINVAL' };
    const protocol = isFiltered && this.filter === 'yes' ? filterProtocol(attributes) : undefined;
    const listed = this.flows.filter(
      (flow) => familyOf(flow) === family && (protocol === undefined || flow.protocol === protocol),
    );
    this.listed += listed.length;
    const messages = listed.map((flow) => ({
      type: NEW,
      body: Buffer.concat([
        Buffer.from([family, 0, 0, 0]),
        tuple(1, flow.protocol, flow.original),
        ...(flow.reply === undefined ? [] : [tuple(2, flow.protocol, flow.reply)]),
        networkNumber(3, 8),
        networkNumber(12, flow.id),
      ]),
    }));
    return { messages };
  }

  #delete(family: number, attributes: WireAttribute[]): FakeAnswer {
    const wanted = valueOf(attributes, 1)?.toString('hex');
    const id = valueOf(attributes, 12)?.readUInt32BE();
    const index = this.flows.findIndex((flow) => {
      const bytes = tuple(1, flow.protocol, flow.original).subarray(4);
      return familyOf(flow) === family && bytes.toString('hex') === wanted && flow.id === id;
    });
    if (index < 0) return { error: 'ENOENT' };
    this.flows.splice(index, 1);
    return {};
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
    nested(2, attribute(1, u8(protocol)), attribute(2, u16be(sourcePort)), attribute(3, u16be(destinationPort))),
  );
}
