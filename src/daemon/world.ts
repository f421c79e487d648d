import { type RunCommand } from '../kernel/command.js';
import { type OpenOptionSocket } from '../kernel/option-socket.js';
import { type IpvsTableOptions } from '../kernel/ipvs/table.js';
import { type OpenNetlinkSocket } from '../netlink/socket.js';
import { type Clock } from '../time/clock.js';

/** The outside world, so that tests can put another in its place. */
export interface World {
  readonly openNetlinkSocket: OpenNetlinkSocket;
  /** Without it the IPVS table is read through netlink, at three times the cost. */
  readonly openOptionSocket: OpenOptionSocket | undefined;
  readonly runCommand: RunCommand;
  readonly clock: Clock;
  /** Gives freed memory back to the kernel. */
  readonly releaseFreedMemory?: (() => void) | undefined;
  /** `/proc/sys` */
  readonly sysctlRoot: string;
  /** How the IPVS table is read; by `openOptionSocket` unless it is said. */
  readonly table?: IpvsTableOptions;
}
