import { readFileSync } from 'node:fs';

/** Major and minor of a `uname -r` such as `6.1.0-18-amd64` or `5.4`. */
export interface KernelRelease {
  readonly major: number;
  readonly minor: number;
}

/** Undefined when the text does not begin with `major.minor`. */
export function parseKernelRelease(text: string): KernelRelease | undefined {
  const match = /^(\d+)\.(\d+)/.exec(text.trim());
  return match ? { major: Number(match[1]), minor: Number(match[2]) } : undefined;
}

/** The running kernel's `uname -r`. */
export function readKernelReleaseText(root = '/proc/sys'): string {
  return readFileSync(`${root}/kernel/osrelease`, 'latin1').trim();
}

/** True when `release` is `major.minor` or later. */
export function isAtLeast(release: KernelRelease, major: number, minor: number): boolean {
  return release.major !== major ? release.major > major : release.minor >= minor;
}

/**
 * The value that net.ipv4.vs.conn_reuse_mode must be given on this kernel; undefined means leave it alone.
 *
 * Before 5.9 the kernel's default, 1, makes each connection that reuses a source port wait one second, so 0 there, as
 * kube-proxy does; from 5.9 on the default is right: it moves reused ports away from drained real servers. The sysctl
 * exists since 4.1.
 */
export function connReuseMode(release: KernelRelease | undefined): 0 | undefined {
  if (release === undefined || !isAtLeast(release, 4, 1)) return undefined;
  return isAtLeast(release, 5, 9) ? undefined : 0;
}
