import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { parseGoDuration } from '../config/go-duration.js';
import { LOG_LEVELS, type LogLevel } from '../config/proxy-config.js';
import { levelOfVerbosity } from '../config/resolve.js';
import { type DaemonOptions } from '../daemon/daemon-options.js';
import { BOOLEAN_FLAGS, addKubeProxyFlags, readKubeProxyFlags } from './kube-proxy-flags.js';

export interface OutputOptions extends DaemonOptions {
  readonly json: boolean;
}

export interface PreflightOptions extends OutputOptions {
  /** Load modules and write sysctls instead of only reporting. */
  readonly fix: boolean;
}

export interface CleanupOptions extends DaemonOptions {
  /** Only what kube-proxy's IPVS mode would leave behind. */
  readonly ownOnly: boolean;
}

/** One function per command; each resolves to the exit code. */
export interface CommandHandlers {
  run(options: DaemonOptions): Promise<number>;
  cleanup(options: CleanupOptions): Promise<number>;
  status(options: OutputOptions): Promise<number>;
  verify(options: OutputOptions): Promise<number>;
  plan(options: OutputOptions): Promise<number>;
  preflight(options: PreflightOptions): Promise<number>;
}

export interface CommandOutput {
  out(text: string): void;
  err(text: string): void;
}

/**
 * Parses the arguments (without node and the script), runs one handler and resolves to the exit code: the handler's,
 * 0 after --help and --version, 1 after a wrong argument, which has been explained on `output.err`. What a handler
 * throws is thrown.
 */
