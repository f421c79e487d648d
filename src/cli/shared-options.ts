/** The options that every command takes, and what they say. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseGoDuration } from '../config/go-duration.js';
import { LOG_LEVELS, type LogLevel } from '../config/proxy-config.js';
import { levelOfVerbosity } from '../config/resolve.js';
import { type DaemonOptions } from '../daemon/daemon-options.js';
import { addKubeProxyFlags, readKubeProxyFlags } from './kube-proxy-flags.js';

/** Options of the daemon alone: the help of the other commands leaves them out. */
export const DAEMON_ONLY: ReadonlySet<string> = new Set(['drain-timeout', 'log-level', 'v']);
/** Options that choose another command: only the program's own help lists them. */
export const OTHER_COMMANDS: ReadonlySet<string> = new Set(['version', 'cleanup', 'init-only']);

/** What commander reads, by camel-cased name. */
export interface Values {
  readonly config?: string;
  readonly manifests?: string;
  readonly hostnameOverride?: string;
  readonly kubeconfig?: string;
  readonly master?: string;
  readonly drainTimeout?: number;
  readonly timeout?: number;
  readonly logLevel?: LogLevel;
  readonly v?: number;
  readonly cleanup?: boolean;
  readonly initOnly?: boolean;
  readonly writeConfigTo?: string;
  readonly [other: string]: unknown;
}

export function addSharedOptions(program: Command): void {
  program
    .option(
      '--config <file>',
      'KubeProxyConfiguration (v1alpha1) to use; kube-proxy flags that it replaces are ignored',
    )
    .option(
      '--manifests <directory>',
      'take Services, EndpointSlices and Nodes from YAML/JSON files, not an API server',
    )
    .option('--hostname-override <name>', "name of this node; default: the host's name")
    .option('--kubeconfig <file>', "kubeconfig to use; default: the configuration's, else in-cluster")
    .option('--master <url>', "address of the API server, instead of the kubeconfig's")
    .option(
      '--drain-timeout <duration>',
      'longest time that a removed endpoint keeps its connections (0: no limit)',
      duration,
    )
    .addOption(new Option('--log-level <level>', 'least severe level to log').choices(LOG_LEVELS))
    .addOption(new Option('-v, --v <number>', "klog's verbosity: below 4 info, 4 debug, 6 trace").argParser(verbosity))
    .option('--cleanup', 'same as the command cleanup')
    .addOption(new Option('--no-cleanup').hideHelp())
    .option('--init-only', 'same as preflight --fix: what needs more privileges than NET_ADMIN, then exit')
    .addOption(new Option('--no-init-only').hideHelp())
    .addOption(new Option('--write-config-to <file>', 'same as config print, into a file').hideHelp());
  addKubeProxyFlags(program);
}

export function readSharedOptions(values: Values): DaemonOptions {
  const { document, off, used, warnings } = readKubeProxyFlags(values);
  const hasFile = values.config !== undefined;
  // kube-proxy ignores these flags too when there is a file; a flag that wins here alone would surprise.
  const ignored = hasFile ? used.map((flag) => `--${flag} is ignored because --config is given`) : [];
  return {
    configFile: values.config,
    document,
    manifests: values.manifests,
    overrides: {
      hostnameOverride: values.hostnameOverride,
      kubeconfig: values.kubeconfig,
      master: values.master,
      drainTimeoutMs: values.drainTimeout,
      logLevel: values.logLevel ?? (values.v === undefined ? undefined : levelOfVerbosity(values.v)),
      ...(hasFile ? {} : off),
    },
    warnings: [...warnings, ...ignored],
  };
}

/** A Go duration in milliseconds, as commander takes an argument. Throws InvalidArgumentError. */
export function duration(text: string): number {
  const milliseconds = parseGoDuration(text);
  if (milliseconds === undefined || milliseconds < 0)
    throw new InvalidArgumentError('It is a duration such as 15m or 90s.');
  return milliseconds;
}

function verbosity(text: string): number {
  if (!/^[0-9]{1,9}$/.test(text)) throw new InvalidArgumentError('It is a number such as 2.');
  return Number(text);
}
