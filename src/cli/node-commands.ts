/** How the commands that tell about this node as a whole are declared: status, events, explain, migrate, diag. */
import { Option } from 'commander';
import { type CommandHandlers } from './options.js';
import { type Declare } from './see-commands.js';
import { addFormats, seeOptions } from './see-options.js';
import { type Values, duration, readSharedOptions } from './shared-options.js';

export function addNodeCommands(declare: Declare, handlers: CommandHandlers): void {
  addFormats(
    declare({
      name: 'status',
      description: 'show what the daemon on this node is doing; exit code 1 when it is not healthy',
      action: (values) => handlers.status({ ...seeOptions(values), search: textOf(values.search) }),
    }),
  ).option('--search <text>', 'and the Services of which name, address or port holds this text');
  addFormats(
    declare({
      name: 'events',
      description: 'what changed of late: Services, endpoints, repairs, refusals; --watch goes on with what comes',
      action: (values) => {
        const sinceMs = typeof values.since === 'number' ? values.since : undefined;
        return handlers.events({ ...seeOptions(values), sinceMs });
      },
    }),
  ).option('--since <duration>', 'only the last, say, 10m; default: all that is remembered, 1,000 at most', duration);
  addExplain(declare, handlers);
  addFormats(
    declare({
      name: 'migrate',
      description:
        'may this node be moved from kube-proxy? Exit code 0: no virtual server would change; 2: it is not ready',
      action: (values) => handlers.migrate({ ...seeOptions(values), ...timeoutOf(values) }),
    }),
  ).addOption(timeoutOption());
  declare({
    name: 'diag',
    description: 'write a support bundle (tar) without secrets: state, rules, sets, health, versions of this node',
    action: (values) => handlers.diag({ ...readSharedOptions(values), output: textOf(values.output) }),
  }).option('-o, --output <file>', 'the file to write; default: standard output, unless that is a terminal');
}

function addExplain(declare: Declare, handlers: CommandHandlers): void {
  addFormats(
    declare({
      name: 'explain',
      description: 'what happens to a packet on this node, rule by rule; exit code 2 when the kernel differs',
      action: (values, [destination = '']) => {
        const packet = { destination, from: textOf(values.from), interface: textOf(values.interface) };
        return handlers.explain({ ...seeOptions(values), ...timeoutOf(values), ...packet });
      },
    }),
  )
    .argument('<destination>', 'ADDRESS:PORT[/PROTOCOL], as 10.96.0.1:443 or [fd00::1]:53/UDP')
    .option('--from <ip>', "the client's address; default: this node itself")
    .option(
      '--interface <name>',
      'by which the packet comes in, for detectLocalMode BridgeInterface and InterfaceNamePrefix',
    )
    .addOption(timeoutOption());
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

export function timeoutOption(): Option {
  return new Option('--timeout <duration>', "longest wait for the cluster's state (30s)").argParser(duration);
}

function timeoutOf({ timeout }: Values): { timeoutMs?: number } {
  return timeout === undefined ? {} : { timeoutMs: timeout };
}
