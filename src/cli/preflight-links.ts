/** What `preflight` says of programs that configure the links on which VIPs are. */
import { type ProxyConfig } from '../config/proxy-config.js';
import {
  type LinkManager,
  type LinkManagerName,
  findLinkManagers,
  seenLinkManagers,
} from '../kernel/node/link-managers.js';
import { VIP_LINKS } from '../values/vip-form.js';
import { type Check } from './preflight-check.js';

const DOCS = 'docs/compatibility.md';

/**
 * One line per program that takes VIPs away as addresses of kube-ipvs0, or as routes of lo. It does so again at each of
 * its starts, and the daemon repairs it, so that it is no reason to fail.
 */
export function checkLinks({ vips }: Pick<ProxyConfig, 'vips'>, root = '/'): Check[] {
  const name = 'links';
  const link = VIP_LINKS[vips];
  const harmful = findLinkManagers([link], root).filter(({ keeps }) => !keeps[vips]);
  if (harmful.length > 0) return harmful.map((manager) => ({ name, state: 'warn', detail: describe(manager, vips) }));
  const seen = seenLinkManagers(root);
  if (seen.length > 0) return [{ name, state: 'ok', detail: `${seen.join(' and ')} leaves ${link} alone` }];
  const where =
    'neither systemd-networkd nor NetworkManager is seen in /run (of a container: type it on the node itself)';
  return [{ name, state: 'ok', detail: where }];
}

function describe({ program, link, by }: LinkManager, vips: ProxyConfig['vips']): string {
  const [what, when, remedy] = HARM[program][vips];
  return `${program} manages ${link} by ${by} and takes ${what} away whenever ${when}: ${remedy(link, by)} (${DOCS})`;
}

type Harm = readonly [what: string, when: string, remedy: (link: string, by: string) => string];

const unmanaged = (link: string): string =>
  `put [keyfile] unmanaged-devices=interface-name:${link} into /etc/NetworkManager/conf.d/${link}.conf`;

/** The node's own addresses may be on lo: networkd goes on managing it. */
const HARM: Readonly<Record<LinkManagerName, Readonly<Record<ProxyConfig['vips'], Harm>>>> = {
  'systemd-networkd': {
    addresses: [
      'all VIPs',
      'it starts',
      (link) => `put [Match] Name=${link} and [Link] Unmanaged=yes into /etc/systemd/network/10-${link}.network`,
    ],
    routes: [
      'the routes of all VIPs',
      'it starts (systemd 257 and later)',
      (_link, by) =>
        `put [Network] KeepConfiguration=yes into ${by}, or [Network] ManageForeignRoutes=no into ` +
        '/etc/systemd/networkd.conf.d/vips.conf',
    ],
  },
  NetworkManager: {
    addresses: ['all VIPs', 'that profile is activated', unmanaged],
    routes: ['the IPv6 routes of VIPs', 'that profile is activated', unmanaged],
  },
};
