import { errorMessage } from '../values/errors.js';
import { type Sysctl } from '../kernel/node/sysctl.js';

/** kubeProxyIpvs.estimation. */
export type EstimationMode = 'auto' | 'on' | 'off';

/**
 * The kernel estimates rates for each virtual and each real server, every two seconds. Up to 6.1 one timer goes through
 * all of them in one go: 20,000 take 2 ms, and that much again for each further CPU that the machine can have.
 */
export const MANY_REAL_SERVERS = 20_000;
/** What was switched off for their number is on again below this: a table about as large must not switch to and fro. */
const FEW_REAL_SERVERS = 16_000;
const RUN = 'net.ipv4.vs.run_estimation'; // since 5.16
const NICE = 'net.ipv4.vs.est_nice'; // since 6.2, which estimates in threads
const LOWEST_PRIORITY = 19;

export interface EstimationState {
  /** False: the kernel's rates and counters stand still. Undefined where IPVS is not loaded. */
  readonly isRunning: boolean | undefined;
  /** What an operator should know of it. */
  readonly note: string | undefined;
}

/** Keeps the kernel from spending more on its estimates than they are worth; as a sysctl holds for the whole node. */
export class EstimationKeeper {
  #isTurnedOff = false;

  constructor(
    readonly sysctl: Sysctl,
    readonly mode: EstimationMode,
  ) {}

  /** Switches for a table of so many real servers; never throws. What somebody else has set stays, in `auto`. */
  ensure(realServers: number): EstimationState {
    try {
      return this.#ensure(realServers);
    } catch (error) {
      return { isRunning: undefined, note: `IPVS estimation: ${errorMessage(error)}` };
    }
  }

  #ensure(realServers: number): EstimationState {
    const { sysctl, mode } = this;
    const before = sysctl.readNumber(RUN);
    const nice = sysctl.readNumber(NICE);
    if (before === undefined) return this.#withoutSwitch(realServers);
    const wanted = this.#wanted(realServers, before, nice !== undefined);
    const failures: string[] = [];
    const set = (name: string, value: number): boolean => {
      try {
        sysctl.ensure(name, value);
        return true;
      } catch (error) {
        failures.push(errorMessage(error));
        return false;
      }
    };
    // Somebody who chose a priority keeps it: 0 is the kernel's own. In a small table nobody need hear that it stays.
    if (mode === 'auto' && nice === 0 && !set(NICE, LOWEST_PRIORITY) && realServers <= MANY_REAL_SERVERS)
      failures.pop();
    const isRunning = (wanted !== undefined && set(RUN, wanted) ? wanted : before) !== 0;
    if (mode === 'auto' && wanted !== undefined) this.#isTurnedOff = !isRunning;
    return { isRunning, note: this.#note(isRunning, failures) };
  }

  /** Undefined: as it is. */
  #wanted(realServers: number, before: number, hasThreads: boolean): 0 | 1 | undefined {
    if (this.mode !== 'auto') return this.mode === 'on' ? 1 : 0;
    if (hasThreads) return undefined;
    if (realServers > MANY_REAL_SERVERS) return before === 0 ? undefined : 0;
    return this.#isTurnedOff && realServers < FEW_REAL_SERVERS ? 1 : undefined;
  }

  #withoutSwitch(realServers: number): EstimationState {
    if (!this.sysctl.has('net.ipv4.vs')) return { isRunning: undefined, note: undefined };
    const isWished = this.mode === 'off' || (this.mode === 'auto' && realServers > MANY_REAL_SERVERS);
    const note = isWished
      ? 'IPVS estimation cannot be switched off on this kernel (before 5.16): every two seconds it goes through all real servers'
      : undefined;
    return { isRunning: true, note };
  }

  /** Without a number that changes: a line is logged when it is another. */
  #note(isRunning: boolean, failures: readonly string[]): string | undefined {
    const { mode } = this;
    if (failures.length > 0)
      return `IPVS estimation (kubeProxyIpvs.estimation: ${mode}): ${failures.join('; ')}. A restart of the pod does it, where its init container writes sysctls`;
    if (isRunning) return undefined;
    const why = this.#isTurnedOff ? `${mode}, more than ${MANY_REAL_SERVERS} real servers` : mode;
    return `IPVS estimation is off (kubeProxyIpvs.estimation: ${why}): the rates and counters of ipvsadm --rate and --stats stand still`;
  }
}