export async function runCommandLine(
  args: readonly string[],
  handlers: CommandHandlers,
  version: string,
  output: CommandOutput,
): Promise<number> {
  let exitCode = 0;
  const program = buildProgram(version, handlers, (code) => (exitCode = code));
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({
      writeOut: (text) => output.out(text),
      writeErr: (text) => output.err(text),
    });
  }
  try {
    await program.parseAsync(normaliseGoFlags(args), { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode;
    throw error;
  }
  return exitCode;
}

/** Go's `-v=2` and `--masquerade-all=true` as commander understands them; `=false` leaves the default, false, in place. */
export function normaliseGoFlags(args: readonly string[]): string[] {
  return args.flatMap((argument) => {
    const [, name = '', value = ''] = /^--?([a-z][a-z-]*)=(.*)$/s.exec(argument) ?? [];
    if (name === 'v') return [`--v=${value}`];
    if (!BOOLEAN_FLAGS.has(name) || !/^(true|false|1|0|t|f)$/i.test(value)) return [argument];
    return /^[t1]/i.test(value) ? [`--${name}`] : [];
  });
}

type Report = (exitCode: number) => void;

function buildProgram(version: string, handlers: CommandHandlers, report: Report): Command {
  const program = new Command('kube-proxy-ipvs')
    .description('Keeps the IPVS tables of this node in line with the Services of a Kubernetes cluster.')
    .version(version)
    .showHelpAfterError('(--help lists the options)')
    .addHelpText('after', EXAMPLES);
  addOptions(program);
  program.action(async (_values: unknown, command: Command) => {
    const values = command.opts<Values>();
    const options = readOptions(values);
    if (values.cleanup === true) report(await handlers.cleanup({ ...options, ownOnly: false }));
    else if (values.initOnly === true) report(await handlers.preflight({ ...options, json: false, fix: true }));
    else report(await handlers.run(options));
  });
  addCommands(program, handlers, report);
  return program;
}

function addOptions(program: Command): void {
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
    .option('--drain-timeout <duration>', 'longest time that a removed endpoint keeps its connections (15m)', duration)
    .addOption(new Option('--log-level <level>', 'least severe level to log').choices(LOG_LEVELS))
    .addOption(new Option('-v, --v <number>', "klog's verbosity: below 4 info, 4 debug, 6 trace").argParser(verbosity))
    .option('--cleanup', 'same as the command cleanup')
    .option('--init-only', 'same as preflight --fix: what needs more privileges than NET_ADMIN, then exit');
  addKubeProxyFlags(program);
}

function addCommands(program: Command, handlers: CommandHandlers, report: Report): void {
  const add = (name: string, description: string, action: (values: Values) => Promise<number>): Command =>
    program
      .command(name)
      .description(description)
      .configureHelp({ showGlobalOptions: true })
      .showHelpAfterError('(--help lists the options)')
      .action(async (_values: unknown, command: Command) => report(await action(command.optsWithGlobals<Values>())));
  const output = (values: Values): OutputOptions => ({ ...readOptions(values), json: values.json === true });

  program
    .command('run')
    .description('run the daemon; the same as giving no command')
    .action(async (_values: unknown, command: Command) =>
      report(await handlers.run(readOptions(command.optsWithGlobals<Values>()))),
    );
  add(
    'cleanup',
    "remove everything that this program or kube-proxy's IPVS mode made; excludeCIDRs are kept",
    (values) => handlers.cleanup({ ...readOptions(values), ownOnly: values.ownOnly === true }),
  ).option('--own-only', 'leave what kube-proxy in IPVS mode takes over; run it once kube-proxy has synced');
  add('status', 'show what the daemon on this node is doing', (values) => handlers.status(output(values))).option(
    ...JSON_OPTION,
  );
  add('verify', 'compare the kernel with the desired state; exit code 2 when they differ', (values) =>
    handlers.verify(output(values)),
  ).option(...JSON_OPTION);
  add('plan', 'show what a sync would change, without changing it', (values) => handlers.plan(output(values))).option(
    ...JSON_OPTION,
  );
  add('preflight', 'check modules, schedulers, permissions, iptables and sysctls', (values) =>
    handlers.preflight({ ...output(values), fix: values.fix === true }),
  )
    .option(...JSON_OPTION)
    .option('--fix', 'load missing modules and write sysctls (needs SYS_MODULE and a writable /proc/sys)');
}

const JSON_OPTION = ['--json', 'print JSON'] as const;

interface Values {
  readonly config?: string;
  readonly manifests?: string;
  readonly hostnameOverride?: string;
  readonly kubeconfig?: string;
  readonly master?: string;
  readonly drainTimeout?: number;
  readonly logLevel?: LogLevel;
  readonly v?: number;
  readonly cleanup?: boolean;
  readonly ownOnly?: boolean;
  readonly initOnly?: boolean;
  readonly json?: boolean;
  readonly fix?: boolean;
  readonly [kubeProxyFlag: string]: unknown;
}

function readOptions(values: Values): DaemonOptions {
  const { document, used, warnings } = readKubeProxyFlags(values);
  // kube-proxy ignores these flags too when there is a file; a flag that wins here alone would surprise.
  const ignored =
    values.config === undefined ? [] : used.map((flag) => `--${flag} is ignored because --config is given`);
  const off = (name: string): string | undefined =>
    values.config === undefined && values[name] === '' ? '' : undefined;
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
      healthzBindAddress: off('healthzBindAddress'),
      metricsBindAddress: off('metricsBindAddress'),
    },
    warnings: [...warnings, ...ignored],
  };
}

function duration(text: string): number {
  const milliseconds = parseGoDuration(text);
  if (milliseconds === undefined || milliseconds < 0)
    throw new InvalidArgumentError('It is a duration such as 15m or 90s.');
  return milliseconds;
}

function verbosity(text: string): number {
  if (!/^[0-9]{1,9}$/.test(text)) throw new InvalidArgumentError('It is a number such as 2.');
  return Number(text);
}

const EXAMPLES = `
Examples:
  kube-proxy-ipvs --config /var/lib/kube-proxy/config.conf --hostname-override "$NODE_NAME"
                                      run as the DaemonSet does
  kube-proxy-ipvs --manifests ./manifests --hostname-override node-0 --cluster-cidr 10.244.0.0/16
                                      run without an API server
  kube-proxy-ipvs preflight           is this node fit for it?
  kube-proxy-ipvs plan --config FILE  what would a sync change?
  kube-proxy-ipvs status              what is the daemon doing?
  kube-proxy-ipvs cleanup             take everything out of the kernel again

All flags of kube-proxy 1.36 but --write-config-to are accepted; without --config those that IPVS mode uses have
their effect.`;
