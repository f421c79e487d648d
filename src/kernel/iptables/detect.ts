import { FAMILIES, type Family } from '../../values/address.js';
import { CommandError, type RunCommand } from '../command.js';
import { programPath } from '../program-path.js';
import { isLockHeld } from './xtables-lock.js';

export type IptablesBackend = 'legacy' | 'nft';

export interface IptablesTools {
  readonly backend: IptablesBackend;
  /** As `iptables --version` prints it: `1.8.9`. */
  readonly version: string;
  /** `-j MASQUERADE --random-fully` is understood (iptables 1.6.2). */
  readonly randomFully: boolean;
  /** `iptables-restore -w SECONDS` is understood (iptables 1.6.2). */
  readonly restoreWaits: boolean;
  readonly commands: Readonly<Record<Family, { readonly save: string; readonly restore: string }>>;
  /** Why this backend was chosen, for the log. */
  readonly reason: string;
}

export interface DetectedIptables extends IptablesTools {
  /** The families whose tables work, and of the others why not. */
  readonly families: readonly Family[];
  readonly failures: Readonly<Partial<Record<Family, string>>>;
}

export interface DetectOptions {
  /** Use this backend, whatever the kernel holds. */
  readonly backend?: IptablesBackend;
  /**
   * Also make and remove an empty chain in each table of each family that shows none yet: iptables-nft cannot tell
   * otherwise that the kernel lacks them, and iptables-legacy loads them so.
   */
  readonly probe?: boolean;
  /** Start no program that makes the kernel load a module that is not present. */
  readonly isPresent?: (module: string) => boolean;
  /** Where a program is, links followed; for `isPresent`. */
  readonly programPath?: (command: string) => string | undefined;
}

/** No usable iptables: the message names what is missing and the fix. */
export class IptablesMissingError extends Error {
  override readonly name = 'IptablesMissingError';
}

/** Chains by which kubelet (1.17 and later, 1.24 and later) marks the backend that the node uses. */
const KUBELET_CHAINS = /^:(KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY) /m;
const KUBE_CHAINS = /^:KUBE-/m;
/** Those that our rules are in. */
const TABLES = ['mangle', 'nat', 'filter'] as const;
const MESSAGE_LENGTH = 240;
/** A version that is not looked at is taken for a modern one. */
const UNKNOWN = '1.8';
const PROGRAM_TIMEOUT = 60_000;

interface Candidate {
  readonly backend: IptablesBackend;
  readonly prefix: Readonly<Record<Family, string>>;
  readonly version: string;
  /** What iptables-save and ip6tables-save print; undefined when they failed. */
  readonly texts: Readonly<Record<Family, string | undefined>>;
  /** Both, joined. */
  readonly saved: string;
}

/**
 * Chooses between iptables-legacy and iptables-nft as the Kubernetes project's iptables-wrapper does: the backend that
 * holds kubelet's marker chains (nft first), else the one with KUBE-* chains, else the one with more rules, else the
 * system's default. At most 7 processes, once, and one more for each family that has to be probed. A family that does
 * not work is left out; throws IptablesMissingError when none works.
 */
export async function detectIptables(run: RunCommand, options: DetectOptions = {}): Promise<DetectedIptables> {
  const candidates = await findCandidates(run, options);
  const wanted = options.backend ? candidates.filter((one) => one.backend === options.backend) : candidates;
  if (wanted.length === 0) throw missing(options.backend);
  const ranked = options.backend ? [{ candidate: wanted[0]!, reason: 'configured' }] : await rank(run, wanted, options);
  const failures: string[] = [];
  for (const { candidate, reason } of ranked) {
    const failed = options.probe ? await probe(run, candidate) : {};
    const families = FAMILIES.filter((family) => failed[family] === undefined);
    if (families.length > 0) return tools(candidate, reason, families, failed);
    failures.push(`iptables-${candidate.backend}: ${failed[4]}`);
  }
  throw new IptablesMissingError(
    `no iptables backend works here, for no IP family (load ip_tables with iptable_filter, or nf_tables): ${failures.join('; ')}`,
  );
}

async function findCandidates(run: RunCommand, options: DetectOptions): Promise<Candidate[]> {
  const found: Candidate[] = [];
  for (const backend of ['nft', 'legacy'] as const) {
    const candidate = await readCandidate(run, { 4: `iptables-${backend}`, 6: `ip6tables-${backend}` }, options);
    if (candidate !== undefined) found.push({ ...candidate, backend });
  }
  if (found.length > 0) return found;
  const only = await readCandidate(run, { 4: 'iptables', 6: 'ip6tables' }, options);
  return only === undefined ? [] : [only];
}

async function readCandidate(
  run: RunCommand,
  prefix: Candidate['prefix'],
  options: DetectOptions,
): Promise<Candidate | undefined> {
  if (isUnloadedNft(prefix[4], options))
    return { backend: 'nft', prefix, version: UNKNOWN, texts: { 4: '', 6: '' }, saved: '' };
  try {
    const banner = (await run(prefix[4], ['--version'], { timeout: PROGRAM_TIMEOUT })).stdout;
    const version = /v?(\d+\.\d+(?:\.\d+)?)/.exec(banner)?.[1] ?? '0.0';
    const backend = banner.includes('nf_tables') ? 'nft' : 'legacy';
    const texts = { 4: await savedText(run, `${prefix[4]}-save`), 6: await savedText(run, `${prefix[6]}-save`) };
    return { backend, prefix, version, texts, saved: (texts[4] ?? '') + (texts[6] ?? '') };
  } catch (error) {
    if (error instanceof CommandError) return undefined;
    throw error;
  }
}

