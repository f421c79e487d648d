import { isDeepStrictEqual } from 'node:util';
import { type LoadedConfigFile, loadConfigText } from '../config/load.js';
import { type ConfigWatch, watchConfig } from '../config/watch.js';
import { type ConfigOverrides } from '../config/resolve.js';
import { errorMessage } from '../values/errors.js';

export interface ConfigChangeOptions {
  readonly file: string;
  readonly overrides: ConfigOverrides;
  /** What runs now. */
  readonly loaded: LoadedConfigFile;
  readonly log: {
    info(fields: object, message: string): void;
    error(fields: object, message: string): void;
  };
  /** A gauge: the file holds something that cannot be used. */
  readonly onRefused: (isRefused: boolean) => void;
  /** Called once: the file holds another configuration that can be used. */
  readonly onChanged: () => void;
  readonly settleMs?: number;
}

/**
 * Watches the configuration file. One that cannot be used is reported, and what runs goes on: a typo in a ConfigMap
 * would else end the daemons of a whole cluster at once, and none of them would start again. One that means the same
 * changes nothing.
 */
export class ConfigChange {
  #problem: string | undefined;
  #watch: ConfigWatch | undefined;

  readonly #options: ConfigChangeOptions;

  constructor(options: ConfigChangeOptions) {
    this.#options = options;
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

  close(): void {
    this.#watch?.close();
  }

  #changed(content: string): 'stop' | 'go on' {
    const { file, overrides, loaded, log, onRefused, onChanged } = this.#options;
    try {
      const { config } = loadConfigText(content, file, overrides);
      this.#problem = undefined;
      onRefused(false);
      if (isDeepStrictEqual(config, loaded.config)) {
        log.info({ file }, 'the configuration file changed, and means the same as before');
        return 'go on';
      }
    } catch (error) {
      this.#problem = `the configuration file cannot be used, the one before runs on: ${errorMessage(error)}`;
      onRefused(true);
      log.error({ file, error: errorMessage(error) }, 'the changed configuration is refused; the one before runs on');
      return 'go on';
    }
    log.info({ file }, 'the configuration changed: ending, to be started with the new one');
    onChanged();
    return 'stop';
  }
}
