/** Transport protocols that a Service may name; the numbers are IANA's, as the kernel wants them (IPPROTO_*). */
export type Protocol = 'TCP' | 'UDP' | 'SCTP';

const NUMBERS: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

export function protocolNumber(protocol: Protocol): number {
  return NUMBERS[protocol];
}

/** The name for an IPPROTO_* number; undefined for protocols that no Service has. */
export function protocolName(number: number): Protocol | undefined {
  return number === 6 ? 'TCP' : number === 17 ? 'UDP' : number === 132 ? 'SCTP' : undefined;
}

export function isProtocol(value: unknown): value is Protocol {
  return value === 'TCP' || value === 'UDP' || value === 'SCTP';
}
