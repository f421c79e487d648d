/**
 * Which links of this node systemd-networkd or NetworkManager configure, by what these two write down in /run about
 * their links. Nothing is asked and nothing started: where /run is not the node's, nothing is known.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type VipForm } from '../../values/vip-form.js';

export type LinkManagerName = 'systemd-networkd' | 'NetworkManager';

export interface LinkManager {
  readonly program: LinkManagerName;
  readonly link: string;
  /** The .network file, or the profile's UUID. */
  readonly by: string;
  /** It is told to leave addresses and routes alone that it did not make: KeepConfiguration, ManageForeignRoutes. */
  readonly keeps: Readonly<Record<VipForm, boolean>>;
}

const STATES: Readonly<Record<LinkManagerName, string>> = {
  'systemd-networkd': 'run/systemd/netif/links',
  NetworkManager: 'run/NetworkManager/devices',
};
const PROGRAMS = Object.keys(STATES) as LinkManagerName[];

/** The programs that have written down something in this /run, whatever of. */
export function seenLinkManagers(root = '/'): LinkManagerName[] {
  return PROGRAMS.filter((program) => namesIn(join(root, STATES[program])).length > 0);
}

/** Who configures one of these links; a link that is not there is nobody's. */
export function findLinkManagers(links: readonly string[], root = '/'): LinkManager[] {
  return links.flatMap((link) => {
    const index = read(join(root, 'sys/class/net', link, 'ifindex')).trim();
    if (index === '') return [];
    const stateOf = (program: LinkManagerName): Map<string, string> =>
      assignments(read(join(root, STATES[program], index)));
    return [
      ...networkd(link, stateOf('systemd-networkd'), root),
      ...networkManager(link, stateOf('NetworkManager'), root),
    ];
  });
}

/** sd-network(3): `unmanaged` also where a file with Unmanaged=yes matches; without a file it is nobody's. */
function networkd(link: string, state: ReadonlyMap<string, string>, root: string): LinkManager[] {
  const file = state.get('NETWORK_FILE') ?? '';
  if (file === '' || state.get('ADMIN_STATE') === 'unmanaged') return [];
  const dropIns = (state.get('NETWORK_FILE_DROPINS') ?? '').split(/[\s"]+/).filter((path) => path !== '');
  const texts = [file, ...dropIns].map((path) => read(join(root, path)));
  const keeps = /^(yes|true|1|on|y|t)$/i.test(setting(texts, 'KeepConfiguration') ?? '');
  const managesRoutes =
    setting(configured(root, 'systemd', 'networkd.conf', 'networkd.conf.d'), 'ManageForeignRoutes') ?? 'yes';
  const sparesRoutes = /^(no|false|0|off|n|f)$/i.test(managesRoutes);
  return [{ program: 'systemd-networkd', link, by: file, keeps: { addresses: keeps, routes: keeps || sparesRoutes } }];
}

/**
 * A profile that somebody activated has a route metric of its own; what NetworkManager only looks on at (lo, as it
 * comes) has none. What it is told to leave alone later keeps the state of before.
 */
function networkManager(link: string, state: ReadonlyMap<string, string>, root: string): LinkManager[] {
  const by = state.get('connection-uuid') ?? '';
  const isActive = state.get('managed') === 'true' && state.has('route-metric-default-effective');
  if (by === '' || !isActive) return [];
  const spared =
    setting(configured(root, 'NetworkManager', 'NetworkManager.conf', 'conf.d'), 'unmanaged-devices') ?? '';
  if (spared.split(/[;,]/).some((match) => namesLink(match.trim(), link))) return [];
  return [{ program: 'NetworkManager', link, by, keeps: { addresses: false, routes: false } }];
}

/** `interface-name:kube-*` as NetworkManager.conf(5) has it; what else a device can be told by is not looked at. */
function namesLink(match: string, link: string): boolean {
  const [, pattern] = /^interface-name:[=~]?(.+)$/.exec(match) ?? [];
  if (pattern === undefined) return match === '*' || match === link;
  const escaped = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${escaped}$`).test(link);
}

const CONF_PLACES = ['etc', 'run', 'usr/local/lib', 'usr/lib'];

/** A program's main file, then its drop-ins by name, wherever they are; of one name the first place counts. */
function configured(root: string, program: string, file: string, directory: string): string[] {
  const places = CONF_PLACES.map((place) => join(root, place, program));
  const main = places.map((place) => read(join(place, file))).find((text) => text !== '') ?? '';
  const dropIns = new Map<string, string>();
  for (const place of places)
    for (const name of namesIn(join(place, directory)))
      if (name.endsWith('.conf') && !dropIns.has(name)) dropIns.set(name, join(place, directory, name));
  const sorted = [...dropIns.values()].sort((a, b) => (basename(a) < basename(b) ? -1 : 1));
  return [main, ...sorted.map(read)];
}

/** The last value of a setting whose name occurs in one section only. */
function setting(texts: readonly string[], name: string): string | undefined {
  return texts.reduce<string | undefined>((last, text) => assignments(text).get(name) ?? last, undefined);
}

/** `NAME=value` lines; comments and section headings are none. */
function assignments(text: string): Map<string, string> {
  return new Map(
    [...text.matchAll(/^\s*([A-Za-z][\w.-]*)\s*=\s*(.*?)\s*$/gm)].map(([, name = '', value = '']) => [name, value]),
  );
}

/** Empty when there is no such file, or it may not be read. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
