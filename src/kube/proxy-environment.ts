import { isIP } from 'node:net';
import { parseAddress } from '../values/address.js';
import { parsePrefix, prefixContains } from '../values/prefix.js';

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The proxy that the environment names for a server, by the rules that client-go follows
 * (golang.org/x/net/http/httpproxy): HTTPS_PROXY or HTTP_PROXY by the server's scheme, also in small letters, unless
 * NO_PROXY names the server; loopback addresses are never proxied. Undefined: connect directly.
 */
export function proxyFromEnvironment(server: URL, environment: Environment): string | undefined {
  const name = server.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY';
  const proxy = variable(environment, name);
  if (proxy === '') return undefined;
  const host = server.hostname
    .replace(/^\[|\]$/g, '')
    .replace(/\.$/, '')
    .toLowerCase();
  const port = server.port || (server.protocol === 'https:' ? '443' : '80');
  if (host === 'localhost' || isLoopback(host)) return undefined;
  const rules = variable(environment, 'NO_PROXY').split(',');
  if (rules.some((rule) => matches(rule.trim().toLowerCase(), host, port))) return undefined;
  return proxy.includes('://') ? proxy : `http://${proxy}`;
}

function variable(environment: Environment, name: string): string {
  return environment[name] || environment[name.toLowerCase()] || '';
}

function isLoopback(host: string): boolean {
  return host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/**
 * One entry of NO_PROXY: `*`, an address, a CIDR block, or a domain (with its subdomains; `.domain` these alone), each
 * with or without port.
 */
function matches(rule: string, host: string, port: string): boolean {
  if (rule === '') return false;
  if (rule === '*') return true;
  const block = parsePrefix(rule);
  if (rule.includes('/')) {
    const address = parseAddress(host);
    return block !== undefined && address !== undefined && prefixContains(block, address);
  }
  const { name, port: only } = splitPort(rule);
  if (only !== '' && only !== port) return false;
  if (isIP(name) !== 0) {
    const [wanted, given] = [parseAddress(name), parseAddress(host)];
    return wanted !== undefined && wanted === given;
  }
  const domain = name.replace(/^\*/, '');
  return domain.startsWith('.') ? host.endsWith(domain) : host === domain || host.endsWith(`.${domain}`);
}

function splitPort(rule: string): { name: string; port: string } {
  const [, bracketed, plain, port = ''] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(rule) ?? [];
  return { name: bracketed ?? plain ?? rule, port };
}
