import { type OpenOptionSocket } from '../kernel/option-socket.js';
import { type Logger } from 'pino';
import { type StartProgram } from '../kernel/command.js';
import { type OpenNetlinkSocket } from '../netlink/socket.js';

/** What main.ts hands to the commands: the outside world, so that nothing below touches process or native code. */
export interface Environment {
  readonly openNetlinkSocket: OpenNetlinkSocket;
  /** Starts programs without forking; child_process otherwise. */
  readonly startProgram?: StartProgram;
  /** For reading the IPVS table; without it the table is read through netlink, at three times the cost. */
  readonly openOptionSocket?: OpenOptionSocket;
  /** Who listens at the other end of a Unix socket, for the instance lock. */
  readonly peerCredentials?: (fd: number) => { readonly pid: number; readonly uid: number };
  /** Where IPVS' connections are read; /proc/net/ip_vs_conn unless it is said. */
  readonly connectionTable?: string;
  /** Gives freed memory back to the kernel. */
  readonly releaseFreedMemory?: () => void;
  readonly version: string;
  /** Of which commit, made when; known to bundles made in a git checkout. */
  readonly build?: { readonly commit: string | undefined; readonly date: string | undefined };
  readonly hostname: string;
  /** The process's environment variables. */
  readonly variables: Readonly<Record<string, string | undefined>>;
  /** Makes the JSON logger, with levels as words; writes to stdout. */
  readonly logger: (level: string) => Logger;
  readonly out: (text: string) => void;
  /** Whether a person reads `out` as it comes, and not a pipe or a file; not unless it is said. */
  readonly isTerminal?: boolean;
  readonly err: (text: string) => void;
  /** Aborts on SIGTERM and SIGINT. */
  readonly stop: AbortSignal;
  /** Milliseconds since the epoch at which the process started. */
  readonly startedAt: number;
}
