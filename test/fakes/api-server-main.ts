/**
 * The fake API server as a process of its own:
 *
 *   node build/test/fakes/api-server-main.js [--host 127.0.0.1] [--port 0] [--control-port 0] [--tls] [--token T]
 *     [--real-objects] [--bookmark-ms 60000] [--load FILE.json]... [--generate SERVICESxENDPOINTS]
 *     [--kubeconfig FILE]
 *
 * Prints one JSON line `{"url":...,"control":...}` when it serves. Commands (api-server-control.ts) come as POST bodies
 * on the control port or as lines on standard input, one JSON object or array each; answers go back the same way.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { type ControlAnswer, type ControlCommand, control } from './api-server-control.js';
import { type ApiObject } from './api-server-store.js';
import { CA_CERTIFICATE } from './api-server-tls.js';
import { FakeApiServer } from './api-server.js';
import { scaleCluster } from './cluster-generator.js';

const { values: options } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '0' },
    'control-port': { type: 'string', default: '0' },
    tls: { type: 'boolean', default: false },
    token: { type: 'string' },
    'real-objects': { type: 'boolean', default: false },
    'bookmark-ms': { type: 'string', default: '60000' },
    load: { type: 'string', multiple: true, default: [] },
    generate: { type: 'string' },
    kubeconfig: { type: 'string' },
  },
});

const server = new FakeApiServer({
  tls: options.tls,
  realObjects: options['real-objects'],
  bookmarkEveryMs: Number(options['bookmark-ms']),
  ...(options.token === undefined ? {} : { tokens: [options.token] }),
});
for (const file of options.load) server.set(...readObjects(file));
if (options.generate !== undefined) {
  const [services = 0, endpointsPerService = 0] = options.generate.split('x').map(Number);
  for (const object of scaleCluster({ services, endpointsPerService })) server.set(object);
}
const url = await server.start(Number(options.port), options.host);
if (options.kubeconfig !== undefined) writeFileSync(options.kubeconfig, kubeconfig(url, options.token));

const controlServer = createServer((request, response) => {
  void readBody(request)
    .then(execute)
    .then((answer) => response.end(`${answer}\n`));
});
controlServer.listen(Number(options['control-port']), '127.0.0.1', () => {
  const { port } = controlServer.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ url, control: `http://127.0.0.1:${port}` })}\n`);
});
createInterface({ input: process.stdin }).on('line', (line) => {
  if (line.trim() !== '') void execute(line).then((answer) => process.stdout.write(`${answer}\n`));
});

async function execute(text: string): Promise<string> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    return JSON.stringify({ ok: false, error: String(error) });
  }
  if (!Array.isArray(parsed)) return JSON.stringify(await control(server, parsed as ControlCommand));
  const answers: ControlAnswer[] = [];
  for (const command of parsed as ControlCommand[]) answers.push(await control(server, command));
  return JSON.stringify(answers);
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** The objects of a List file (kind FooList, items without kind), a JSON array, or one object. */
function readObjects(file: string): ApiObject[] {
  const content = JSON.parse(readFileSync(file, 'utf8')) as
    ApiObject | ApiObject[] | { kind: string; items: ApiObject[] };
  if (Array.isArray(content)) return content;
  if (!('items' in content)) return [content];
  const list = content as { kind: string; items: ApiObject[] };
  const kind = list.kind.replace(/List$/, '');
  return list.items.map((item) => (kind === '' ? item : { kind, ...item }));
}

function kubeconfig(serverUrl: string, token: string | undefined): string {
  const ca = Buffer.from(CA_CERTIFICATE).toString('base64');
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'fake', cluster: { server: serverUrl, 'certificate-authority-data': ca } }],
    users: [{ name: 'fake', user: token === undefined ? {} : { token } }],
    contexts: [{ name: 'fake', context: { cluster: 'fake', user: 'fake' } }],
    'current-context': 'fake',
  });
}
