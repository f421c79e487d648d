import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CommandError, type RunCommand } from '../command.js';

/**
 * `builtin`: part of the kernel image. `loaded`: in /proc/modules or /sys/module. `modprobe-ok`: was loaded just now.
 * `loadable`: not loaded, and there is a file of it. `missing`: none of these; a kernel built without module files may
 * still have the feature, which only using it can tell.
 */
export type ModuleState = 'builtin' | 'loaded' | 'modprobe-ok' | 'loadable' | 'missing';

export interface ModuleStatus {
  readonly name: string;
  readonly state: ModuleState;
  /** For `missing`: what to do, with the reason that modprobe gave. */
  readonly fix?: string;
}

/** The kernel modules that IPVS mode cannot do without. Schedulers are asked for by schedulerModule. */
export const REQUIRED_MODULES: readonly string[] = ['ip_vs', 'nf_conntrack', 'nf_conntrack_netlink', 'dummy'];

/** What rules in iptables need besides. */
export const IPTABLES_MODULES: readonly string[] = [
  'ip_set',
  'ip_set_hash_ip',
  'ip_set_hash_ipport',
  'ip_set_hash_ipportip',
  'ip_set_hash_ipportnet',
  'ip_set_bitmap_port',
  'xt_set',
];

/** What rules in nf_tables need besides; the kernel loads what their expressions need. */
export const NFTABLES_MODULES: readonly string[] = ['nf_tables'];

/**
 * What the rules in iptables use besides. The kernel loads it by itself at the first use; under other names before 5.2.
 */
export const RULE_MODULES: readonly string[] = [
  ...['xt_conntrack', 'xt_comment', 'xt_mark', 'xt_addrtype', 'xt_tcpudp', 'xt_MASQUERADE', 'xt_nat'],
  ...['ipt_REJECT', 'ip6t_REJECT'],
];

/** Where a feature shows that it is there, whatever is known of modules. */
const EVIDENCE: Readonly<Record<string, string>> = {
  ip_vs: 'net/ip_vs',
  nf_conntrack: 'sys/net/netfilter/nf_conntrack_max',
  ip_tables: 'net/ip_tables_names',
  ip6_tables: 'net/ip6_tables_names',
};

/** `rr` -> `ip_vs_rr`. The kernel loads it by itself at the first use where modprobe works in its root. */
export function schedulerModule(scheduler: string): string {
  return `ip_vs_${scheduler}`;
}

const MODPROBE_TIMEOUT = 30_000;

export interface ModulePaths {
  readonly procRoot?: string;
  readonly sysRoot?: string;
  /** The directory of this kernel's modules; /lib/modules/RELEASE. */
  readonly moduleDirectory?: string;
}

export interface ModuleEnvironment extends ModulePaths {
  readonly run: RunCommand;
}

/**
 * Finds each module, and loads those that are neither built in nor loaded: with one modprobe for all, and one each only
 * when that fails, to learn which. Never throws: a module that cannot be had is `missing` with the fix.
 */
export async function probeModules(names: readonly string[], environment: ModuleEnvironment): Promise<ModuleStatus[]> {
  const inventory = new ModuleInventory(environment);
  const absent = names.filter((name) => inventory.state(name) === undefined);
  const areLoaded = absent.length > 1 && (await loadAll(absent, environment));
  const statuses: ModuleStatus[] = [];
  for (const name of names) {
    const state = inventory.state(name) ?? (areLoaded ? 'modprobe-ok' : undefined);
    statuses.push(state === undefined ? await load(name, environment, inventory) : { name, state });
  }
  return statuses;
}

/** Finds each module and loads none. */
export function findModules(names: readonly string[], paths: ModulePaths = {}): ModuleStatus[] {
  const inventory = new ModuleInventory(paths);
  return names.map((name) => {
    const state = inventory.state(name) ?? (inventory.isLoadable(name) ? 'loadable' : undefined);
    if (state !== undefined) return { name, state };
    const hint = existsSync(inventory.directory) ? 'it has no such module' : noFiles(inventory.directory);
    return { name, state: 'missing', fix: `not loaded, and ${hint}` };
  });
}

/**
 * Tells whether a module's feature can be used without the kernel having to load anything. Where nothing can be known
 * (no module files here, a kernel without modules, and no trace that it would leave) the answer is yes: then it is
 * there, or there is nothing to be loaded.
 */
