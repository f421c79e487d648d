/**
 * The ipsets that the rules of proxy-rules.ts look into. Names and types are those of kube-proxy's IPVS mode, so
 * that a takeover adopts its sets and a rollback finds them again; the two in `OWN` are ours. IPv6 names carry
 * `KUBE-6-` and are cut at 31 characters (IPSET_MAXNAMELEN of include/uapi/linux/netfilter/ipset/ip_set.h, less the
 * terminating zero).
 */
import { FAMILIES, type Family } from '../values/address.js';
import { type IpsetDefinition, type IpsetType } from '../values/ipset.js';

const MAX_NAME_LENGTH = 31;

/** Role -> type. The role is the name without its prefix. */
const ROLES = {
  'CLUSTER-IP': 'hash:ip,port',
  'EXTERNAL-IP': 'hash:ip,port',
  'EXTERNAL-IP-LOCAL': 'hash:ip,port',
  'HEALTH-CHECK-NODE-PORT': 'bitmap:port',
  'IPVS-IPS': 'hash:ip',
  'LOAD-BALANCER': 'hash:ip,port',
  'LOAD-BALANCER-FW': 'hash:ip,port',
  'LOAD-BALANCER-LOCAL': 'hash:ip,port',
  'LOAD-BALANCER-SOURCE-CIDR': 'hash:ip,port,net',
  'LOAD-BALANCER-SOURCE-IP': 'hash:ip,port,ip',
  'LOOP-BACK': 'hash:ip,port,ip',
  'NODE-PORT-LOCAL-SCTP-HASH': 'hash:ip,port',
  'NODE-PORT-LOCAL-TCP': 'bitmap:port',
  'NODE-PORT-LOCAL-UDP': 'bitmap:port',
  'NODE-PORT-SCTP-HASH': 'hash:ip,port',
  'NODE-PORT-TCP': 'bitmap:port',
  'NODE-PORT-UDP': 'bitmap:port',
  'NO-ENDPOINTS': 'hash:ip,port',
  'NO-LOCAL-ENDPOINTS': 'hash:ip,port',
} as const satisfies Record<string, IpsetType>;

/** Sets that kube-proxy does not know: nothing of its own refers to them after a rollback. */
export const OWN_IPSET_ROLES: readonly IpsetRole[] = ['NO-ENDPOINTS', 'NO-LOCAL-ENDPOINTS'];

export type IpsetRole = keyof typeof ROLES;
/** A set's name in the kernel. */
export type IpsetName = `KUBE-${string}`;

const ROLE_NAMES = Object.keys(ROLES) as IpsetRole[];
const NAMES: Readonly<Record<Family, Readonly<Record<IpsetRole, IpsetName>>>> = { 4: namesOf(4), 6: namesOf(6) };
const DEFINITIONS: Readonly<Record<Family, readonly IpsetDefinition[]>> = { 4: definitionsOf(4), 6: definitionsOf(6) };

/** The kernel name of the set that plays this role. */
export function ipsetName(family: Family, role: IpsetRole): IpsetName {
  return NAMES[family][role];
}

export function ipsetType(role: IpsetRole): IpsetType {
  return ROLES[role];
}

/** All sets of one family; every one of them must exist before the rules are written. */
export function ipsetDefinitions(family: Family): readonly IpsetDefinition[] {
  return DEFINITIONS[family];
}

/** All sets of both families, by kernel name. */
export function allIpsetDefinitions(): ReadonlyMap<IpsetName, IpsetDefinition> {
  return new Map(FAMILIES.flatMap(ipsetDefinitions).map((one) => [one.name as IpsetName, one]));
}

function namesOf(family: Family): Record<IpsetRole, IpsetName> {
  const prefix = family === 4 ? 'KUBE-' : 'KUBE-6-';
  const entries = ROLE_NAMES.map((role) => [role, (prefix + role).slice(0, MAX_NAME_LENGTH)]);
  return Object.fromEntries(entries) as Record<IpsetRole, IpsetName>;
}

function definitionsOf(family: Family): IpsetDefinition[] {
  return ROLE_NAMES.map((role) => ({ name: NAMES[family][role], type: ROLES[role], family }));
}
