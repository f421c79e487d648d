import { type RunCommand } from '../command.js';
import { IptablesMissingError, detectIptables } from './detect.js';
import { Iptables } from './iptables.js';

/** Whichever backend the rules were written with, before an upgrade of the image perhaps. */
export async function allBackends(run: RunCommand, isPresent: (module: string) => boolean): Promise<Iptables[]> {
  const found: Iptables[] = [];
  for (const backend of ['legacy', 'nft'] as const) {
    if (backend === 'nft' && !isPresent('nf_tables')) continue;
    try {
      found.push(new Iptables(await detectIptables(run, { backend, isPresent }), run));
    } catch (error) {
      if (!(error instanceof IptablesMissingError)) throw error;
    }
  }
  return found;
}
