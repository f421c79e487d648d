import { type ProxyConfig } from '../../config/proxy-config.js';
import { iptablesRules } from '../../desired/iptables-rules.js';
import { nftablesTable } from '../../desired/nftables-rules.js';
import { proxyRules } from '../../desired/proxy-rules.js';
import { type RuleConfig } from '../../desired/rule-config.js';
import { type IptablesTools } from '../../kernel/iptables/detect.js';
import { openRuleFingerprints } from '../../kernel/iptables/fingerprint.js';
import { Iptables } from '../../kernel/iptables/iptables.js';
import { NftClient } from '../../kernel/nftables/client.js';
import { type SavedRules, parseSavedRules } from '../../plan/iptables-save.js';
import { type Inspection } from '../../reconcile/inspect.js';
import { inspectNftables, inspectRules } from '../../reconcile/inspect-node.js';
import { IptablesWriter } from '../../reconcile/iptables-writer.js';
import { NftablesWriter } from '../../reconcile/nftables-writer.js';
import { type RuleBackendName, RulesKeeper, type RulesWriter } from '../../reconcile/rules-keeper.js';
import { type Family } from '../../values/address.js';
import { NFTABLES_TABLE } from '../../values/nftables.js';
import { type SyncReporter } from '../report/sync-reporter.js';
import { type World } from '../world.js';

/** Where the rules of this node are, and who keeps them there. */
export interface RuleBackend {
  readonly name: RuleBackendName;
  readonly keeper: RulesKeeper;
  /** Adds the chains that differ. Rejects with CommandError or NetlinkError. */
  readonly inspect: (found: Inspection) => Promise<void>;
  /** All rules that iptables-save prints; none where iptables are not used. */
  readonly savedRules: (family: Family) => Promise<SavedRules>;
  readonly close: () => void;
}

export interface RuleBackendOptions {
  readonly world: Pick<World, 'openNetlinkSocket' | 'openOptionSocket' | 'runCommand' | 'clock'>;
  readonly config: ProxyConfig;
  /** Undefined: the rules are in nf_tables. */
  readonly iptables: IptablesTools | undefined;
  readonly reporter: SyncReporter;
  readonly ruleConfigs: () => readonly RuleConfig[];
  /** kube-proxy's nftables mode, which goes when all else is in place. */
  readonly otherModes?: OtherModes | undefined;
}

/** kube-proxy's nftables mode on this node (leftovers.ts). */
export interface OtherModes {
  readonly isServing: () => boolean;
  readonly remove: () => void;
  /** Its tables were removed, or never there, and are there now. */
  readonly isBack: () => boolean;
}

/** Opens what `iptables` says. Throws NetlinkError. */
export function openRuleBackend(options: RuleBackendOptions): RuleBackend {
  return options.iptables === undefined ? openNftables(options) : openIptables(options, options.iptables);
}

function openIptables(options: RuleBackendOptions, tools: IptablesTools): RuleBackend {
  const { world, reporter, ruleConfigs, otherModes } = options;
  const iptables = new Iptables(tools, world.runCommand);
  const fingerprints = openRuleFingerprints(tools.backend, {
    netlink: world.openNetlinkSocket,
    options: world.openOptionSocket,
  });
  const desired = () => ruleConfigs().map(iptablesRules);
  const writer = new IptablesWriter({
    iptables,
    onLockWait: (ms) => reporter.lockWaited(ms),
    fingerprint: (family) => fingerprints?.read(family),
    hasForeignTables: () => otherModes?.isServing() === true,
  });
  return {
    name: writer.backend,
    keeper: keeperOf(options, writer, desired),
    inspect: (found) => inspectRules(iptables, desired(), found),
    savedRules: async (family) => parseSavedRules(await iptables.save(family)),
    close: () => fingerprints?.close(),
  };
}

/** With a socket of its own: rules are read beside the sync, which reads sets through another. */
function openNftables(options: RuleBackendOptions): RuleBackend {
  const client = new NftClient(options.world.openNetlinkSocket, NFTABLES_TABLE);
  const desired = () => options.ruleConfigs().map((config) => nftablesTable(proxyRules(config)));
  const writer = new NftablesWriter(client);
  return {
    name: writer.backend,
    keeper: keeperOf(options, writer, desired),
    inspect: (found) => inspectNftables(client, desired(), found),
    savedRules: () => Promise.resolve(new Map()),
    close: () => client.close(),
  };
}

/** What kube-proxy's nftables mode left goes once all is in place; then the rules are made those for without it. */
function keeperOf<Desired extends { readonly family: Family }>(
  { world, reporter, otherModes }: RuleBackendOptions,
  writer: RulesWriter<Desired>,
  desired: () => readonly Desired[],
): RulesKeeper<Desired> {
  const keeper: RulesKeeper<Desired> = new RulesKeeper({
    writer,
    desired,
    clock: world.clock,
    onOutcome: (outcome) => reporter.rulesChecked(outcome),
    onInPlace: () => {
      if (otherModes?.isServing() !== true) return;
      otherModes.remove();
      keeper.check();
    },
  });
  return keeper;
}
