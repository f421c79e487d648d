import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CommandError, type RunCommand } from '../command.js';

/**
 * `builtin`: part of the kernel image. `loaded`: in /proc/modules or /sys/module. `modprobe-ok`: was loaded just now.
 * `missing`: none of these; a kernel built without module files may still have the feature, which only using it can tell.
 */
export type ModuleState = 'builtin' | 'loaded' | 'modprobe-ok' | 'missing';

export interface ModuleStatus {
  readonly name: string;
  readonly state: ModuleState;
  /** For `missing`: what to do, with the reason that modprobe gave. */
  readonly fix?: string;
}

/** The kernel modules that IPVS mode cannot do without. Schedulers are asked for by schedulerModule. */
export const REQUIRED_MODULES: readonly string[] = [
  'ip_vs',
  'nf_conntrack',
  'nf_conntrack_netlink',
  'dummy',
  'ip_set',
  'ip_set_hash_ip',
  'ip_set_hash_ipport',
  'ip_set_hash_ipportip',
  'ip_set_hash_ipportnet',
  'ip_set_bitmap_port',
  'xt_set',
];

/** `rr` -> `ip_vs_rr`. The kernel loads it by itself at the first use where modprobe works in its root. */
export function schedulerModule(scheduler: string): string {
  return `ip_vs_${scheduler}`;
}

const MODPROBE_TIMEOUT = 30_000;

export interface ModuleEnvironment {
  readonly run: RunCommand;
  readonly procRoot?: string;
  readonly sysRoot?: string;
  /** The directory of this kernel's modules; /lib/modules/RELEASE. */
  readonly moduleDirectory?: string;
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
  const hint = hasFiles ? '' : ` (${directory} is not there: mount the host's /lib/modules into the container)`;
  return `run "modprobe ${name}" on the node${hint}: ${error.stderr.trim().split('\n').pop() || error.message}`;
}

/** What is built in and what is loaded, read once. */
class ModuleInventory {
  readonly directory: string;
  private readonly builtin: ReadonlySet<string>;
  private readonly loaded: ReadonlySet<string>;
  private readonly sysRoot: string;

  constructor(environment: ModuleEnvironment) {
    const procRoot = environment.procRoot ?? '/proc';
    this.sysRoot = environment.sysRoot ?? '/sys';
    const release = readText(join(procRoot, 'sys/kernel/osrelease')).trim();
    this.directory = environment.moduleDirectory ?? `/lib/modules/${release}`;
    this.builtin = new Set(
      readText(join(this.directory, 'modules.builtin'))
        .split('\n')
        .map((line) => canonical(line.slice(line.lastIndexOf('/') + 1).replace(/\.ko$/, ''))),
    );
    this.loaded = new Set(
      readText(join(procRoot, 'modules'))
        .split('\n')
        .filter((line) => !line.includes(' Unloading '))
        .map((line) => canonical(line.split(' ', 1)[0] ?? '')),
    );
  }

  state(module: string): ModuleState | undefined {
    const name = canonical(module);
    if (this.loaded.has(name)) return 'loaded';
    if (this.builtin.has(name)) return 'builtin';
    // Built-in modules with parameters show up here even where there are no module files; a module being loaded has an initstate.
    const path = join(this.sysRoot, 'module', name);
    if (!existsSync(path)) return undefined;
    const initState = readText(join(path, 'initstate')).trim();
    return initState === '' ? 'builtin' : initState === 'live' ? 'loaded' : undefined;
  }
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
