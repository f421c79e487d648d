import { type DesiredState, type Touched, newTouched, touchEntry } from '../desired/desired-state.js';
import { allIpsetDefinitions, type IpsetName } from '../desired/ipset-definitions.js';
import { type Comparison, isExtraAddress, mayFollowFromNode, ownershipAtStart } from './compare.js';
import { type ObservedKernel } from './observe-kernel.js';
import { Pacer } from '../time/pacer.js';

/**
 * Takes over what is in the kernel, this program's from an earlier run or kube-proxy's: afterwards `applied` knows it
 * and `touched` names what is to be changed. `touched` comes in naming all that is desired, so that a start on an empty
 * node, where nothing is observed, has next to nothing to do here. Changes nothing in the kernel.
 */
export async function adopt(comparison: Comparison, observed: ObservedKernel, touched: Touched): Promise<void> {
  const pacer = comparison.stop?.pacer() ?? new Pacer();
  const isOurs = ownershipAtStart(comparison, observed);
  for (const [key, observedEntries] of observed.servers) {
    if (pacer.isDue) await pacer.yieldIfDue();
    if (!isOurs(key)) continue;
    comparison.applied.set(key, observedEntries);
    touched.servers.add(key);
  }
  if (observed.bound.isComplete) touched.addresses.clear();
  for (const address of observed.local) if (!observed.bound.has(address)) touched.addresses.delete(address);
  for (const address of observed.bound.others) {
    if (pacer.isDue) await pacer.yieldIfDue();
    if (comparison.isDesired(address)) touched.addresses.delete(address);
    else if (isExtraAddress(address, comparison)) touched.addresses.add(address);
  }
  for (const [set, observedEntries] of observed.sets) {
    const desiredEntries = comparison.desired.entries(set);
    if (observedEntries === desiredEntries) touched.entries.delete(set);
    else
      for (const entry of observedEntries.keys()) {
        if (pacer.isDue) await pacer.yieldIfDue();
        if (desiredEntries.has(entry)) touched.entries.get(set)?.delete(entry);
        else if (!mayFollowFromNode(set, comparison.isNodeKnown)) touchEntry(touched, set, entry);
      }
  }
}

/** All that is desired: what `adopt` begins with. */
export function touchAll(desired: DesiredState): Touched {
  const touched = newTouched();
  for (const key of desired.virtualServers.keys()) touched.servers.add(key);
  for (const address of desired.addresses()) touched.addresses.add(address);
  for (const set of allIpsetDefinitions().keys() as Iterable<IpsetName>)
    for (const entry of desired.entries(set).keys()) touchEntry(touched, set, entry);
  return touched;
}
