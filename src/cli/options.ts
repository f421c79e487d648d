/** What the command line says, command by command. */
import { type DaemonOptions } from '../daemon/daemon-options.js';
import { type ServiceOptions } from './backends.js';
import { type ConnectionsOptions } from './connections.js';
import { type SeeOptions } from './see.js';
import { type ServicesOptions } from './services.js';

export interface OutputOptions extends DaemonOptions {
  readonly json: boolean;
  /** What is printed as JSON is printed as YAML. */
  readonly yaml?: boolean;
}

export interface StatusOptions extends SeeOptions {
  /** Show the Services of which name or virtual server holds this text. */
  readonly search?: string | undefined;
}

export interface EventsOptions extends SeeOptions {
  /** What happened in the last so many milliseconds; undefined: all that is remembered. */
  readonly sinceMs?: number | undefined;
}

/** Of commands that compare the kernel with the cluster. */
export interface ComparisonOptions extends OutputOptions {
  /** Longest wait for the cluster's state, in milliseconds; undefined: what dryRun takes. */
  readonly timeoutMs?: number;
}

export interface VerifyOptions extends ComparisonOptions {
  /** Name every difference. */
  readonly all: boolean;
}

export interface PlanOptions extends ComparisonOptions {
  /** Show what is replaced beside what replaces it. */
  readonly diff: boolean;
  /** Exit with 2 when there is something to change. */
  readonly exitCode: boolean;
}

export interface ExplainOptions extends SeeOptions {
  /** As of ComparisonOptions. */
  readonly timeoutMs?: number;
  /** `ADDRESS:PORT[/PROTOCOL]` */
  readonly destination: string;
  /** The client's address; undefined: this node. */
  readonly from?: string | undefined;
  /** By which the packet comes in. */
  readonly interface?: string | undefined;
}

export interface PreflightOptions extends OutputOptions {
  /** Load modules and write sysctls instead of only reporting. */
  readonly fix: boolean;
}

export interface CleanupOptions extends OutputOptions {
  /** Only what kube-proxy's IPVS mode would leave behind. */
  readonly ownOnly: boolean;
  /** Also while a daemon runs. */
  readonly force: boolean;
  /** Only say what would be removed. */
  readonly dryRun: boolean;
}

export interface ConfigCheckOptions extends OutputOptions {
  /** Unknown fields and settings without effect count as wrong. */
  readonly strict: boolean;
}

export interface ConfigPrintOptions extends OutputOptions {
  /** The file to write instead of standard output, as kube-proxy's --write-config-to. */
  readonly writeTo?: string | undefined;
}

export interface MigrateOptions extends SeeOptions {
  /** As of ComparisonOptions. */
  readonly timeoutMs?: number;
}

export interface DiagOptions extends DaemonOptions {
  /** The file to write; undefined: standard output. */
  readonly output: string | undefined;
}

/** One function per command; each resolves to the exit code. */
export interface CommandHandlers {
  run(options: DaemonOptions): Promise<number>;
  cleanup(options: CleanupOptions): Promise<number>;
  status(options: StatusOptions): Promise<number>;
  events(options: EventsOptions): Promise<number>;
  services(options: ServicesOptions): Promise<number>;
  backends(options: ServiceOptions): Promise<number>;
  connections(options: ConnectionsOptions): Promise<number>;
  table(options: ServicesOptions): Promise<number>;
  verify(options: VerifyOptions): Promise<number>;
  plan(options: PlanOptions): Promise<number>;
  explain(options: ExplainOptions): Promise<number>;
  migrate(options: MigrateOptions): Promise<number>;
  diag(options: DiagOptions): Promise<number>;
  preflight(options: PreflightOptions): Promise<number>;
  configCheck(options: ConfigCheckOptions): Promise<number>;
  configPrint(options: ConfigPrintOptions): Promise<number>;
}
