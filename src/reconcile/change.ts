/** What a sync would do, as data: `plan` prints it, `plan --json` writes it. The keys are part of the interface. */
import { type Family } from '../values/address.js';
import { type IpsetType } from '../values/ipset.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  type VirtualServerSettings,
  realServerAddress,
  realServerPort,
  virtualServerIdentity,
} from '../values/virtual-server.js';
import { formatAddress } from '../values/address.js';

export type ChangeAction = 'add' | 'change' | 'delete';

interface Of<T extends string> {
  readonly action: ChangeAction;
  readonly object: T;
  /** `namespace/name` of the Service that asks for the object; undefined when none does, or none any more. */
  readonly service?: string | undefined;
}

export interface LinkChange extends Of<'link'> {
  readonly link: string;
}

export interface SetChange extends Of<'set'> {
  readonly set: string;
  readonly type: IpsetType;
  readonly family: Family;
}

export interface SetEntryChange extends Of<'set_entry'> {
  readonly set: string;
  /** As `ipset save` prints it. */
  readonly entry: string;
}

export interface AddressChange extends Of<'address'> {
  readonly address: string;
  readonly link: string;
}

export interface VirtualServerChange extends Of<'virtual_server'> {
  readonly virtualServer: VirtualServerRef;
  readonly before?: SettingsData | undefined;
  readonly after?: SettingsData | undefined;
}

export interface RealServerChange extends Of<'real_server'> {
  readonly virtualServer: VirtualServerRef;
  readonly realServer: { readonly address: string; readonly port: number };
  /** After the change; 0 drains. undefined when it is deleted. */
  readonly weight?: number | undefined;
}

export interface RuleChange extends Of<'rule'> {
  readonly family: Family;
  readonly table: string;
  readonly chain: string;
  /** `jump`: one rule of ours in a chain that others share; `chain`: a chain of ours with all its rules. */
  readonly what: 'jump' | 'chain';
  /** Rules as iptables-save prints them after `-A CHAIN`. */
  readonly before: readonly string[];
  readonly after: readonly string[];
}

export interface SysctlChange extends Of<'sysctl'> {
  readonly name: string;
  readonly before: number | undefined;
  readonly after: number;
}

export type Change =
  | LinkChange
  | SetChange
  | SetEntryChange
  | AddressChange
  | VirtualServerChange
  | RealServerChange
  | RuleChange
  | SysctlChange;

export type VirtualServerRef =
  | { readonly protocol: string; readonly address: string; readonly port: number }
  | { readonly fwmark: number; readonly family: Family };

export interface SettingsData {
  readonly scheduler: string;
  /** IP_VS_SVC_F_* as `ip_vs.h` numbers them. */
  readonly flags: number;
  /** Seconds; 0: connections of one client are not kept together. */
  readonly persistenceTimeout: number;
}

export function virtualServerRef(key: VirtualServerKey): VirtualServerRef {
  const identity = virtualServerIdentity(key);
  if (identity.kind === 'fwmark') return { fwmark: identity.mark, family: identity.family };
  const { protocol, address, port } = identity;
  return { protocol, address: formatAddress(address), port };
}

export function realServerRef(key: RealServerKey): RealServerChange['realServer'] {
  return { address: formatAddress(realServerAddress(key)), port: realServerPort(key) };
}

export function settingsData({ scheduler, flags, timeout }: VirtualServerSettings): SettingsData {
  return { scheduler, flags, persistenceTimeout: timeout };
}
