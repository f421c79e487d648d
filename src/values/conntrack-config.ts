/** nf_conntrack sysctls; undefined leaves the kernel's value. Durations in milliseconds. */
export interface ConntrackConfig {
  /** 0 leaves nf_conntrack_max as it is and ignores `min`. */
  readonly maxPerCore: number;
  readonly min: number;
  readonly tcpEstablishedTimeoutMs: number | undefined;
  readonly tcpCloseWaitTimeoutMs: number | undefined;
  readonly tcpBeLiberal: boolean;
  readonly udpTimeoutMs: number | undefined;
  readonly udpStreamTimeoutMs: number | undefined;
}
