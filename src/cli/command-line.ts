/** From arguments to one handler's exit code: the program and its commands, as commander declares them. */
import { arch, platform, versions } from 'node:process';
import { Command, CommanderError, Option } from 'commander';
import { type Environment } from '../daemon/environment.js';
import { normaliseGoFlags } from './go-flags.js';
import { BOOLEAN_FLAGS, describeKubeProxyFlags } from './kube-proxy-flags.js';
import { addNodeCommands, timeoutOption } from './node-commands.js';
import { type CommandHandlers, type ComparisonOptions, type OutputOptions } from './options.js';
import { addCompletion, addSeeCommands } from './see-commands.js';
import { jsonOption, outputOption } from './see-options.js';
import { DAEMON_ONLY, OTHER_COMMANDS, type Values, addSharedOptions, readSharedOptions } from './shared-options.js';
import { nearestWord } from './suggest.js';

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
  output: CommandOutput & Pick<Environment, 'build'>,
): Promise<number> {
  let exitCode = 0;
  const program = buildProgram(
    handlers,
    (code) => (exitCode = code),
    (text) => output.out(text),
  );
  const words = versionFlags(normaliseGoFlags(args, BOOLEAN_FLAGS), program, version, output.build);
  for (const command of withCommands(program)) {
    command.exitOverride().configureOutput({
      writeOut: (text) => output.out(text),
      writeErr: (text) => output.err(text),
    });
  }
  try {
    await program.parseAsync(helpOf(words, program), { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode;
    throw error;
  }
  return exitCode;
}

type Report = (exitCode: number) => void;

function buildProgram(handlers: CommandHandlers, report: Report, out: CommandOutput['out']): Command {
  const program = new Command('kube-proxy-ipvs')
    .description('Keeps the IPVS tables of this node in line with the Services of a Kubernetes cluster.')
    .showHelpAfterError('(--help lists the options)')
    .helpCommand('help [command]', 'the options of a command; `help flags` for those of kube-proxy')
    .allowExcessArguments()
    .addHelpText('after', EXAMPLES);
  addSharedOptions(program);
  program.action(async (_values: unknown, command: Command) => {
    refuseUnknownCommand(command);
    const values = command.opts<Values>();
    const options = readSharedOptions(values);
    if (values.cleanup === true)
      report(await handlers.cleanup({ ...options, json: false, ownOnly: false, force: false, dryRun: false }));
    else if (values.initOnly === true) report(await handlers.preflight({ ...options, json: false, fix: true }));
    else if (values.writeConfigTo !== undefined)
      report(await handlers.configPrint({ ...options, json: false, writeTo: values.writeConfigTo }));
    else report(await handlers.run(options));
  });
  addDaemonCommands(program, handlers, report);
  addInspectionCommands(program, handlers, report);
  addConfigCommands(program, handlers, report);
  const add = (declaration: Declaration): Command => declare(program, report, declaration);
  addSeeCommands(add, handlers);
  addNodeCommands(add, handlers);
  addCompletion(program, add, sharedOptions, out);
  return program;
}

/** kube-proxy's --version, --version=true, --version=raw and --version=false (which asks for nothing). */
function versionFlags(
  args: readonly string[],
  program: Command,
  version: string,
  build: Environment['build'],
): string[] {
  const words = args.filter((word) => !/^--version=(false|0|f)$/i.test(word));
  const isRaw = words.includes('--version=raw');
  const built = { gitCommit: build?.commit ?? '', buildDate: build?.date ?? '' };
  const raw = { version, ...built, nodeVersion: versions.node, platform: `${platform}/${arch}` };
  program.version(isRaw ? JSON.stringify(raw) : version);
  return words.map((word) => (/^--version=(raw|true|1|t)$/i.test(word) ? '--version' : word));
}

function refuseUnknownCommand(program: Command): void {
  const [word] = program.args;
  if (word !== undefined) refuse(word, program);
}

function refuse(word: string, parent: Command): never {
  const names = ['help', ...parent.commands.map((command) => command.name())];
  const nearest = word === 'version' ? '--version' : nearestWord(word, names);
  const hint = nearest === undefined ? '' : `\n(Did you mean ${nearest}?)`;
  parent.error(`error: unknown command '${word}'${hint}`);
}

/** `help config check` as `config check --help`: of that commander would tell about `config`, of `help foo` nothing. */
function helpOf([first, ...path]: readonly string[], program: Command): string[] {
  if (first !== 'help' || path.length === 0) return first === undefined ? [] : [first, ...path];
  let command = program;
  for (const word of path) {
    if (word.startsWith('-')) break;
    command = command.commands.find((one) => one.name() === word) ?? refuse(word, command);
  }
  return [...path, '--help'];
}

interface Declaration {
  readonly name: string;
  readonly description: string;
  readonly action: (values: Values, operands: readonly string[]) => Promise<number>;
}

/** Adds a command that takes the shared options before and after its name. */
function declare(parent: Command, report: Report, { name, description, action }: Declaration): Command {
  const command = parent.command(name).description(description).showHelpAfterError('(--help lists the options)');
  return command
    .allowExcessArguments(false)
    .configureHelp({ showGlobalOptions: true, visibleGlobalOptions: sharedOptions })
    .action(async () => report(await action(command.optsWithGlobals<Values>(), command.args)));
}

/** What the help of a command lists of the program's options. */
function sharedOptions(command: Command): Option[] {
  let program = command;
  while (program.parent !== null) program = program.parent;
  const name = (option: Option): string => option.long?.slice(2) ?? '';
  const isOther = (option: Option): boolean =>
    OTHER_COMMANDS.has(name(option)) || (command.name() !== 'run' && DAEMON_ONLY.has(name(option)));
  return program.options.filter((option) => !option.hidden && !isOther(option));
}

function addDaemonCommands(program: Command, handlers: CommandHandlers, report: Report): void {
  declare(program, report, {
    name: 'run',
    description: 'run the daemon; the same as giving no command',
    action: (values) => handlers.run(readSharedOptions(values)),
  });
  declare(program, report, {
    name: 'cleanup',
    description: 'remove everything that this program or kube-proxy made; virtual servers in excludeCIDRs are kept',
    action: (values) =>
      handlers.cleanup({
        ...outputOptions(values),
        ownOnly: values.ownOnly === true,
        force: values.force === true,
        dryRun: values.dryRun === true,
      }),
  })
    .addOption(jsonOption())
    .addOption(outputOption())
    .option('--own-only', 'leave what kube-proxy in IPVS mode takes over; run it once kube-proxy has synced')
    .option('--dry-run', 'only say what would be removed')
    .option('--force', 'even while the daemon runs on this node');
  declare(program, report, {
    name: 'preflight',
    description: 'check modules, schedulers, permissions, iptables, sysctls and the way to the API server',
    action: (values) => handlers.preflight({ ...outputOptions(values), fix: values.fix === true }),
  })
    .addOption(jsonOption())
    .addOption(outputOption())
    .option('--fix', 'load missing modules and write sysctls (needs SYS_MODULE and a writable /proc/sys)');
}

function addInspectionCommands(program: Command, handlers: CommandHandlers, report: Report): void {
  declare(program, report, {
    name: 'verify',
    description: 'compare the kernel with the desired state; exit code 2 when they differ',
    action: (values) => handlers.verify({ ...comparisonOptions(values), all: values.all === true }),
  })
    .addOption(jsonOption())
    .addOption(outputOption())
    .addOption(timeoutOption())
    .option('--all', 'name every difference, not the first of each kind');
  declare(program, report, {
    name: 'plan',
    description: 'show what a sync would change, without changing it',
    action: (values) =>
      handlers.plan({ ...comparisonOptions(values), diff: values.diff === true, exitCode: values.exitCode === true }),
  })
    .addOption(jsonOption())
    .addOption(outputOption())
    .addOption(timeoutOption())
    .option('--diff', 'show what is there now (-) and what would take its place (+)')
    .option('--exit-code', 'exit with 2 when there is something to change');
}

function addConfigCommands(program: Command, handlers: CommandHandlers, report: Report): void {
  const config = program.command('config').description('check or print a configuration');
  const withFile = (values: Values, [file]: readonly string[]): OutputOptions =>
    outputOptions(file === undefined ? values : { ...values, config: file });
  declare(config, report, {
    name: 'check',
    description: 'check a KubeProxyConfiguration; exit code 1 when it would be refused',
    action: (values, operands) =>
      handlers.configCheck({ ...withFile(values, operands), strict: values.strict === true }),
  })
    .argument('[file]', 'the file; default: --config, or where the DaemonSet has it')
    .addOption(jsonOption())
    .addOption(outputOption())
    .option('--strict', 'unknown fields and settings without effect are wrong, too');
  declare(config, report, {
    name: 'print',
    description: "print a KubeProxyConfiguration as it is understood, with kube-proxy's defaults filled in",
    action: (values, operands) => handlers.configPrint(withFile(values, operands)),
  })
    .argument('[file]', 'the file; default: --config, or where the DaemonSet has it')
    .addOption(jsonOption())
    .addOption(outputOption());
  program
    .command('flags')
    .allowExcessArguments(false)
    .description("list kube-proxy's flags and what they do here")
    .addHelpText('after', () => `\n${FLAGS_TEXT}${describeKubeProxyFlags()}`)
    .action((_values: unknown, command: Command) => command.outputHelp());
}

function outputOptions(values: Values): OutputOptions {
  const { output } = values;
  return { ...readSharedOptions(values), json: values.json === true || output !== undefined, yaml: output === 'yaml' };
}

function comparisonOptions(values: Values): ComparisonOptions {
  const { timeout } = values;
  return { ...outputOptions(values), ...(timeout === undefined ? {} : { timeoutMs: timeout }) };
}

function withCommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withCommands)];
}

