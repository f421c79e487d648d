/** What can go wrong between a client and the fake kernel: one language for every netlink family. */
import { type WireMessage } from './netlink-bytes.js';

interface Strikes {
  /** Of this netlink family only. */
  protocol?: number;
  /** Strikes until it is taken away; once otherwise. */
  stays?: true;
  /** Asked each time, with the messages that are sent (or the one that is handled); false lets this one pass. */
  when?: (messages: readonly WireMessage[]) => boolean;
}

/** Each is used in the order in which they were added. */
export type FakeFault = Strikes &
  (
    | /** Refuses a request without handling it, after letting `skip` others of this netlink family (or of any) pass. */
      { at: 'message'; code: string; skip?: number; text?: string }
      /** `send` throws; nothing of the datagram is handled. */
    | { at: 'send'; code: string }
    /** `receive` throws; with ENOBUFS the answers that wait are lost, as after an overrun. */
    | { at: 'receive'; code: string }
    /** Changes a datagram on its way out (truncated, garbage), or loses it (undefined). */
    | { at: 'answer'; change: (datagram: Buffer) => Buffer | undefined }
    /** Marks a dump as interrupted (NLM_F_DUMP_INTR). */
    | { at: 'dump' }
  );

export type FaultAt = FakeFault['at'];

/** The fault that strikes now; it leaves `faults` unless it stays. */
export function chooseFault<At extends FaultAt>(
  faults: FakeFault[],
  at: At,
  protocol: number,
  messages: readonly WireMessage[],
): Extract<FakeFault, { at: At }> | undefined {
  for (const [index, fault] of faults.entries()) {
    if (fault.at !== at || (fault.protocol ?? protocol) !== protocol || fault.when?.(messages) === false) continue;
    // Those behind it do not count along.
    if (fault.at === 'message' && fault.skip !== undefined && fault.skip > 0) {
      fault.skip--;
      return undefined;
    }
    if (fault.stays !== true) faults.splice(index, 1);
    return fault as Extract<FakeFault, { at: At }>;
  }
  return undefined;
}
