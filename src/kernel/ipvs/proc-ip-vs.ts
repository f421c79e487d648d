/**
 * /proc/net/ip_vs, the whole IPVS table as text (ip_vs_info_seq_show of net/netfilter/ipvs/ip_vs_ctl.c), parsed as bytes,
 * so that no string is made per line: how small tables are read where getsockopt is refused (read-table.ts). It has no flags
 * but persistence, no timeout in seconds and no family for firewall marks; IpvsClient.listVirtualServers has those.
 */
import { type Family } from '../../values/address.js';
import { protocolNumber } from '../../values/protocol.js';
import { type RealServerKey, type VirtualServerKey, fwmarkServerKey } from '../../values/virtual-server.js';
import { type Forwarding } from './message.js';

/** One virtual server. The object and its arrays are used again for the next one: only `count` entries are valid, now. */
export interface ProcVirtualServer {
  /** Undefined only for a firewall mark without real servers, whose family the file does not tell. */
  key: VirtualServerKey | undefined;
  /** The firewall mark; 0 for a server keyed by its address. */
  mark: number;
  scheduler: string;
  persistent: boolean;
  /** Number of real servers. */
  count: number;
  readonly realServers: RealServerKey[];
  readonly weights: number[];
  readonly forwardings: Forwarding[];
  readonly activeConnections: number[];
  readonly inactiveConnections: number[];
}

export interface ProcSummary {
  readonly virtualServers: number;
  readonly realServers: number;
  /** Virtual servers of protocols that no Service has; they were skipped with their real servers. */
  readonly foreign: number;
}

/** The file is not what this kernel interface has always been. */
export class ProcFormatError extends Error {
  constructor(what: string, line: number, text: string) {
    super(`/proc/net/ip_vs line ${line}: ${what}: ${JSON.stringify(text)}`);
    this.name = 'ProcFormatError';
  }
}

const NEWLINE = 10;
const SPACE = 32;
const COLON = 58;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;
const HEADER_LINES = 3;
const HEADER_START = 'IP Virtual Server version';
const REAL_SERVER_START = '  -> ';
const LINE_MAX = 1024;
/** Value of a hexadecimal digit; 16 for any other byte, which shows after OR-ing digits together. */
const HEX = Uint8Array.from({ length: 256 }, (_, byte) => {
  const value = parseInt(String.fromCharCode(byte), 16);
  return Number.isNaN(value) ? 16 : value;
});
const PROTOCOLS = new Map<string, number>(
  (['TCP', 'UDP', 'SCTP'] as const).map((protocol) => [protocol, protocolNumber(protocol)]),
);
/** ip_vs_fwd_name; what is none of these the kernel calls Masq. */
const FORWARDINGS = new Map<string, Forwarding>([
  ['Masq', 'masquerade'],
  ['Local', 'local'],
  ['Tunnel', 'tunnel'],
  ['Route', 'route'],
  ['Bypass', 'bypass'],
]);

/**
 * Takes the file in pieces of any size and calls `visit` for each virtual server with its real servers. Throws
 * ProcFormatError; after that it must not be used again.
 */
export class ProcIpVsParser {
  private readonly current: ProcVirtualServer = {
    key: undefined,
    mark: 0,
    scheduler: '',
    persistent: false,
    count: 0,
    realServers: [],
    weights: [],
    forwardings: [],
    activeConnections: [],
    inactiveConnections: [],
  };
  private state: 'none' | 'known' | 'foreign' = 'none';
  private carry: Buffer = Buffer.alloc(0);
  private buffer: Buffer = this.carry;
  private line = 0;
  private lineStart = 0;
  private at = 0;
  private end = 0;
  private virtualServers = 0;
  private realServers = 0;
  private foreign = 0;

  constructor(private readonly visit: (server: ProcVirtualServer) => void) {}

  /** Parses the complete lines of a chunk; the chunk may be overwritten afterwards. */
  push(chunk: Buffer): void {
    let start = 0;
    if (this.carry.length > 0) {
      const newline = chunk.indexOf(NEWLINE);
      const rest = newline < 0 ? chunk : chunk.subarray(0, newline + 1);
      const joined = Buffer.concat([this.carry, rest]);
      if (newline < 0) return this.hold(joined);
      this.carry = joined.subarray(0, 0);
      this.parseLine(joined, 0, joined.length - 1);
      start = newline + 1;
    }
    for (;;) {
      const newline = chunk.indexOf(NEWLINE, start);
      if (newline < 0) break;
      this.parseLine(chunk, start, newline);
      start = newline + 1;
    }
    if (start < chunk.length) this.hold(Buffer.from(chunk.subarray(start)));
  }

  /** Ends the file: visits the last virtual server. */
  finish(): ProcSummary {
    if (this.carry.length > 0) this.parseLine(this.carry, 0, this.carry.length);
    this.emit();
    if (this.line < HEADER_LINES) throw new ProcFormatError('the table has no header', this.line, '');
    return { virtualServers: this.virtualServers, realServers: this.realServers, foreign: this.foreign };
  }

  private hold(bytes: Buffer): void {
    if (bytes.length > LINE_MAX) throw new ProcFormatError('overlong line', this.line + 1, '');
    this.carry = bytes;
  }

  private parseLine(buffer: Buffer, start: number, end: number): void {
    this.buffer = buffer;
    this.lineStart = this.at = start;
    this.end = end;
    this.line++;
    if (this.line <= HEADER_LINES) {
      if (this.line === 1 && !this.startsWith(HEADER_START)) this.fail('not an IPVS table');
    } else if (this.startsWith(REAL_SERVER_START)) this.parseRealServer();
    else this.parseVirtualServer();
  }

