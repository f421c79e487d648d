import { type Log } from '../values/log.js';
import { type FSWatcher, watch } from 'node:fs';
import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage } from '../values/errors.js';
import { type WallClock, systemClock } from '../time/clock.js';
import { toKubeError } from './errors.js';
import { ObjectFeed, type ObjectFeedOptions } from './object-feed.js';
import { type ManifestKind } from './manifest-defaults.js';
import { type ManifestObject, parseManifest } from './manifest-file.js';
import { Turns } from '../time/turns.js';

export interface ManifestSourceOptions<Service, Slice, Node> {
  readonly directory: string;
  readonly services: ObjectFeedOptions<Service>;
  readonly endpointSlices: ObjectFeedOptions<Slice>;
  /** Only this Node is delivered. */
  readonly nodeName: string;
  readonly node: ObjectFeedOptions<Node>;
  readonly log: Log;
  /**
   * Called for each file that is not used, or is used as it was before, and for each object of a kind that is not
   * served.
   */
  readonly onSkipped?: (file: string, what: string, reason: SkipReason) => void;
  readonly clock?: WallClock;
  /** The directory is read again this often even when the kernel reported no change (network file systems). */
  readonly rescanMs?: number;
}

interface KnownFile {
  /** mtime and size: what decides whether a file is read again. */
  readonly version: string;
  readonly objects: readonly ManifestObject[];
}

export type SkipReason = 'broken' | 'not_served' | 'duplicate';

/** What health wants to know. */
export interface ManifestState {
  readonly isSynced: boolean;
  /** Last time the directory could be read, in milliseconds since the epoch; 0 for never. */
  readonly lastContactAt: number;
  readonly lastError: string | undefined;
  readonly files: number;
  readonly brokenFiles: number;
}

/** What it costs to deliver one object (time/turns.ts). */
const STEPS_PER_OBJECT = 5;

/** Editors and kubelet's atomic symlink swaps make several events for one change. */
const SETTLE_MS = 50;

/**
 * Serves a directory of manifests as if it were the API server: every *.yaml, *.yml and *.json in it, watched for
 * changes. A file that does not parse keeps the objects it had before. When two files define one object the first by
 * name wins.
 */
export class ManifestSource<Service, Slice, Node> {
  readonly #feeds: Readonly<Record<ManifestKind, ObjectFeed<unknown>>>;
  readonly #clock: WallClock;
  #files = new Map<string, KnownFile>();
  /** JSON of what the sinks hold, by kind and key. */
  #delivered = new Map<string, string>();
  readonly #broken = new Map<string, string>();
  #watcher: FSWatcher | undefined;
  #cancelTimer = (): void => undefined;
  #isClosed = false;
  #running: Promise<void> | undefined;
  #isAgain = false;
  #lastContactAt = 0;
  #lastError: string | undefined;

  readonly #options: ManifestSourceOptions<Service, Slice, Node>;

