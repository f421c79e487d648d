import { errorMessage } from '../values/errors.js';
import { type Sysctl } from '../kernel/node/sysctl.js';

/** One kernel parameter and what it must be; `atLeast` never lowers it. */
export interface WantedSysctl {
  readonly name: string;
  readonly value: number;
  readonly atLeast?: boolean;
  /** The data plane is wrong without it, so that failing to set it is an error and not a warning. */
  readonly required: boolean;
}

export interface SysctlOutcome {
  readonly changed: readonly string[];
  readonly failures: readonly { readonly wanted: WantedSysctl; readonly message: string }[];
}

export interface SysctlInputs {
  readonly strictARP: boolean;
  /** 0 below kernel 5.9, else undefined: leave it (kernel/sysctl-kernel-release.ts). */
  readonly connReuseMode: 0 | undefined;
  readonly conntrack: {
    readonly maxPerCore: number;
    readonly min: number;
    readonly tcpEstablishedTimeoutMs: number | undefined;
    readonly tcpCloseWaitTimeoutMs: number | undefined;
    readonly tcpBeLiberal: boolean;
    readonly udpTimeoutMs: number | undefined;
    readonly udpStreamTimeoutMs: number | undefined;
  };
  readonly cores: number;
}

/** The parameters that kube-proxy's IPVS mode sets, for the same reasons. */
export function wantedSysctls(inputs: SysctlInputs): WantedSysctl[] {
  const wanted: WantedSysctl[] = [
    { name: 'net.ipv4.vs.conntrack', value: 1, required: true },
    { name: 'net.ipv4.vs.expire_nodest_conn', value: 1, required: true },
    { name: 'net.ipv4.vs.expire_quiescent_template', value: 1, required: true },
    { name: 'net.ipv4.ip_forward', value: 1, required: true },
  ];
  if (inputs.connReuseMode !== undefined)
    wanted.push({ name: 'net.ipv4.vs.conn_reuse_mode', value: inputs.connReuseMode, required: true });
  if (inputs.strictARP) {
    wanted.push({ name: 'net.ipv4.conf.all.arp_ignore', value: 1, required: true });
    wanted.push({ name: 'net.ipv4.conf.all.arp_announce', value: 2, required: true });
  }
  return [...wanted, ...conntrackSysctls(inputs)];
}

function conntrackSysctls({ conntrack, cores }: SysctlInputs): WantedSysctl[] {
  const wanted: WantedSysctl[] = [];
  const add = (name: string, value: number, atLeast = false): void => {
    wanted.push({ name: `net.netfilter.nf_conntrack_${name}`, value, atLeast, required: false });
  };
  if (conntrack.maxPerCore > 0) add('max', Math.max(conntrack.maxPerCore * cores, conntrack.min), true);
  const timeouts: [string, number | undefined][] = [
    ['tcp_timeout_established', conntrack.tcpEstablishedTimeoutMs],
    ['tcp_timeout_close_wait', conntrack.tcpCloseWaitTimeoutMs],
    ['udp_timeout', conntrack.udpTimeoutMs],
    ['udp_timeout_stream', conntrack.udpStreamTimeoutMs],
  ];
  for (const [name, ms] of timeouts) if (ms !== undefined && ms > 0) add(name, Math.round(ms / 1000));
  if (conntrack.tcpBeLiberal) add('tcp_be_liberal', 1);
  return wanted;
}

/** Sets what differs; never throws. A parameter that cannot be set is reported with its fix, the others are still set. */
export function ensureSysctls(sysctl: Sysctl, wanted: readonly WantedSysctl[]): SysctlOutcome {
  const changed: string[] = [];
  const failures: { wanted: WantedSysctl; message: string }[] = [];
  for (const one of wanted) {
    try {
      const wrote =
        one.atLeast === true ? sysctl.ensureAtLeast(one.name, one.value) : sysctl.ensure(one.name, one.value);
      if (wrote) changed.push(`${one.name}=${one.value}`);
    } catch (error) {
      failures.push({ wanted: one, message: errorMessage(error) });
    }
  }
  return { changed, failures };
}

/** Keeps the kernel parameters that this program needs as they must be. */
export class SysctlKeeper {
  constructor(
    readonly sysctl: Sysctl,
    readonly wanted: readonly WantedSysctl[],
  ) {}

  /** Sets what differs; never throws. */
  ensure(): SysctlOutcome {
    return ensureSysctls(this.sysctl, this.wanted);
  }
}
