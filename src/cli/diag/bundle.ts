/** Parts put together: each for itself, bounded in time and in size, so that one that fails costs only itself. */
import { errorMessage } from '../../values/errors.js';
import { redact } from './redact.js';
import { type TarFile, tarArchive } from './tar.js';

/** One file of the bundle. */
export interface Part {
  readonly file: string;
  /** For whoever opens the bundle. */
  readonly about: string;
  /** Rejects where it cannot be had. */
  readonly collect: (signal: AbortSignal) => Promise<string> | string;
}

export interface BundleLimits {
  /** Milliseconds that one part may take. */
  readonly partMs: number;
  /** Characters of one part, and of all together; what is beyond is cut at a line's end, and that is said. */
  readonly partLength: number;
  readonly totalLength: number;
}

/** Twenty parts in some minutes at worst; a bundle that fits into a ticket, packed. */
export const LIMITS: BundleLimits = { partMs: 30_000, partLength: 4 << 20, totalLength: 32 << 20 };

export interface Bundle {
  readonly archive: Buffer;
  /** `status.txt: no answer from the daemon`, for each part that could not be had. */
  readonly failures: readonly string[];
}

export interface BundleOptions {
  readonly folder: string;
  readonly now: Date;
  readonly secrets: readonly string[];
  readonly stop: AbortSignal;
  readonly limits?: BundleLimits;
}

/** Collects the parts one after the other. Rejects only when `stop` aborts. */
export async function collectBundle(parts: readonly Part[], options: BundleOptions): Promise<Bundle> {
  const { folder, now, secrets, stop, limits = LIMITS } = options;
  const files: TarFile[] = [];
  const failures: string[] = [];
  const index: string[] = [];
  let room = limits.totalLength;
  for (const { file, about, collect } of parts) {
    stop.throwIfAborted();
    let text: string;
    try {
      text = redact(await inTime(collect, limits.partMs, stop), secrets);
    } catch (error) {
      stop.throwIfAborted();
      const reason = redact(errorMessage(error), secrets).replaceAll('\n', ' ');
      failures.push(`${file}: ${reason}`);
      index.push(`${file}: MISSING: ${reason}`);
      continue;
    }
    const kept = cut(text, Math.min(limits.partLength, room));
    room -= kept.length;
    files.push({ path: `${folder}/${file}`, text: kept });
    index.push(`${file}: ${about}${kept.length < text.length ? ` (cut, ${text.length} characters in all)` : ''}`);
  }
  const heading = `made ${now.toISOString()}; no Secrets, no environment, no credentials; names of Services and addresses are in it`;
  files.unshift({ path: `${folder}/index.txt`, text: `${heading}\n\n${index.join('\n')}\n` });
  return { archive: tarArchive(files, now), failures };
}

/** At the end of a line, and never within a character. */
function cut(text: string, length: number): string {
  if (text.length <= length) return text;
  const end = text.lastIndexOf('\n', length);
  return `${text.slice(0, Math.max(end, 0))}\n`;
}

async function inTime(collect: Part['collect'], ms: number, stop: AbortSignal): Promise<string> {
  const late = new AbortController();
  // Not AbortSignal.timeout: its timer would not keep a process alive that waits for nothing else.
  const timer = setTimeout(() => late.abort(), ms);
  const signal = AbortSignal.any([stop, late.signal]);
  const aborted = new Promise<never>((_resolve, reject) => {
    const onAbort = (): void => reject(new Error(stop.aborted ? 'stopped' : `not done within ${ms / 1000} s`));
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([Promise.resolve(collect(signal)), aborted]);
  } finally {
    clearTimeout(timer);
  }
}