  constructor(options: ManifestSourceOptions<Service, Slice, Node>) {
    this.#options = options;
    this.#feeds = {
      Service: new ObjectFeed(options.services as ObjectFeedOptions<unknown>),
      EndpointSlice: new ObjectFeed(options.endpointSlices as ObjectFeedOptions<unknown>),
      Node: new ObjectFeed(options.node as ObjectFeedOptions<unknown>),
    };
    this.#clock = options.clock ?? systemClock;
  }

  /** Reads the directory and goes on watching it; rejects with KubeError when it cannot be read at all. */
  async start(): Promise<void> {
    try {
      await readdir(this.#options.directory);
    } catch (error) {
      throw toKubeError('read manifests', error);
    }
    this.#watch();
    await this.rescan();
    this.#scheduleRescan();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer();
    this.#watcher?.close();
    await this.#running;
  }

  state(): ManifestState {
    return {
      isSynced: this.#feeds.Service.isSynced,
      lastContactAt: this.#lastContactAt,
      lastError: this.#lastError ?? [...this.#broken.values()][0],
      files: this.#files.size,
      brokenFiles: this.#broken.size,
    };
  }

  /** Reads what changed; calls that come while one runs make it run once more. */
  rescan(): Promise<void> {
    this.#isAgain = true;
    this.#running ??= this.#rescanLoop().finally(() => (this.#running = undefined));
    return this.#running;
  }

  async #rescanLoop(): Promise<void> {
    while (this.#isAgain && !this.#isClosed) {
      this.#isAgain = false;
      try {
        await this.#readDirectory();
        this.#lastError = undefined;
        this.#lastContactAt = this.#clock.wall();
      } catch (error) {
        // The directory is gone for a moment, or for good: what it held stays until it can be read again.
        const message = `read manifests: ${errorMessage(error)}`;
        if (message !== this.#lastError) this.#options.log.warn({ directory: this.#options.directory }, message);
        this.#lastError = message;
      }
    }
  }

  async #readDirectory(): Promise<void> {
    const { directory } = this.#options;
    const names = (await readdir(directory)).filter((name) => /^[^.].*\.(ya?ml|json)$/.test(name)).sort();
    const files = new Map<string, KnownFile>();
    for (const name of names) {
      const file = await this.#readFile(name);
      if (file !== undefined) files.set(name, file);
    }
    for (const name of this.#broken.keys()) if (!names.includes(name)) this.#broken.delete(name);
    if (this.#isClosed) return;
    const isSame =
      files.size === this.#files.size && [...files].every(([name, file]) => this.#files.get(name) === file);
    this.#files = files;
    if (!isSame || !this.#feeds.Service.isSynced) await this.#deliver(files);
  }

  /** The file as it is now; as it was before when it cannot be read or parsed. */
  async #readFile(name: string): Promise<KnownFile | undefined> {
    const path = join(this.#options.directory, name);
    const known = this.#files.get(name);
    try {
      const { mtimeMs, size, ino } = await stat(path);
      const version = `${mtimeMs} ${size} ${ino}`;
      if (known?.version === version) return known;
      const parsed = parseManifest(await readFile(path, 'utf8'));
      if ('error' in parsed) return this.#keepBroken(name, parsed.error, { version, objects: known?.objects ?? [] });
      if (this.#broken.delete(name)) this.#options.log.info({ file: path }, 'manifest is good again');
      for (const what of parsed.ignored) {
        this.#options.log.info({ file: path, object: what }, 'manifest kind not served');
        this.#options.onSkipped?.(path, what, 'not_served');
      }
      return { version, objects: parsed.objects };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined; // deleted since readdir
      return this.#keepBroken(name, errorMessage(error), known ?? { version: '', objects: [] });
    }
  }

  #keepBroken(name: string, reason: string, kept: KnownFile): KnownFile {
    const file = join(this.#options.directory, name);
    const message = `${file}: ${reason}`;
    if (this.#broken.get(name) !== message) {
      const fields = { file, reason, objectsKept: kept.objects.length };
      this.#options.log.warn(fields, `manifest is broken, its last good objects stay: ${message}`);
      this.#options.onSkipped?.(file, reason, 'broken');
    }
    this.#broken.set(name, message);
    return kept;
  }

  /** A list per kind; only objects that changed are delivered anew, and those that are gone are deleted. */
  async #deliver(files: ReadonlyMap<string, KnownFile>): Promise<void> {
    const desired = new Map<string, { readonly owner: string; readonly manifest: ManifestObject }>();
    for (const [name, { objects }] of files) {
      for (const manifest of objects) this.#claim(desired, name, manifest);
    }
    const delivered = new Map<string, string>();
    const turns = new Turns();
    for (const kind of ['Node', 'Service', 'EndpointSlice'] as const) {
      const feed = this.#feeds[kind];
      feed.beginList();
      for (const [identity, { manifest }] of desired) {
        if (manifest.kind !== kind) continue;
        const { json, key } = manifest;
        if (this.#delivered.get(identity) === json) feed.keep(key);
        else feed.put(JSON.parse(json));
        delivered.set(identity, json);
        if (turns.spend(STEPS_PER_OBJECT)) await turns.next();
        if (this.#isClosed) return;
      }
      feed.endList();
    }
    this.#delivered = delivered;
  }

  #claim(
    desired: Map<string, { readonly owner: string; readonly manifest: ManifestObject }>,
    name: string,
    manifest: ManifestObject,
  ): void {
    if (manifest.kind === 'Node' && manifest.key !== this.#options.nodeName) return;
    const identity = `${manifest.kind} ${manifest.key}`;
    const owner = desired.get(identity)?.owner;
    if (owner === undefined) {
      desired.set(identity, { owner: name, manifest });
      return;
    }
    this.#options.onSkipped?.(
      join(this.#options.directory, name),
      `${identity}: defined in ${owner} already`,
      'duplicate',
    );
    this.#options.log.warn(
      { object: identity, file: name },
      `${identity} is defined in ${owner} already, not used from ${name}`,
    );
  }

  #watch(): void {
    try {
      this.#watcher = watch(this.#options.directory, () => this.#soon());
      this.#watcher.on('error', (error) => {
        this.#options.log.warn({ reason: errorMessage(error) }, 'directory watch failed, reading it periodically');
        this.#watcher?.close();
      });
    } catch (error) {
      this.#options.log.warn({ reason: errorMessage(error) }, 'directory cannot be watched, reading it periodically');
    }
  }

  #soon(): void {
    if (this.#isClosed) return;
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.after(SETTLE_MS, () => void this.rescan().then(() => this.#scheduleRescan()));
  }

  #scheduleRescan(): void {
    if (this.#isClosed) return;
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.after(
      this.#options.rescanMs ?? 10_000,
      () => void this.rescan().then(() => this.#scheduleRescan()),
    );
  }
}
