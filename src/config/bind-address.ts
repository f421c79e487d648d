import { formatAddress, parseAddress } from '../values/address.js';

/** Where a server listens. `host` is an IP address as text, without brackets. */
export interface BindAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Parses `IP:port`, `[IPv6]:port`, or a bare IP (which gets `defaultPort`, as kube-proxy's AppendPortIfNeeded does).
 * undefined when the host is no IP address or the port is outside 1-65535.
 */
export function parseBindAddress(text: string, defaultPort: number): BindAddress | undefined {
  const bare = parseAddress(text);
  if (bare !== undefined) return { host: formatAddress(bare), port: defaultPort };
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const [, bracketed, plain, portText] = match;
  const host = bracketed ?? plain!;
  const port = portText === undefined ? defaultPort : Number(portText);
  const address = parseAddress(host);
  if (address === undefined || (bracketed !== undefined && !bracketed.includes(':'))) return undefined;
  return port >= 1 && port <= 65535 ? { host: formatAddress(address), port } : undefined;
}

/** `0.0.0.0:10256`, `[::1]:10249`. */
export function formatBindAddress({ host, port }: BindAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