  private parseVirtualServer(): void {
    this.emit();
    const { current } = this;
    current.count = current.mark = 0;
    current.key = undefined;
    const kind = this.word();
    const protocol = PROTOCOLS.get(kind);
    if (protocol === undefined && kind !== 'FWM') {
      // The kernel names others IP_<number>, and a few by their names.
      if (!/^[A-Z][A-Za-z0-9_]*$/.test(kind)) this.fail('unknown protocol');
      this.state = 'foreign';
      this.foreign++;
      return;
    }
    this.skipSpaces();
    if (protocol === undefined) current.mark = this.hex32();
    else current.key = (String.fromCharCode(protocol) + this.portAndAddress()) as VirtualServerKey;
    current.scheduler = this.word();
    if (current.scheduler === '') this.fail('no scheduler');
    let option = this.word();
    if (option === 'ops') option = this.word();
    if (option !== '' && option !== 'persistent') this.fail('unknown flag');
    current.persistent = option === 'persistent';
    this.state = 'known';
    this.virtualServers++;
  }

  private parseRealServer(): void {
    if (this.state === 'foreign') return;
    if (this.state === 'none') this.fail('real server without a virtual server');
    const { current } = this;
    this.at += REAL_SERVER_START.length;
    const key = this.portAndAddress() as RealServerKey;
    const forwarding = this.forwarding();
    const i = current.count++;
    current.realServers[i] = key;
    current.forwardings[i] = forwarding;
    current.weights[i] = this.integer();
    current.activeConnections[i] = this.integer();
    current.inactiveConnections[i] = this.integer();
    if (current.key === undefined) current.key = fwmarkServerKey(familyOfRealServer(key), current.mark);
    this.realServers++;
  }

  private forwarding(): Forwarding {
    this.skipSpaces();
    if (this.startsWith('Masq ')) {
      // Nearly every line: spare it the string and the look-up.
      this.at += 4;
      return 'masquerade';
    }
    return FORWARDINGS.get(this.word()) ?? this.fail('unknown forwarding method');
  }

  private emit(): void {
    if (this.state === 'known') this.visit(this.current);
    this.state = 'none';
  }

  private startsWith(text: string): boolean {
    if (this.end - this.at < text.length) return false;
    for (let i = 0; i < text.length; i++) if (this.buffer[this.at + i] !== text.charCodeAt(i)) return false;
    return true;
  }

  private skipSpaces(): void {
    while (this.at < this.end && this.buffer[this.at] === SPACE) this.at++;
  }

  /** The next word, without the spaces before it; empty at the end of the line. */
  private word(): string {
    this.skipSpaces();
    const start = this.at;
    while (this.at < this.end && this.buffer[this.at] !== SPACE) this.at++;
    return this.buffer.toString('latin1', start, this.at);
  }

  private integer(): number {
    this.skipSpaces();
    const negative = this.buffer[this.at] === 45 && this.at < this.end;
    if (negative) this.at++;
    const start = this.at;
    let value = 0;
    while (this.at < this.end && this.buffer[this.at] !== SPACE) {
      const digit = this.buffer[this.at++]! - 48;
      if (digit < 0 || digit > 9 || this.at - start > 10) this.fail('malformed number');
      value = value * 10 + digit;
    }
    if (this.at === start) this.fail('number missing');
    return negative ? -value : value;
  }

  /** `0A600001:01BB` or `[fd00:...:0010]:0035` as port and address, packed. */
  private portAndAddress(): string {
    if (this.at < this.end && this.buffer[this.at] === OPEN_BRACKET) return this.portAndIPv6();
    const high = this.hex16();
    const low = this.hex16();
    this.expect(COLON);
    const port = this.hex16();
    return String.fromCharCode(port >> 8, port & 255, high >> 8, high & 255, low >> 8, low & 255);
  }

  private portAndIPv6(): string {
    let address = '';
    for (let i = 0; i < 8; i++) {
      this.expect(i === 0 ? OPEN_BRACKET : COLON);
      const group = this.hex16();
      address += String.fromCharCode(group >> 8, group & 255);
    }
    this.expect(CLOSE_BRACKET);
    this.expect(COLON);
    const port = this.hex16();
    return String.fromCharCode(port >> 8, port & 255) + address;
  }

  private hex32(): number {
    const high = this.hex16();
    return high * 0x10000 + this.hex16();
  }

  private hex16(): number {
    const { buffer, at } = this;
    if (this.end - at < 4) this.fail('line too short');
    const [a, b] = [HEX[buffer[at]!]!, HEX[buffer[at + 1]!]!];
    const [c, d] = [HEX[buffer[at + 2]!]!, HEX[buffer[at + 3]!]!];
    if ((a | b | c | d) > 15) this.fail('malformed hexadecimal number');
    this.at = at + 4;
    return (a << 12) | (b << 8) | (c << 4) | d;
  }

  private expect(byte: number): void {
    if (this.at >= this.end || this.buffer[this.at] !== byte) this.fail(`no ${String.fromCharCode(byte)}`);
    this.at++;
  }

  private fail(what: string): never {
    const end = Math.min(this.end, this.lineStart + 120);
    throw new ProcFormatError(what, this.line, this.buffer.toString('latin1', this.lineStart, end));
  }
}

function familyOfRealServer(key: RealServerKey): Family {
  return key.length === 6 ? 4 : 6;
}
