import { type IncomingMessage } from 'node:http';
import { type Route, sendText } from './respond.js';

const REFUSAL =
  'This page is for the node itself: ask from there (kube-proxy-ipvs status), through kubectl port-forward, or set\n' +
  'kubeProxyIpvs.statusAccess: all\n';

/** The route for those who may see it; others get a 403 that names the way. */
export function guarded(access: 'loopback' | 'all', route: Route): Route {
  if (access === 'all') return route;
  return (request, response, query) => {
    if (isFromThisNode(request)) return route(request, response, query);
    sendText(response, 403, REFUSAL);
  };
}

/** The peer has a loopback address, or the very address that it asked: the kernel takes neither from a wire. */
function isFromThisNode({ socket }: IncomingMessage): boolean {
  const { remoteAddress = '', localAddress } = socket;
  return remoteAddress === localAddress || remoteAddress === '::1' || /^(::ffff:)?127\./.test(remoteAddress);
}