export function isModulePresent(paths: ModulePaths = {}): (name: string) => boolean {
  const inventory = new ModuleInventory(paths);
  const procRoot = paths.procRoot ?? '/proc';
  const hasModules = existsSync(join(procRoot, 'modules'));
  return (name) => {
    if (inventory.state(name) !== undefined) return true;
    const evidence = EVIDENCE[name];
    if (evidence !== undefined) return existsSync(join(procRoot, evidence));
    return !hasModules || (!inventory.isLoadable(name) && !existsSync(inventory.directory));
  };
}

/** Asks modprobe for all of `names`; what cannot be had is left. */
export async function loadModules(names: readonly string[], environment: ModuleEnvironment): Promise<void> {
  const inventory = new ModuleInventory(environment);
  const absent = names.filter((name) => inventory.state(name) === undefined && inventory.isLoadable(name));
  if (absent.length > 0) await loadAll(absent, environment);
}

async function loadAll(names: readonly string[], environment: ModuleEnvironment): Promise<boolean> {
  try {
    await environment.run('modprobe', ['--all', '--', ...names], { timeout: MODPROBE_TIMEOUT });
    return true;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return false;
  }
}

async function load(name: string, environment: ModuleEnvironment, inventory: ModuleInventory): Promise<ModuleStatus> {
  try {
    await environment.run('modprobe', ['--', name], { timeout: MODPROBE_TIMEOUT });
    return { name, state: 'modprobe-ok' };
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return { name, state: 'missing', fix: missingFix(name, error, inventory.directory) };
  }
}

function missingFix(name: string, error: CommandError, directory: string): string {
  if (error.missing) return `modprobe ${name} on the node (this container has no modprobe: install kmod)`;
  const hasFiles = existsSync(directory);
  const hint = hasFiles ? '' : ` (${noFiles(directory)})`;
  return `run "modprobe ${name}" on the node${hint}: ${error.stderr.trim().split('\n').pop() || error.message}`;
}

function noFiles(directory: string): string {
  return `${directory} is not there: mount the host's /lib/modules into the container`;
}

/** What is built in, what is loaded and what there are files of, read once. */
class ModuleInventory {
  readonly directory: string;
  readonly #builtin: ReadonlySet<string>;
  readonly #loaded: ReadonlySet<string>;
  readonly #sysRoot: string;
  #loadable: ReadonlySet<string> | undefined;

  constructor(environment: ModulePaths) {
    const procRoot = environment.procRoot ?? '/proc';
    this.#sysRoot = environment.sysRoot ?? '/sys';
    const release = readText(join(procRoot, 'sys/kernel/osrelease')).trim();
    this.directory = environment.moduleDirectory ?? `/lib/modules/${release}`;
    this.#builtin = new Set(readText(join(this.directory, 'modules.builtin')).split('\n').map(moduleName));
    this.#loaded = new Set(
      readText(join(procRoot, 'modules'))
        .split('\n')
        .filter((line) => !line.includes(' Unloading '))
        .map((line) => canonical(line.split(' ', 1)[0] ?? '')),
    );
  }

  isLoadable(module: string): boolean {
    this.#loadable ??= new Set(
      readText(join(this.directory, 'modules.dep'))
        .split('\n')
        .map((line) => moduleName(line.split(':', 1)[0]!)),
    );
    return this.#loadable.has(canonical(module));
  }

  state(module: string): ModuleState | undefined {
    const name = canonical(module);
    if (this.#loaded.has(name)) return 'loaded';
    if (this.#builtin.has(name)) return 'builtin';
    // Built-in modules with parameters show up here even where there are no module files; a module being loaded has an
    // initstate.
    const path = join(this.#sysRoot, 'module', name);
    if (!existsSync(path)) return undefined;
    const initState = readText(join(path, 'initstate')).trim();
    return initState === '' ? 'builtin' : initState === 'live' ? 'loaded' : undefined;
  }
}

/** kernel/net/netfilter/ipvs/ip_vs.ko.xz -> ip_vs */
function moduleName(path: string): string {
  return canonical(path.slice(path.lastIndexOf('/') + 1).replace(/\.ko(\.\w+)?$/, ''));
}

/** Module names treat `-` and `_` alike. */
function canonical(name: string): string {
  return name.replaceAll('-', '_');
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // an absent file means nothing is known from it
  }
}
