import { type ConntrackConfig } from '../values/conntrack-config.js';
import { errorMessage } from '../values/errors.js';
import { type Sysctl } from '../kernel/node/sysctl.js';

/** One kernel parameter and what it must be. */
export interface DesiredSysctl {
  /** As in sysctl(8), or the path of a file in /sys. */
  readonly name: string;
  readonly value: number;
  /**
   * Whether a higher value is left: `always`, or only once the start has set it, so that a higher one is somebody's
   * wish.
   */
  readonly atLeast?: 'always' | 'after-start';
  /** The data plane is wrong without it, so that failing to set it is an error and not a warning. */
  readonly required: boolean;
}

export interface SysctlOutcome {
  readonly changed: readonly string[];
  readonly failures: readonly { readonly desired: DesiredSysctl; readonly message: string }[];
}

export interface SysctlOptions {
  readonly strictARP: boolean;
  /** 0 below kernel 5.9, else undefined: leave it (src/kernel/node/kernel-release.ts). */
  readonly connReuseMode: 0 | undefined;
  readonly conntrack: ConntrackConfig;
  readonly cores: number;
}

/** The parameters that kube-proxy's IPVS mode sets, for the same reasons. */
export function desiredSysctls(options: SysctlOptions): DesiredSysctl[] {
  const desired: DesiredSysctl[] = [
    { name: 'net.ipv4.vs.conntrack', value: 1, required: true },
    { name: 'net.ipv4.vs.expire_nodest_conn', value: 1, required: true },
    { name: 'net.ipv4.vs.expire_quiescent_template', value: 1, required: true },
    { name: 'net.ipv4.ip_forward', value: 1, required: true },
  ];
  if (options.connReuseMode !== undefined)
    desired.push({ name: 'net.ipv4.vs.conn_reuse_mode', value: options.connReuseMode, required: true });
  if (options.strictARP) {
    desired.push({ name: 'net.ipv4.conf.all.arp_ignore', value: 1, required: true });
    desired.push({ name: 'net.ipv4.conf.all.arp_announce', value: 2, required: true });
  }
  return [...desired, ...conntrackSysctls(options)];
}

/** kube-proxy 1.36's bound of what it makes of maxPerCore: more would take gigabytes on machines with many cores. */
const MOST_CONNTRACK_ENTRIES = 1_048_576;
const HASHSIZE = '/sys/module/nf_conntrack/parameters/hashsize';

function conntrackSysctls({ conntrack, cores }: SysctlOptions): DesiredSysctl[] {
  const desired: DesiredSysctl[] = [];
  const add = (name: string, value: number): void => {
    desired.push({ name: `net.netfilter.nf_conntrack_${name}`, value, required: false });
  };
  const { maxPerCore, min } = conntrack;
  if (maxPerCore > 0) {
    const scaled = maxPerCore * cores;
    const max = scaled > MOST_CONNTRACK_ENTRIES ? MOST_CONNTRACK_ENTRIES : Math.max(scaled, min);
    desired.push({ name: 'net.netfilter.nf_conntrack_max', value: max, atLeast: 'after-start', required: false });
    // Chains of four entries on average when the table is full; longer ones cost CPU for each packet.
    desired.push({ name: HASHSIZE, value: Math.trunc(max / 4), atLeast: 'always', required: false });
  }
  const timeouts: [string, number | undefined][] = [
    ['tcp_timeout_established', conntrack.tcpEstablishedTimeoutMs],
    ['tcp_timeout_close_wait', conntrack.tcpCloseWaitTimeoutMs],
    ['udp_timeout', conntrack.udpTimeoutMs],
    ['udp_timeout_stream', conntrack.udpStreamTimeoutMs],
  ];
  for (const [name, ms] of timeouts) if (ms !== undefined && ms > 0) add(name, Math.trunc(ms / 1000));
  if (conntrack.tcpBeLiberal) add('tcp_be_liberal', 1);
  return desired;
}

/** Whether a parameter has its value, or a higher one that is left. */
export function isRight(
  { value, atLeast }: DesiredSysctl,
  current: number | undefined,
  when: 'start' | 'later',
): boolean {
  if (current === value) return true;
  const mayBeHigher = atLeast === 'always' || (atLeast === 'after-start' && when === 'later');
  return mayBeHigher && current !== undefined && current > value;
}

/**
 * Sets what differs; never throws. A parameter that cannot be set is reported with its fix, the others are still set.
 */
export function ensureSysctls(
  sysctl: Sysctl,
  desired: readonly DesiredSysctl[],
  when: 'start' | 'later' = 'later',
): SysctlOutcome {
  const changed: string[] = [];
  const failures: { desired: DesiredSysctl; message: string }[] = [];
  for (const one of desired) {
    try {
      if (isRight(one, sysctl.readNumber(one.name), when)) continue;
      if (sysctl.ensure(one.name, one.value)) changed.push(`${one.name}=${one.value}`);
    } catch (error) {
      failures.push({ desired: one, message: errorMessage(error) });
    }
  }
  return { changed, failures };
}

/** Keeps the kernel parameters that this program needs as they must be. */
export class SysctlKeeper {
  constructor(
    readonly sysctl: Sysctl,
    /** May be replaced. */
    public desired: readonly DesiredSysctl[],
  ) {}

  /** Sets what differs; never throws. */
  ensure(when: 'start' | 'later' = 'later'): SysctlOutcome {
    return ensureSysctls(this.sysctl, this.desired, when);
  }
}
