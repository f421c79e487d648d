/** How the commands that show what is there are declared: their names, arguments and options. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type CompletedCommand, type CompletedOption, SHELLS, type Shell, completionScript } from './completion.js';
import { type ConnectionsOptions } from './connections.js';
import { type CommandHandlers } from './options.js';
import { addFormats, seeOptions } from './see-options.js';
import { type ServicesOptions } from './services.js';
import { type Values } from './shared-options.js';

export interface SeeDeclaration {
  readonly name: string;
  readonly description: string;
  readonly action: (values: Values, operands: readonly string[]) => Promise<number>;
}

/** Adds one command to the program. */
export type Declare = (declaration: SeeDeclaration) => Command;

const DEFAULT_LIMIT = 100;
const MATCH = 'a name, NAMESPACE/NAME, an address of a Service or the address of a pod, with or without a port';
const SERVICE = 'NAMESPACE/NAME, or NAME with -n';

export function addSeeCommands(declare: Declare, handlers: CommandHandlers): void {
  addFormats(
    declare({
      name: 'services',
      description: 'list the Services that this node serves: addresses, backends, connections',
      action: (values, operands) => handlers.services(servicesOptions(values, operands)),
    }),
  )
    .argument('[match]', MATCH)
    .addOption(namespaceOption());
  addFormats(
    declare({
      name: 'backends',
      description: 'list the backends of a Service, those left out too, and why; -o wide asks the API server for pods',
      action: (values, operands) => handlers.backends({ ...seeOptions(values), service: serviceOf(values, operands) }),
    }),
  )
    .argument('<service>', SERVICE)
    .addOption(ownNamespaceOption());
  addFormats(
    declare({
      name: 'connections',
      description: 'list the connections through a Service on this node; -o wide asks the API server for pods',
      action: (values, operands) =>
        handlers.connections({ ...seeOptions(values), service: serviceOf(values, operands), ...limitOf(values) }),
    }),
  )
    .argument('<service>', SERVICE)
    .addOption(ownNamespaceOption())
    .addOption(new Option('--limit <number>', 'show as many; all are counted').argParser(limit).default(DEFAULT_LIMIT));
  addFormats(
    declare({
      name: 'table',
      description: 'print the IPVS table as `ipvsadm -Ln` does, with the names of Services beside it',
      action: (values, operands) => handlers.table(servicesOptions(values, operands)),
    }),
  )
    .argument('[match]', MATCH)
    .addOption(namespaceOption());
}

/** Adds `completion`, which knows every command that was declared before it is run. */
export function addCompletion(
  program: Command,
  declare: Declare,
  visibleOptions: (command: Command) => readonly Option[],
  out: (text: string) => void,
): void {
  declare({
    name: 'completion',
    description: 'print a script for completion in a shell: source <(kube-proxy-ipvs completion bash)',
    action: (_values, [shell]) => {
      out(completionScript(shell as Shell, commandTree(program, visibleOptions)));
      return Promise.resolve(0);
    },
  }).addArgument(program.createArgument('<shell>', 'bash, zsh or fish').choices(SHELLS));
}

/** Every command with what may follow it. */
export function commandTree(
  program: Command,
  visibleOptions: (command: Command) => readonly Option[],
): CompletedCommand[] {
  const walk = (command: Command, path: string): CompletedCommand[] => {
    const shared = command === program ? [] : visibleOptions(command);
    const own = command.options.filter(({ hidden }) => !hidden);
    const options = [...own, ...shared, new Option('-h, --help', 'help for this command')].map(completedOption);
    const names = command.commands.map((child) => child.name());
    const choices = command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []);
    const words = [...names, ...choices];
    const children = command.commands.flatMap((child) => walk(child, `${path} ${child.name()}`.trim()));
    return [{ path, description: command.description(), options, words }, ...children];
  };
  return walk(program, '');
}

function completedOption(option: Option): CompletedOption {
  const { long, short, description, argChoices } = option;
  const takesValue = option.required || option.optional;
  return { long: long ?? '', short: short ?? '', description, takesValue, choices: argChoices ?? [] };
}

function namespaceOption(): Option {
  return new Option('-n, --namespace <namespace>', 'of this namespace alone');
}

function ownNamespaceOption(): Option {
  return new Option('-n, --namespace <namespace>', "the Service's namespace, as kubectl takes it");
}

/** `shop/web`, and `-n shop web` as kubectl's users type it. A namespace that is named twice has to be the same. */
function serviceOf({ namespace }: Values, [service = '']: readonly string[]): string {
  if (typeof namespace !== 'string') return service;
  if (!service.includes('/')) return `${namespace}/${service}`;
  if (service.startsWith(`${namespace}/`)) return service;
  throw new Error(`${service} is not in namespace ${namespace}, which --namespace asks for`);
}

function limit(text: string): number {
  if (!/^[0-9]{1,9}$/.test(text)) throw new InvalidArgumentError('It is a number such as 1000.');
  return Number(text);
}

function limitOf({ limit: number }: Values): Pick<ConnectionsOptions, 'limit'> {
  return { limit: typeof number === 'number' ? number : DEFAULT_LIMIT };
}

function servicesOptions(values: Values, [match = '']: readonly string[]): ServicesOptions {
  const { namespace } = values;
  return { ...seeOptions(values), match, namespace: typeof namespace === 'string' ? namespace : '' };
}