/** Even `iptables-nft --version` makes the kernel load what it talks to; iptables-legacy and its -save load nothing. */
function isUnloadedNft(command: string, { isPresent, programPath: find = programPath }: DetectOptions): boolean {
  if (isPresent === undefined || isPresent('nf_tables')) return false;
  return find(command)?.includes('nft') === true;
}

/** A backend that the kernel lacks, or IPv6 switched off, is a backend without rules. */
async function savedText(run: RunCommand, command: string): Promise<string | undefined> {
  try {
    return (await run(command, [], { timeout: PROGRAM_TIMEOUT })).stdout;
  } catch (error) {
    if (error instanceof CommandError && !error.missing) return undefined;
    throw error;
  }
}

async function rank(run: RunCommand, found: readonly Candidate[], options: DetectOptions) {
  const order: { candidate: Candidate; reason: string }[] = [];
  const add = (candidate: Candidate | undefined, reason: string): void => {
    if (candidate && !order.some((one) => one.candidate === candidate)) order.push({ candidate, reason });
  };
  if (found.length === 1) add(found[0], 'the only one installed');
  add(
    found.find((one) => KUBELET_CHAINS.test(one.saved)),
    'it holds the chains of kubelet',
  );
  add(
    found.find((one) => KUBE_CHAINS.test(one.saved)),
    'it holds KUBE-* chains',
  );
  const counts = found.map((one) => one.saved.match(/^-A /gm)?.length ?? 0);
  if (new Set(counts).size > 1) add(found[counts.indexOf(Math.max(...counts))], 'it holds more rules than the other');
  if (found.length > 1 && order.length === 0) {
    const standard = isUnloadedNft('iptables', options) ? 'nft' : await defaultBackend(run);
    add(
      found.find((one) => one.backend === standard),
      "the system's default",
    );
  }
  for (const candidate of found) add(candidate, 'the other one does not work here');
  return order;
}

async function defaultBackend(run: RunCommand): Promise<IptablesBackend> {
  try {
    return (await run('iptables', ['--version'])).stdout.includes('nf_tables') ? 'nft' : 'legacy';
  } catch (error) {
    if (error instanceof CommandError) return 'nft';
    throw error;
  }
}

/** For each family that does not work with this backend: why. */
async function probe(run: RunCommand, candidate: Candidate): Promise<Partial<Record<Family, string>>> {
  const failed: Partial<Record<Family, string>> = {};
  for (const family of FAMILIES) {
    const failure = await probeFamily(run, candidate, family);
    if (failure !== undefined) failed[family] = failure;
  }
  return failed;
}

/**
 * The start must not wait for the xtables lock, which a busy node's other programs may hold for long: tables that can
 * be read are proof enough, and who holds the lock has shown that the backend works.
 */
async function probeFamily(run: RunCommand, candidate: Candidate, family: Family): Promise<string | undefined> {
  const saved = candidate.texts[family] ?? '';
  const unseen = TABLES.filter((table) => !new RegExp(`^\\*${table}$`, 'm').test(saved));
  if (unseen.length === 0) return undefined;
  const input = unseen.map((table) => `*${table}\n:KUBE-PROXY-PROBE - [0:0]\n-X KUBE-PROXY-PROBE\nCOMMIT\n`).join('');
  try {
    const wait = isVersionAtLeast(candidate.version, [1, 6, 2]) ? ['-w', '1'] : [];
    await run(`${candidate.prefix[family]}-restore`, ['--noflush', ...wait], { input, timeout: PROGRAM_TIMEOUT });
    return undefined;
  } catch (error) {
    if (isLockHeld(error)) return undefined;
    if (error instanceof CommandError) return shortened(error);
    throw error;
  }
}

/** What a program said, in one line, without its advice to read the manual; cut between words. */
function shortened(error: CommandError): string {
  const [said = ''] = error.stderr.split(/^(?:Error occurred at line|Try )/m);
  const line = said.trim().replace(/\s+/g, ' ') || error.message;
  if (line.length <= MESSAGE_LENGTH) return line;
  return `${line.slice(0, line.lastIndexOf(' ', MESSAGE_LENGTH))} ...`;
}

function tools(
  candidate: Candidate,
  reason: string,
  families: readonly Family[],
  failures: DetectedIptables['failures'],
): DetectedIptables {
  const { backend, version, prefix } = candidate;
  const isModern = isVersionAtLeast(version, [1, 6, 2]);
  const commands = (family: Family) => ({ save: `${prefix[family]}-save`, restore: `${prefix[family]}-restore` });
  return {
    backend,
    version,
    randomFully: isModern,
    restoreWaits: isModern,
    commands: { 4: commands(4), 6: commands(6) },
    families,
    failures,
    reason,
  };
}

function isVersionAtLeast(version: string, least: readonly number[]): boolean {
  const parts = version.split('.').map(Number);
  for (const [i, wanted] of least.entries()) {
    const have = parts[i] ?? 0;
    if (have !== wanted) return have > wanted;
  }
  return true;
}

function missing(backend: IptablesBackend | undefined): IptablesMissingError {
  const name = backend === undefined ? 'iptables' : `iptables-${backend}`;
  return new IptablesMissingError(`${name} not found in PATH: install the iptables package (with both backends)`);
}
