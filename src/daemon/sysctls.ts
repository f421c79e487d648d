import { availableParallelism } from 'node:os';
import { type ProxyConfig } from '../config/proxy-config.js';
import { machineCores } from '../kernel/node/cores.js';
import { connReuseMode, parseKernelRelease, readKernelReleaseText } from '../kernel/node/kernel-release.js';
import { type DesiredSysctl, desiredSysctls } from '../reconcile/sysctl-keeper.js';

/** The kernel parameters that this configuration asks for, on this kernel. */
export function sysctlsOf(config: ProxyConfig, sysctlRoot?: string): DesiredSysctl[] {
  return desiredSysctls({
    strictARP: config.strictARP,
    connReuseMode: connReuseMode(parseKernelRelease(readKernelReleaseText(sysctlRoot))),
    conntrack: config.conntrack,
    cores: machineCores() ?? availableParallelism(),
  });
}