const FLAGS_TEXT = `Beside the options of \`run\`, these flags of kube-proxy 1.36 are taken, with - or _ in their names. As in kube-proxy
they have their effect only without --config; flags that make a list or a map may be repeated.

`;

const EXAMPLES = `
Examples:
  kube-proxy-ipvs --config /var/lib/kube-proxy/config.conf --hostname-override "$NODE_NAME"
                                      run as the DaemonSet does
  kube-proxy-ipvs --manifests ./manifests --hostname-override node-0 --cluster-cidr 10.244.0.0/16
                                      run without an API server
  kube-proxy-ipvs preflight           is this node fit for it?
  kube-proxy-ipvs config check FILE   is this configuration right?
  kube-proxy-ipvs plan                what would a sync change?
  kube-proxy-ipvs migrate             may this node be moved from kube-proxy?
  kube-proxy-ipvs status              what is the daemon doing?
  kube-proxy-ipvs services 10.1.2.3   which Services have this address, or this pod behind them?
  kube-proxy-ipvs backends shop/web   where does it lead, and what is left out, and why?
  kube-proxy-ipvs diag > node.tar     all that a question about this node needs, without secrets
  kube-proxy-ipvs cleanup             take everything out of the kernel again

All flags of kube-proxy 1.36 are accepted: \`help flags\` lists them. Commands other than \`run\` find their configuration
as the DaemonSet's pods do: --config, else $KUBE_PROXY_CONFIG, else /var/lib/kube-proxy/config.conf. \`verify\`, \`plan\` and
\`explain\` ask the running daemon before they look for a file.
`;
