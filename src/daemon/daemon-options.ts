import { type LoadedConfig, type LoadedConfigFile, loadConfigDocument, loadConfigFile } from '../config/load.js';
import { type ConfigOverrides } from '../config/resolve.js';

/** What the data plane is given by the command line; every command knows it. */
export interface DaemonOptions {
  /** The configuration file; undefined when the configuration is in the flags alone. */
  readonly configFile: string | undefined;
  /** The configuration that the flags make, for when there is no file. */
  readonly document: Record<string, unknown>;
  readonly overrides: ConfigOverrides;
  /** A directory of manifests instead of an API server. */
  readonly manifests: string | undefined;
  /** Flags without effect, one line each, for the log. */
  readonly warnings: readonly string[];
}

/** Loads the configuration that the command line names; with its text when that is a file. Throws ConfigError. */
export async function loadDaemonConfig(options: DaemonOptions): Promise<LoadedConfig | LoadedConfigFile> {
  const { configFile, document, overrides } = options;
  if (configFile !== undefined) return loadConfigFile(configFile, overrides);
  return loadConfigDocument(document, 'command line', overrides);
}
