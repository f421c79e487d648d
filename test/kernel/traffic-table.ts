/** How a row of the table in traffic-cases.ts is written, and what it means. */
import { type Protocol } from '../../src/values/protocol.js';

/**
 * `client` is a pod on the node under test, `bridged` one on its bridge, `farclient` one on the other node; `other` is
 * the other node itself, `router` a neighbour on the node's Ethernet.
 */
const PLACES = ['client', 'bridged', 'node', 'other', 'farclient', 'outside', 'router'] as const;
export type Place = (typeof PLACES)[number];
/**
 * `node` is the node's address with the Service's port; `second` its second address and `loopback` with the node port.
 */
const KINDS = ['clusterIP', 'externalIP', 'loadBalancer', 'nodePort', 'node', 'second', 'loopback'] as const;
export type AddressKind = (typeof KINDS)[number];
/** `HTTP` asks the health check node port. */
const WAYS = ['TCP', 'UDP', 'SCTP', 'PING', 'ARP', 'HTTP'] as const;
export type Way = Protocol | 'PING' | 'ARP' | 'HTTP';

const WORDS = ['refused', 'dropped', 'unserved', 'echo', 'silence'] as const;
const SEEN = ['self', 'node', 'target'] as const;
type Seen = (typeof SEEN)[number];

export type Expectation =
  /**
   * `near far as node`: by each of these and no other; the server saw the client's own address (`self`), one of the
   * node's, or the very address that was asked (`target`: what the node itself asks at its own address comes from
   * there).
   */
  | { readonly what: 'answered'; readonly by: readonly string[]; readonly seen: Seen }
  /** `one of near far`: always the same. `any of near far`: schedulers differ in how they spread. */
  | { readonly what: 'one' | 'any'; readonly of: readonly string[] }
  /**
   * `refused` at once; `dropped` without a word; `unserved`: no answer, whatever else (an address that is nobody's any
   * more goes round between routers); `echo` and `silence` are what a ping or an ARP request meets.
   */
  | { readonly what: (typeof WORDS)[number] }
  /** `health 200 1`: status and number of local endpoints. */
  | { readonly what: 'health'; readonly status: number; readonly localEndpoints: number };

export interface Row {
  readonly feature: string;
  readonly service: string;
  readonly at: readonly AddressKind[];
  readonly ways: readonly Way[];
  readonly families: readonly (4 | 6)[];
  /** Instead of the Service's own port. */
  readonly port: number | undefined;
  readonly expect: readonly (readonly [Place, Expectation])[];
}

/**
 * `row('ClusterIP', 'basic clusterIP TCP,UDP', 'client: near far as self', 'node outside: near far as node')`: the
 * Service, the kinds of address, the ways, and optionally `IPv4`, `IPv6` (else both) and `:PORT`; then who must meet
 * what. Throws on what it does not understand.
 */
export function row(feature: string, where: string, ...expectations: readonly string[]): Row {
  const [service, at, ways, ...rest] = where.split(' ');
  const families = rest.filter((word) => word.startsWith('IPv')).map((word) => (word === 'IPv4' ? 4 : 6));
  const port = rest.find((word) => word.startsWith(':'));
  return {
    feature,
    service: service!,
    at: at!.split(',').map((word) => oneOf(KINDS, word)),
    ways: ways!.split(',').map((word) => oneOf(WAYS, word)),
    families: families.length === 0 ? [4, 6] : families,
    port: port === undefined ? undefined : Number(port.slice(1)),
    expect: expectations.flatMap((text) => {
      const [places, outcome] = text.split(': ');
      const expected = parseExpectation(outcome ?? '');
      return places!.split(' ').map((place) => [oneOf(PLACES, place), expected] as const);
    }),
  };
}

function parseExpectation(text: string): Expectation {
  const word = WORDS.find((one) => one === text);
  if (word !== undefined) return { what: word };
  const of = /^(one|any) of (.+)$/.exec(text);
  if (of !== null) return { what: of[1] as 'one' | 'any', of: of[2]!.split(' ') };
  const health = /^health (\d+) (\d+)$/.exec(text);
  if (health !== null) return { what: 'health', status: Number(health[1]), localEndpoints: Number(health[2]) };
  const answered = /^(.+) as (\w+)$/.exec(text);
  if (answered === null) throw new SyntaxError(`not an expectation: ${text}`);
  return { what: 'answered', by: answered[1]!.split(' '), seen: oneOf(SEEN, answered[2]!) };
}

/** The text that parseExpectation reads. */
export function formatExpectation(expected: Expectation): string {
  switch (expected.what) {
    case 'answered':
      return `${expected.by.join(' ')} as ${expected.seen}`;
    case 'one':
    case 'any':
      return `${expected.what} of ${expected.of.join(' ')}`;
    case 'health':
      return `health ${expected.status} ${expected.localEndpoints}`;
    default:
      return expected.what;
  }
}

function oneOf<T extends string>(allowed: readonly T[], word: string): T {
  const found = allowed.find((one) => one === word);
  if (found === undefined) throw new SyntaxError(`${word} is none of ${allowed.join(', ')}`);
  return found;
}
