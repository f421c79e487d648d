/** A kernel's nfnetlink in memory, under the codec: it takes and gives real bytes. */
import { type NetlinkSocket, NETLINK_NETFILTER, type OpenNetlinkSocket } from '../../src/netlink/socket.js';
import { FakeConntrack } from './fake-nfnetlink-conntrack.js';
import { FakeIpset } from './fake-nfnetlink-ipset.js';
import { type WireMessage, errorMessage, splitMessages } from './fake-nfnetlink-wire.js';

const EINVAL = 22;

/** What a test may do to one datagram: throw as the socket (code), or answer with other bytes. */
export interface NetfilterFaults {
  /** Called with each datagram before the kernel sees it; throw `socketFault('EPERM')` to refuse it. */
  onSend?: (messages: readonly WireMessage[]) => void;
  /** Called with each answer; returns what is received in its place, or throws. */
  onReceive?: (answer: Buffer) => Buffer;
}

export function socketFault(code: string): Error {
  return Object.assign(new Error(`${code}: injected`), { code });
}

export class FakeNetfilter {
  /** Undefined as on a kernel without the module. */
  ipset: FakeIpset | undefined = new FakeIpset();
  conntrack: FakeConntrack | undefined = new FakeConntrack();
  faults: NetfilterFaults = {};
  /** All datagrams that were sent. */
  readonly sent: Buffer[] = [];

  readonly open: OpenNetlinkSocket = (protocol): NetlinkSocket => {
    if (protocol !== NETLINK_NETFILTER) throw new Error(`the fake has no netlink family ${protocol}`);
    const queue: Buffer[] = [];
    return {
      send: (bytes, length) => {
        const datagram = Buffer.from(bytes.subarray(0, length));
        const messages = splitMessages(datagram);
        this.faults.onSend?.(messages);
        this.sent.push(datagram);
        for (const message of messages) queue.push(...this.handle(message));
        return length;
      },
      receive: (bytes) => {
        const answer = queue.shift();
        if (answer === undefined) throw socketFault('EAGAIN');
        const given = this.faults.onReceive?.(answer) ?? answer;
        bytes.set(given.subarray(0, bytes.length));
        return Math.min(given.length, bytes.length);
      },
      waitReadable: () => Promise.resolve(),
      attachFilter: () => undefined,
      close: () => undefined,
    };
  };

  /** The datagrams that answer one message. */
  handle(message: WireMessage): Buffer[] {
    const subsystem = message.type >> 8;
    const part = subsystem === 6 ? this.ipset : subsystem === 1 ? this.conntrack : undefined;
    if (part === undefined) return [errorMessage(message, EINVAL)];
    // the kernel acknowledges success only where it was asked to
    const isQuiet = (message.flags & 4) === 0;
    return part.answer(message).filter((answer) => !(isQuiet && isAcknowledgement(answer)));
  }
}

function isAcknowledgement(answer: Buffer): boolean {
  return answer.readUInt16LE(4) === 2 && answer.readInt32LE(16) === 0;
}
