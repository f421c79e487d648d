import { isDeepStrictEqual } from 'node:util';
import { type LoadedConfig, type LoadedConfigFile, loadConfigText } from '../config/load.js';
import { type ConfigWatch, watchConfig } from '../config/watch.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { type ConfigOverrides } from '../config/resolve.js';
import { errorMessage } from '../values/errors.js';

export interface ConfigChangeOptions {
  readonly file: string;
  readonly overrides: ConfigOverrides;
  /** What the process began with. */
  readonly loaded: LoadedConfigFile;
  readonly log: {
    info(fields: object, message: string): void;
    error(fields: object, message: string): void;
  };
  /** A gauge: the file holds something that cannot be used. */
  readonly onRefused: (isRefused: boolean) => void;
  /** Called once: the file holds another configuration that can be used, but only by a process that begins with it. */
  readonly onRestart: () => void;
  readonly settleMs?: number;
}

/** Takes a changed configuration over; throws, having changed nothing, where that cannot be. */
export type ApplyConfig = (next: LoadedConfig) => void;

/**
 * What may change while the process runs. The rest (where it listens, whom it asks, who it is) only a start can set;
 * docs/configuration.md has the list.
 */
const TAKEN_OVER: ReadonlySet<keyof ProxyConfig> = new Set([
  ...(['scheduler', 'excludeCIDRs', 'strictARP', 'allowsExternalIPs', 'nodePortAddresses', 'conntrack'] as const),
  ...(['ipvsTcpTimeoutMs', 'ipvsTcpFinTimeoutMs', 'ipvsUdpTimeoutMs', 'drainTimeoutMs'] as const),
  ...(['masqueradeAll', 'masqueradeBit', 'detectLocal', 'acceptServiceTraffic'] as const),
  ...(['syncPeriodMs', 'minSyncPeriodMs', 'configSyncPeriodMs'] as const),
  ...(['statusAccess', 'oomScoreAdj', 'logLevel', 'enableProfiling'] as const),
]);

/**
 * Watches the configuration file. A change is taken over while everything runs on, or ends the process, to be started
 * anew, where it concerns what only the start can set. One that cannot be used is reported, and what runs goes on: a
 * typo in a ConfigMap would else end the daemons of a whole cluster at once, and none of them would start again. One
 * that means the same changes nothing.
 */
export class ConfigChange {
  #problem: string | undefined;
  #watch: ConfigWatch | undefined;
  #loaded: LoadedConfig;
  #apply: ApplyConfig | undefined;

  readonly #options: ConfigChangeOptions;

  constructor(options: ConfigChangeOptions) {
    this.#options = options;
    this.#loaded = options.loaded;
  }

  /** A note for the status page; undefined when the file is in order. */
  get problem(): string | undefined {
    return this.#problem;
  }

  async start(): Promise<void> {
    const { file, loaded, settleMs } = this.#options;
    const onChange = (content: string): 'stop' | 'go on' => this.#changed(content);
    this.#watch = await watchConfig(file, {
      onChange,
      initialContent: loaded.content,
      ...(settleMs === undefined ? {} : { settleMs }),
    });
  }

  /** From now on a change is handed to `apply`; until then every one ends the process. */
  takeOverBy(apply: ApplyConfig): void {
    this.#apply = apply;
  }

  close(): void {
    this.#watch?.close();
  }

  #accepted(): void {
    this.#problem = undefined;
    this.#options.onRefused(false);
  }

  #changed(content: string): 'stop' | 'go on' {
    const { file, overrides, log, onRefused, onRestart } = this.#options;
    const before = this.#loaded;
    try {
      const next = loadConfigText(content, file, overrides);
      const fields = changedFields(before.config, next.config);
      const needing = fields.filter((field) => !TAKEN_OVER.has(field));
      if (fields.length > 0 && (this.#apply === undefined || needing.length > 0)) {
        log.info(
          { file, fields: needing.length > 0 ? needing : fields },
          'the configuration changed: ending, to be started with the new one',
        );
        this.#accepted();
        onRestart();
        return 'stop';
      }
      // The document may differ in what is not heeded here, and is shown as it is.
      this.#apply?.(next);
      this.#loaded = next;
      this.#accepted();
      if (fields.length === 0) log.info({ file }, 'the configuration file changed, and means the same as before');
      else log.info({ file, fields }, 'the configuration changed and was taken over');
    } catch (error) {
      this.#problem = `the configuration file cannot be used, the one before runs on: ${errorMessage(error)}`;
      onRefused(true);
      log.error({ file, error: errorMessage(error) }, 'the changed configuration is refused; the one before runs on');
    }
    return 'go on';
  }
}

function changedFields(before: ProxyConfig, next: ProxyConfig): (keyof ProxyConfig)[] {
  const fields = Object.keys({ ...before, ...next }) as (keyof ProxyConfig)[];
  return fields.filter((field) => !isDeepStrictEqual(before[field], next[field]));
}
