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

export interface RulesChoiceOptions {
  readonly rules: ProxyConfig['rules'];
  readonly run: RunCommand;
  readonly openNetlinkSocket: OpenNetlinkSocket;
  /** Of the modules that iptables and ipset need. */
  readonly modules: readonly ModuleStatus[];
  readonly detect?: typeof detectIptables;
  /** Whether the kernel has a module; this machine's otherwise. */
  readonly isPresent?: (module: string) => boolean;
}

/**
 * `auto`: iptables, wherever kube-proxy's IPVS mode could run, so that the way back to it stays; else nf_tables. Loads
 * what it tries. Rejects with IptablesMissingError, or with what the kernel lacks of either.
 */
export async function chooseRules(options: RulesChoiceOptions): Promise<RulesChoice> {
  if (options.rules === 'nftables') return inNftables(options, 'configured');
  if (options.rules === 'iptables') return inIptables(options, 'configured');
  const lack = await lackOfIptables(options);
  if (typeof lack !== 'string') return lack;
  const choice = inNftables(options, `kube-proxy's IPVS mode could not run here: ${lack}`);
  if (choice.families.length > 0) return choice;
  throw new Error(`${lack}; nor are there nf_tables: ${choice.failures[4] ?? 'no IP family'}`);
}

async function inIptables({ run, detect = detectIptables }: RulesChoiceOptions, reason: string): Promise<RulesChoice> {
  const iptables = await detect(run, { probe: true });
  return { iptables, families: iptables.families, failures: iptables.failures, reason };
}

/** Iptables that work, with ipset; or in words what is missing. */
async function lackOfIptables(options: RulesChoiceOptions): Promise<RulesChoice | string> {
  const isPresent = options.isPresent ?? isModulePresent();
  const lost = options.modules.find(({ name, state }) => /^(ip_set|xt_set)/.test(name) && state === 'missing');
  if (lost !== undefined && !isPresent(lost.name)) return `the kernel has no ${lost.name}`;
  try {
    new IpsetClient(options.openNetlinkSocket).close();
    return await inIptables(options, "kube-proxy's IPVS mode could run here, so the way back to it stays");
  } catch (error) {
    return errorMessage(error);
  }
}

/** Tried with rules that have everything that ours can have. */
function inNftables({ openNetlinkSocket }: RulesChoiceOptions, reason: string): RulesChoice {
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
