import { type Family } from '../../values/address.js';
import { CommandError, type RunCommand } from '../command.js';
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

export interface DetectOptions {
  /** Use this backend, whatever the kernel holds. */
  readonly backend?: IptablesBackend;
  /** Also make and remove an empty chain, because iptables-nft cannot tell otherwise that the kernel lacks its tables. */
  readonly probe?: boolean;
}

/** No usable iptables: the message names what is missing and the fix. */
export class IptablesMissingError extends Error {
  override readonly name = 'IptablesMissingError';
}

/** Chains by which kubelet (1.17 and later, 1.24 and later) marks the backend that the node uses. */
const KUBELET_CHAINS = /^:(KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY) /m;
const KUBE_CHAINS = /^:KUBE-/m;
const TABLES = /^\*\w/m;
const PROBE = '*filter\n:KUBE-PROXY-PROBE - [0:0]\n-X KUBE-PROXY-PROBE\nCOMMIT\n';

interface Candidate {
  readonly backend: IptablesBackend;
  readonly prefix: Readonly<Record<Family, string>>;
  readonly version: string;
  /** What iptables-save and ip6tables-save print, joined. */
  readonly saved: string;
}

/**
 * Chooses between iptables-legacy and iptables-nft as the Kubernetes project's iptables-wrapper does: the backend that holds kubelet's
 * marker chains (nft first), else the one with KUBE-* chains, else the one with more rules, else the system's default.
 * At most 7 processes, once. Throws IptablesMissingError.
 */
export async function detectIptables(run: RunCommand, options: DetectOptions = {}): Promise<IptablesTools> {
  const candidates = await findCandidates(run);
  const wanted = options.backend ? candidates.filter((one) => one.backend === options.backend) : candidates;
  if (wanted.length === 0) throw missing(options.backend);
  const ranked = options.backend ? [{ candidate: wanted[0]!, reason: 'configured' }] : await rank(run, wanted);
  const failures: string[] = [];
  for (const { candidate, reason } of ranked) {
    const failure = options.probe ? await probe(run, candidate) : undefined;
    if (failure === undefined) return tools(candidate, reason);
    failures.push(`iptables-${candidate.backend}: ${failure}`);
  }
  throw new IptablesMissingError(
    `no iptables backend works with this kernel (load ip_tables and iptable_filter, or nf_tables): ${failures.join('; ')}`,
  );
}

async function findCandidates(run: RunCommand): Promise<Candidate[]> {
  const found: Candidate[] = [];
  for (const backend of ['nft', 'legacy'] as const) {
    const candidate = await readCandidate(run, { 4: `iptables-${backend}`, 6: `ip6tables-${backend}` });
    if (candidate !== undefined) found.push({ ...candidate, backend });
  }
  if (found.length > 0) return found;
  const only = await readCandidate(run, { 4: 'iptables', 6: 'ip6tables' });
  return only === undefined ? [] : [only];
}

async function readCandidate(run: RunCommand, prefix: Candidate['prefix']): Promise<Candidate | undefined> {
  try {
    const banner = (await run(prefix[4], ['--version'])).stdout;
    const version = /v?(\d+\.\d+(?:\.\d+)?)/.exec(banner)?.[1] ?? '0.0';
    const texts = [await savedText(run, `${prefix[4]}-save`), await savedText(run, `${prefix[6]}-save`)];
    return { backend: banner.includes('nf_tables') ? 'nft' : 'legacy', prefix, version, saved: texts.join('') };
  } catch (error) {
    if (error instanceof CommandError) return undefined;
    throw error;
  }
}

/** A backend that the kernel lacks, or IPv6 switched off, is a backend without rules. */
async function savedText(run: RunCommand, command: string): Promise<string> {
  try {
    return (await run(command, [])).stdout;
  } catch (error) {
    if (error instanceof CommandError && !error.missing) return '';
    throw error;
  }
}

async function rank(run: RunCommand, found: readonly Candidate[]) {
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
    const standard = await defaultBackend(run);
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

/**
 * Why this backend does not work, if so. The start must not wait for the xtables lock, which a busy node's other programs
 * may hold for long: tables that can be read are proof enough, and who holds the lock has shown that the backend works.
 */
async function probe(run: RunCommand, candidate: Candidate): Promise<string | undefined> {
  if (TABLES.test(candidate.saved)) return undefined;
  try {
    const wait = isVersionAtLeast(candidate.version, [1, 6, 2]) ? ['-w', '1'] : [];
    await run(`${candidate.prefix[4]}-restore`, ['--noflush', ...wait], { input: PROBE });
    return undefined;
  } catch (error) {
    if (isLockHeld(error)) return undefined;
    if (error instanceof CommandError) return error.stderr.trim().replace(/\s+/g, ' ').slice(0, 160) || error.message;
    throw error;
  }
}

function tools(candidate: Candidate, reason: string): IptablesTools {
  const { backend, version, prefix } = candidate;
  const isModern = isVersionAtLeast(version, [1, 6, 2]);
  const commands = (family: Family) => ({ save: `${prefix[family]}-save`, restore: `${prefix[family]}-restore` });
  return {
    backend,
    version,
    randomFully: isModern,
    restoreWaits: isModern,
    commands: { 4: commands(4), 6: commands(6) },
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
