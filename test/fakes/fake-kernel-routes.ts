/** Routes of single addresses in table local of the fake kernel, with notifications. */
import { NETLINK_ROUTE } from '../../src/netlink/socket.js';
import { type Address, formatAddress, parseAddress } from '../../src/values/address.js';
import { type FakeAnswer, type FakeKernel, type FakeMessage } from './fake-kernel.js';
import { type WireMessage, attribute, attributeMap, packed, u32, u8 } from './netlink-bytes.js';

export interface FakeRoute {
  readonly address: Address;
  readonly index: number;
  readonly protocol: number;
  readonly metric: number;
  /** RTN_* */
  readonly type: number;
  readonly scope: number;
}

export const [NEW_ROUTE, DELETE_ROUTE, GET_ROUTE] = [24, 25, 26] as const;
const [GROUP_IPV4, GROUP_IPV6] = [7, 11];
const [FLAG_REPLACE, FLAG_EXCLUSIVE] = [0x100, 0x200];
const [TABLE_LOCAL, LOCAL] = [255, 2];
const OURS = 75;

export class FakeRoutes {
  /** By packed address and metric. */
  readonly routes = new Map<string, FakeRoute>();
  /** The errno name with which a route is refused. */
  refuse: (address: Address) => string | undefined = () => undefined;

  readonly #kernel: FakeKernel;

  constructor(kernel: FakeKernel) {
    this.#kernel = kernel;
  }

  // What somebody else does to the node; each sends its notification.

  /** As `ip route replace`, ours unless it is said otherwise. */
  put(address: string, route: Partial<FakeRoute> = {}): void {
    const packedAddress = parseAddress(address)!;
    const own = { index: 1, protocol: OURS, metric: OURS, type: LOCAL, scope: 254, ...route };
    this.#put({ ...own, address: packedAddress }, true);
  }

  remove(address: string, metric = OURS): void {
    this.#remove(keyOf(parseAddress(address)!, metric));
  }

  /** A link's routes go with it, those of IPv4 without a word. */
  linkGone(index: number): void {
    for (const [key, route] of this.routes) if (route.index === index) this.routes.delete(key);
  }

  /** Our routes as text, `10.96.0.1 dev 1`, sorted; those of another protocol with its number. */
  list(): string[] {
    return [...this.routes.values()]
      .map(({ address, index, protocol, type }) => {
        const sort = type === LOCAL ? '' : ` type ${type}`;
        return `${formatAddress(address)} dev ${index}${protocol === OURS ? '' : ` proto ${protocol}`}${sort}`;
      })
      .sort();
  }

  handle(request: WireMessage, isDump: boolean, hasLink: (index: number) => boolean): FakeAnswer {
    const { type, body, flags } = request;
    if (body.length < 12) return { error: 'EINVAL' };
    const [family, length, , , table, protocol, scope, sort] = body;
    if (type === GET_ROUTE) {
      if (!isDump) return { error: 'EOPNOTSUPP' };
      if (scope !== 0 || length !== 0)
        return { error: 'EINVAL', text: 'Invalid values in header for FIB dump request' };
      const isAsked = (route: FakeRoute): boolean =>
        (route.address.length === 4) === (family === 2) && route.protocol === protocol && route.type === sort;
      return { messages: [...this.routes.values()].filter(isAsked).map((route) => routeMessage(NEW_ROUTE, route)) };
    }
    const attributes = attributeMap(body.subarray(12));
    const destination = attributes.get(1);
    const index = attributes.get(4)?.readUInt32LE() ?? 0;
    if (table !== TABLE_LOCAL || destination?.length !== (family === 2 ? 4 : 16)) return { error: 'EINVAL' };
    if (length !== destination.length * 8) return { error: 'EINVAL' };
    if (!hasLink(index)) return { error: 'ENODEV' };
    const address = destination.toString('latin1') as Address;
    const metric = attributes.get(6)?.readUInt32LE() ?? 0;
    const key = keyOf(address, metric);
    if (type === DELETE_ROUTE) return this.#remove(key) ? {} : { error: 'ESRCH' };
    const refusal = this.refuse(address);
    if (refusal !== undefined) return { error: refusal };
    if (this.routes.has(key) && (flags & FLAG_EXCLUSIVE) !== 0) return { error: 'EEXIST' };
    this.#put(
      { address, index, protocol: protocol!, metric, type: sort!, scope: scope! },
      (flags & FLAG_REPLACE) !== 0,
    );
    return {};
  }

  #put(route: FakeRoute, replaces: boolean): void {
    const key = keyOf(route.address, route.metric);
    const isThere = this.routes.has(key);
    this.routes.set(key, route);
    this.#notify(NEW_ROUTE, route, replaces && isThere ? FLAG_REPLACE : 0);
  }

  #remove(key: string): boolean {
    const route = this.routes.get(key);
    if (route === undefined) return false;
    this.routes.delete(key);
    this.#notify(DELETE_ROUTE, route, 0);
    return true;
  }

  #notify(type: number, route: FakeRoute, flags: number): void {
    const group = route.address.length === 4 ? GROUP_IPV4 : GROUP_IPV6;
    this.#kernel.notify(NETLINK_ROUTE, group, routeMessage(type, route), flags);
  }
}

function keyOf(address: Address, metric: number): string {
  return `${address} ${metric}`;
}

function routeMessage(type: number, route: FakeRoute): FakeMessage {
  const { address, index, protocol, metric, scope } = route;
  const header = [address.length === 4 ? 2 : 10, address.length * 8, 0, 0, TABLE_LOCAL, protocol, scope, route.type];
  const table = attribute(15, u32(TABLE_LOCAL));
  const attributes = [attribute(1, packed(address)), attribute(6, u32(metric)), attribute(4, u32(index))];
  return { type, body: Buffer.concat([...header.map(u8), u32(0), table, ...attributes]) };
}
