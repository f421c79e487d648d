import { writeFileSync } from 'node:fs';
import { ConfigError } from '../config/errors.js';
import { formatVersionedConfig } from '../config/versioned.js';
import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type ConfigCheckOptions, type ConfigPrintOptions } from './options.js';

/**
 * Says all that is wrong with a configuration; 1 when the daemon would refuse it (`strict`: when there is a warning,
 * too).
 */
export async function runConfigCheck(options: ConfigCheckOptions, environment: Environment): Promise<number> {
  const source = options.configFile ?? 'command line';
  const { problems, warnings, message } = await check(options);
  const isValid = message === '' && !(options.strict && warnings.length > 0);
  if (options.json) {
    environment.out(`${JSON.stringify({ source, valid: isValid, problems, warnings })}\n`);
    return isValid ? 0 : 1;
  }
  for (const warning of warnings) environment.err(`${source}: warning: ${warning}\n`);
  if (message !== '') environment.err(`${message}\n`);
  if (isValid) environment.out(`${source}: valid\n`);
  return isValid ? 0 : 1;
}

async function check(options: ConfigCheckOptions): Promise<Pick<ConfigError, 'problems' | 'warnings' | 'message'>> {
  try {
    const { warnings } = await loadDaemonConfig(options);
    return { problems: [], warnings: [...options.warnings, ...warnings], message: '' };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const { problems, warnings, message } = error;
    return { problems, warnings: [...options.warnings, ...warnings], message };
  }
}

/**
 * Writes the configuration as it is understood, with every default. Rejects with ConfigError, or when the file cannot
 * be written.
 */
export async function runConfigPrint(options: ConfigPrintOptions, environment: Environment): Promise<number> {
  const { document, warnings } = await loadDaemonConfig(options);
  for (const warning of [...options.warnings, ...warnings]) environment.err(`warning: ${warning}\n`);
  const text = options.json ? `${JSON.stringify(document, undefined, 2)}\n` : formatVersionedConfig(document);
  if (options.writeTo === undefined) environment.out(text);
  else writeFileSync(options.writeTo, text);
  return 0;
}
