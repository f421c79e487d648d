import { type ProxyConfig } from '../../config/proxy-config.js';
import { ipsetDefinitions } from '../../desired/ipset-definitions.js';
import { nftablesTable } from '../../desired/nftables-rules.js';
import { proxyRules } from '../../desired/proxy-rules.js';
import { type RunCommand } from '../../kernel/command.js';
import { IpsetClient } from '../../kernel/ipset/client.js';
import { type DetectedIptables, detectIptables } from '../../kernel/iptables/detect.js';
import { nftablesRefusal } from '../../kernel/nftables/probe.js';
import { type ModuleStatus, isModulePresent } from '../../kernel/node/modules.js';
import { type OpenNetlinkSocket } from '../../netlink/socket.js';
import { FAMILIES, type Family } from '../../values/address.js';
import { errorMessage } from '../../values/errors.js';
import { nftSet } from '../../values/nftables-elements.js';

/** Where the rules of this node go, and why. */
export interface RulesChoice {
  /** Undefined: into nf_tables. */
  readonly iptables: DetectedIptables | undefined;
  /** The families whose rules the kernel takes, and of the others why not. */
  readonly families: readonly Family[];
  readonly failures: Readonly<Partial<Record<Family, string>>>;
  /** For the log and `preflight`. */
  readonly reason: string;
}

export interface RulesChoiceParts {
  readonly rules: ProxyConfig['rules'];
  readonly run: RunCommand;
  readonly openNetlinkSocket: OpenNetlinkSocket;
  /** Of the modules that iptables and ipset need. */
  readonly modules: readonly ModuleStatus[];
  readonly detect?: typeof detectIptables;
}

/**
 * `auto`: iptables, wherever kube-proxy's IPVS mode could run, so that the way back to it stays; else nf_tables. Loads
 * what it tries. Rejects with IptablesMissingError, or with what the kernel lacks of either.
 */
export async function chooseRules(parts: RulesChoiceParts): Promise<RulesChoice> {
  if (parts.rules === 'nftables') return inNftables(parts, 'configured');
  if (parts.rules === 'iptables') return inIptables(parts, 'configured');
  const lack = await lackOfIptables(parts);
  if (typeof lack !== 'string') return lack;
  const choice = inNftables(parts, `kube-proxy's IPVS mode could not run here: ${lack}`);
  if (choice.families.length > 0) return choice;
  throw new Error(`${lack}; nor are there nf_tables: ${choice.failures[4] ?? 'no IP family'}`);
}

async function inIptables({ run, detect = detectIptables }: RulesChoiceParts, reason: string): Promise<RulesChoice> {
  const iptables = await detect(run, { probe: true });
  return { iptables, families: iptables.families, failures: iptables.failures, reason };
}

/** Iptables that work, with ipset; or in words what is missing. */
async function lackOfIptables(parts: RulesChoiceParts): Promise<RulesChoice | string> {
  const isPresent = isModulePresent();
  const lost = parts.modules.find(({ name, state }) => /^(ip_set|xt_set)/.test(name) && state === 'missing');
  if (lost !== undefined && !isPresent(lost.name)) return `the kernel has no ${lost.name}`;
  try {
    new IpsetClient(parts.openNetlinkSocket).close();
    return await inIptables(parts, "kube-proxy's IPVS mode could run here, so the way back to it stays");
  } catch (error) {
    return errorMessage(error);
  }
}

/** Tried with rules that have everything that ours can have. */
function inNftables({ openNetlinkSocket }: RulesChoiceParts, reason: string): RulesChoice {
  const failures: Partial<Record<Family, string>> = {};
  for (const family of FAMILIES) {
    const rules = proxyRules({
      family,
      masqueradeMark: 1,
      masqueradeAll: false,
      randomFully: true,
      detectLocal: { mode: 'InterfaceNamePrefix', prefix: 'probe' },
    });
    const refusal = nftablesRefusal(openNetlinkSocket, nftablesTable(rules), ipsetDefinitions(family).map(nftSet));
    if (refusal !== undefined) failures[family] = refusal;
  }
  const families = FAMILIES.filter((family) => failures[family] === undefined);
  return { iptables: undefined, families, failures, reason };
}
