import { type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';

/** Answers one request; a thrown error becomes a 500 without details. */
export type Route = (
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
) => void | Promise<void>;

/** Dispatches GET and HEAD by exact path; 404 and 405 as Go's mux words them. */
export function router(routes: Readonly<Record<string, Route>>): RequestListener {
  const table = new Map(Object.entries(routes));
  return (request, response) => {
    const [path = '/', search = ''] = (request.url ?? '/').split('?', 2);
    const route = table.get(path);
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD');
      sendText(response, 405, 'Method Not Allowed\n');
    } else if (route === undefined) sendText(response, 404, '404 page not found\n');
    else void answer(route, request, response, new URLSearchParams(search));
  };
}

async function answer(
  route: Route,
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
): Promise<void> {
  try {
    await route(request, response, query);
  } catch {
    if (response.headersSent) response.destroy();
    else sendText(response, 500, 'internal error\n');
  }
}

export function sendText(response: ServerResponse, status: number, text: string): void {
  send(response, status, 'text/plain; charset=utf-8', text);
}

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  send(response, status, 'application/json', JSON.stringify(value));
}

/** By which this program is known from kube-proxy, whose ports it has. */
export const OWN_SERVER = 'kube-proxy-ipvs';

/** Sends a whole body with the headers that every answer of ours has. */
export function send(response: ServerResponse, status: number, contentType: string, body: string): void {
  response.writeHead(status, {
    Server: OWN_SERVER,
    'Content-Type': contentType,
    'Content-Length': Buffer.byteLength(body),
    'X-Content-Type-Options': 'nosniff',
  });
  response.end(body);
}
