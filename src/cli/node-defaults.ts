/** Where a command that is typed in the DaemonSet's pod, or on a node, finds what the daemon got by flags. */
import { existsSync } from 'node:fs';
import { type DaemonOptions } from '../daemon/daemon-options.js';

/** Where kubeadm's DaemonSet and ours have the configuration, then where EKS has it. */
const USUAL_FILES = ['/var/lib/kube-proxy/config.conf', '/var/lib/kube-proxy-config/config'];

export interface Surroundings {
  /** The process's environment. */
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly exists?: (path: string) => boolean;
  /** Where a file was taken that nobody named. */
  readonly err: (text: string) => void;
}

/**
 * Without --config, and without flags that make a configuration, takes that of $KUBE_PROXY_CONFIG or of the usual
 * place, and says so; without --hostname-override, $NODE_NAME is the node. Not for the daemon, which does as
 * kube-proxy.
 */
export function withNodeDefaults<T extends DaemonOptions>(options: T, { variables, exists, err }: Surroundings): T {
  const hostnameOverride = options.overrides.hostnameOverride ?? nonEmpty(variables.NODE_NAME);
  const overrides = { ...options.overrides, hostnameOverride };
  if (options.configFile !== undefined || hasFlags(options)) return { ...options, overrides };
  const configFile = usualFile(variables, exists ?? existsSync);
  if (configFile !== undefined) err(`configuration: ${configFile} (--config chooses another)\n`);
  return { ...options, overrides, configFile };
}

/** Where the configuration of this node's daemon should be. */
export function usualFile(variables: Surroundings['variables'], exists: (path: string) => boolean): string | undefined {
  return nonEmpty(variables.KUBE_PROXY_CONFIG) ?? USUAL_FILES.find(exists);
}

/** Whether flags make a configuration; `document` has apiVersion and kind in any case. */
export function hasFlags({ document }: DaemonOptions): boolean {
  return Object.keys(document).length > 2;
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}
