/** The node's addresses: VIPs, in whichever form they are, and the others. */
import { type Address, FAMILIES, isIpv6LinkLocal } from '../values/address.js';
import { type VipForm } from '../values/vip-form.js';
import { type LinkClient } from '../kernel/rtnetlink/client.js';
import { READING_SLICE_MS, StopFlag } from '../time/pacer.js';
import { UNINTERRUPTED, calmOf, turnWhile } from './interruption.js';

/** The VIPs: addresses on the dummy link, or local routes. */
export interface BoundAddresses {
  has(address: Address): boolean;
  /** True: every address that is desired is there. */
  readonly isComplete: boolean;
  /** Those that are not desired; all of them unless `isComplete`. */
  readonly others: ReadonlySet<Address>;
}

/** The VIPs that are to be there. */
export interface DesiredAddresses {
  readonly count: number;
  has(address: Address): boolean;
}

/** Desires none: every address is reported. */
export const NO_ADDRESSES: DesiredAddresses = { count: -1, has: () => false };

const NONE: ReadonlySet<Address> = new Set();

/** What is read of one form. */
interface Found {
  desired: number;
  readonly others: Set<Address>;
}

export interface ReadAddresses {
  readonly bound: BoundAddresses;
  /** VIPs in the other form. */
  readonly stale: ReadonlySet<Address>;
  /** Addresses on every link but the dummy. */
  readonly local: ReadonlySet<Address>;
}

/**
 * The VIPs and the addresses of the node's own. Where VIPs are addresses, one dump says it all, two when not all are as
 * desired; routes need two more, one for each family. Routes that are not in use are only looked for when `desired` is
 * NO_ADDRESSES or `anew` says so: at the start. Changes are let in by `interruption` until one is of an address. Throws
 * NetlinkError.
 */
export async function readAddresses(
  { links, vips }: { readonly links: LinkClient; readonly vips: VipForm },
  dummyIndex: number | undefined,
  desired: DesiredAddresses = NO_ADDRESSES,
  stop = new StopFlag(),
  interruption = UNINTERRUPTED,
  anew = desired === NO_ADDRESSES,
): Promise<ReadAddresses> {
  const pacer = stop.pacer(1, READING_SLICE_MS);
  const isCalm = calmOf(interruption, ({ addresses }) => addresses);
  const turn = turnWhile(isCalm, interruption);
  const pause = (): Promise<void> => pacer.yieldIfDue(turn);
  const isDesired = (address: Address): boolean => desired.has(address);
  const isNone = (): boolean => false;
  if (vips === 'routes') {
    const { others: onLink, local } = await readLinks(links, dummyIndex, isNone, pause);
    const bound = await boundAs(desired, isCalm, (counted) => readRoutes(links, counted ? isDesired : isNone, pause));
    // The kernel gives every link that is up an fe80:: address by itself.
    const stale = new Set([...onLink].filter((address) => !isIpv6LinkLocal(address)));
    return { bound, stale, local };
  }
  let local = NONE;
  const bound = await boundAs(desired, isCalm, async (counted) => {
    const found = await readLinks(links, dummyIndex, counted ? isDesired : isNone, pause);
    ({ local } = found);
    return found;
  });
  const stale = anew ? (await readRoutes(links, isNone, pause)).others : NONE;
  return { bound, stale, local };
}

/**
 * Nearly always all are there, and a set of them would only be something for the garbage collector to move. Where some
 * came or went meanwhile, their number says nothing.
 */
async function boundAs(
  desired: DesiredAddresses,
  isCalm: () => boolean,
  read: (counted: boolean) => Promise<Found>,
): Promise<BoundAddresses> {
  const { desired: present, others } = await read(true);
  if (present === desired.count && isCalm()) {
    const has = (address: Address): boolean => desired.has(address) || others.has(address);
    return { has, isComplete: true, others };
  }
  const all = present === 0 ? others : (await read(false)).others;
  return { has: (address) => all.has(address), isComplete: false, others: all };
}

function readLinks(
  links: LinkClient,
  dummyIndex: number | undefined,
  isDesired: (address: Address) => boolean,
  pause: () => Promise<void>,
): Promise<Found & { readonly local: ReadonlySet<Address> }> {
  return links.listAddressesPaced(
    () => ({ desired: 0, others: new Set<Address>(), local: new Set<Address>() }),
    (found, index, address) => {
      if (index !== dummyIndex) found.local.add(address);
      else if (isDesired(address)) found.desired++;
      else found.others.add(address);
    },
    pause,
  );
}

/** Routes of our protocol. */
async function readRoutes(
  links: LinkClient,
  isDesired: (address: Address) => boolean,
  pause: () => Promise<void>,
): Promise<Found> {
  const all: Found = { desired: 0, others: new Set() };
  for (const family of FAMILIES) {
    const found = await links.routes.listPaced<Found>(
      family,
      () => ({ desired: 0, others: new Set() }),
      (into, _index, address) => {
        if (isDesired(address)) into.desired++;
        else into.others.add(address);
      },
      pause,
    );
    all.desired += found.desired;
    for (const address of found.others) all.others.add(address);
  }
  return all;
}
