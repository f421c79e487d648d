/** Servers and clients on loopback for the tests of what the daemon serves. */
import { type IncomingHttpHeaders, request } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type TestContext } from 'node:test';
import { Listener, type ListenerOptions } from '../../src/serve/listener.js';

const hasIPv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'));
export const needsIPv6 = { skip: hasIPv6 ? false : 'this machine has no ::1' };

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export function fetchText(
  port: number,
  path: string,
  options: { host?: string; method?: string; localAddress?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', method: 'GET', ...options, port, path }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
    });
    sent.on('error', reject).end();
  });
}

export function recordingLog() {
  const lines: string[] = [];
  const log = {
    info: (_fields: object, message: string) => void lines.push(message),
    warn: (_fields: object, message: string) => void lines.push(message),
  };
  return { lines, log };
}

export async function serve(t: TestContext, options: Partial<ListenerOptions>): Promise<number> {
  const { log } = recordingLog();
  const listener = new Listener({
    name: 'test',
    host: '127.0.0.1',
    port: 0,
    handler: () => undefined,
    log,
    ...options,
  });
  await listener.start();
  t.after(() => listener.close());
  return listener.port!;
}

/** A TCP port that somebody else holds. */
export async function takenPort(
  t: TestContext,
  host: string,
  port = 0,
): Promise<{ port: number; release: () => Promise<void> }> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, host, resolve));
  const release = (): Promise<void> => new Promise((resolve) => server.close(() => resolve()));
  t.after(() => (server.listening ? release() : undefined));
  return { port: (server.address() as AddressInfo).port, release };
}

export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}
