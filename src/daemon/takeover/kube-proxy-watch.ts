import { type Logger } from 'pino';
import { type Clock } from '../../time/clock.js';
import { type RulesOutcome } from '../../reconcile/rules-keeper.js';
import { type Metrics } from '../../serve/metrics.js';
import { SIGN_SOURCES, type Sign } from './kube-proxy-signs.js';

export interface KubeProxyWatchOptions {
  readonly look: () => Promise<readonly Sign[]>;
  /** The tables of its nftables mode are there again, after they were removed. */
  readonly areTablesBack: () => boolean;
  readonly clock: Clock;
  /** Uniform in [0, 1). */
  readonly random?: () => number;
  readonly log: Pick<Logger, 'warn' | 'info'>;
  readonly metrics: Pick<Metrics, 'kubeProxyRunning'>;
}

const LOOK_MS = 60_000;
/** A chain that comes back is a sign for so long, ms. */
const RULES_LAST_MS = 300_000;
/** kube-proxy in its iptables based modes makes this chain, looks after it, and makes it again; nobody else does. */
const CANARY = 'KUBE-PROXY-CANARY';

/**
 * Notices a kube-proxy that runs beside this program: each undoes what the other does. Said once in the log, and by a
 * metric and a note for as long as it lasts. Looks at start and about once a minute; what the rules show is told when
 * they are checked.
 */
export class KubeProxyWatch {
  readonly #options: KubeProxyWatchOptions;
  /** What the last look saw, and all that is known. */
  #seen: readonly Sign[] = [];
  #signs: readonly Sign[] = [];
  #cancel: () => void = () => undefined;
  #isClosed = false;
  /** When the chain came back, the last two times. */
  #canaries: readonly number[] = [];
  #looking: Promise<void> = Promise.resolve();

  constructor(options: KubeProxyWatchOptions) {
    this.#options = options;
    this.#report();
  }

  /** For the status page; undefined when none is seen. */
  get note(): string | undefined {
    if (this.#signs.length === 0) return undefined;
    const seen = this.#signs.map(({ text }) => text).join('; ');
    return `kube-proxy runs on this node, too, and each undoes what the other does: ${seen}. Take it off this node`;
  }

  start(): void {
    this.#looking = this.#look();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await this.#looking;
  }

  /** What every check of the rules found. */
  rulesChecked({ differences, drift }: Pick<RulesOutcome, 'differences' | 'drift'>): void {
    // What was there before this program's first rules is what was left behind.
    if (drift.total === 0 || !differences.some(({ chain, kind }) => chain === CANARY && kind === 'extra')) return;
    this.#canaries = [...this.#canaries.slice(-1), this.#options.clock.now()];
    if (!this.#isClosed) this.#tell();
  }

  async #look(): Promise<void> {
    const { look, clock, random = Math.random } = this.#options;
    const signs = await look();
    if (this.#isClosed) return;
    this.#seen = signs;
    this.#tell();
    this.#cancel = clock.after(LOOK_MS * (0.8 + 0.4 * random()), () => void (this.#looking = this.#look()));
  }

  #tell(): void {
    const before = this.note;
    this.#signs = [...this.#seen, ...this.#ruleSigns()];
    this.#report();
    this.#log(before);
  }

  /** Once may be somebody who loaded an old dump of the rules. */
  #ruleSigns(): Sign[] {
    const { areTablesBack, clock } = this.#options;
    const [first, last] = this.#canaries;
    const isChainBack = last !== undefined && clock.now() - Math.min(first!, last) < 2 * RULES_LAST_MS;
    const signs: Sign[] = [];
    if (isChainBack && clock.now() - last < RULES_LAST_MS)
      signs.push({ source: 'rules', text: `its chain ${CANARY} comes back whenever it is removed` });
    if (areTablesBack()) signs.push({ source: 'rules', text: 'its nftables tables are back' });
    return signs;
  }

  #report(): void {
    for (const source of SIGN_SOURCES)
      this.#options.metrics.kubeProxyRunning(
        source,
        this.#signs.some((sign) => sign.source === source),
      );
  }

  #log(before: string | undefined): void {
    const { log } = this.#options;
    const { note } = this;
    if (note !== undefined && before === undefined) log.warn(note);
    else if (note === undefined && before !== undefined) log.info('the other kube-proxy is gone');
  }
}
