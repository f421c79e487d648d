/** `explain`: what happens to a packet on this node, and why. */
import { type Environment } from '../daemon/environment.js';
import {
  type Explanation,
  type PacketQuestion,
  type WalkBackend,
  type WalkVerdict,
  explain,
} from '../daemon/explain.js';
import { parseAddress } from '../values/address.js';
import { isProtocol } from '../values/protocol.js';
import { type ExplainOptions } from './options.js';
import { formatChange } from './plan-text.js';

/** Exit code when the kernel differs from what the answer follows from. */
const DIFFERS = 2;
/** Backends and differences printed; JSON has all. */
const MANY = 20;

/** Prints the way of a packet, step by step, and what comes of it. Throws on a destination that cannot be read. */
export async function runExplain(options: ExplainOptions, environment: Environment): Promise<number> {
  const found = await explain(parseQuestion(options), options, environment);
  if (options.json) environment.out(`${JSON.stringify(found)}\n`);
  else environment.out(formatExplanation(found, options.wide));
  return found.kernelDiffers.length === 0 ? 0 : DIFFERS;
}

/** `10.96.0.1:443`, `[fd00::1]:53/UDP`. Throws Error, saying what is wrong. */
export function parseQuestion(options: Pick<ExplainOptions, 'destination' | 'from' | 'interface'>): PacketQuestion {
  const { destination: text, from: fromText, interface: comesBy } = options;
  const [, bracketed, plain, portText, protocolText = 'TCP'] =
    /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})(?:\/([a-zA-Z]+))?$/.exec(text) ?? [];
  const destination = parseAddress(bracketed ?? plain ?? '');
  const port = Number(portText);
  if (destination === undefined || port < 1 || port > 65535)
    throw new Error(
      `not a destination: ${text} (wanted is ADDRESS:PORT[/PROTOCOL], as 10.96.0.1:443 or [fd00::1]:53/UDP)`,
    );
  const protocol = protocolText.toUpperCase();
  if (!isProtocol(protocol)) throw new Error(`${protocolText} is not a protocol of Services: TCP, UDP or SCTP`);
  const from = fromText === undefined ? undefined : parseAddress(fromText);
  if (fromText !== undefined && from === undefined) throw new Error(`--from ${fromText} is not an IP address`);
  if (from !== undefined && from.length !== destination.length)
    throw new Error(`--from ${fromText} and ${text} are not of one family`);
  return { destination, port, protocol, from, comesBy };
}

/** The steps, numbered, with their rules if `isWide`; the outcome; what the kernel lacks. */
export function formatExplanation(found: Explanation, isWide: boolean): string {
  const { packet, steps, verdict, notes, kernelDiffers } = found;
  const host = packet.destination.includes(':') ? `[${packet.destination}]` : packet.destination;
  const lines = [`${packet.protocol} ${host}:${packet.port} from ${packet.source} (${packet.from})`];
  for (const [i, { at, text, rule, entries = [] }] of steps.entries()) {
    lines.push(`${String(i + 1).padStart(3)}. ${at}: ${text}`);
    if (isWide && rule !== undefined) lines.push(`     rule: ${rule}`);
    if (isWide) for (const { set, entry } of entries) lines.push(`     ${set} has ${entry}`);
  }
  lines.push(...outcome(verdict, packet.source));
  for (const note of notes) lines.push(`note: ${note}`);
  if (kernelDiffers.length === 0) lines.push('the kernel has it so');
  else {
    lines.push('THE KERNEL DIFFERS; a sync would');
    for (const change of kernelDiffers.slice(0, MANY)) lines.push(`  ${formatChange(change)}`);
    if (kernelDiffers.length > MANY) lines.push(`  and ${kernelDiffers.length - MANY} more (-o json names them)`);
  }
  return `${lines.join('\n')}\n`;
}

function outcome(verdict: WalkVerdict, source: string): string[] {
  switch (verdict.kind) {
    case 'served': {
      const { service, scheduler, persistenceTimeout, backends } = verdict;
      const kept = persistenceTimeout > 0 ? `, the same for ${persistenceTimeout} s` : '';
      const lines = [`=> served by ${service}, by one of these (${scheduler}${kept}):`];
      for (const backend of backends.slice(0, MANY)) lines.push(`   ${formatBackend(backend, source)}`);
      if (backends.length > MANY) lines.push(`   and ${backends.length - MANY} more (-o json names them)`);
      return lines;
    }
    case 'refused':
      return [`=> refused, by ${verdict.by === 'reset' ? 'a TCP reset' : '"port unreachable"'}`];
    case 'dropped':
      return ['=> dropped: the client hears nothing'];
    case 'host': {
      const { healthCheck } = verdict;
      if (healthCheck === undefined) return ['=> not a Service: a process of this node has it, or refuses it'];
      const status = healthCheck.localEndpoints > 0 ? 200 : 503;
      return [`=> health check of ${healthCheck.service}: ${status}, ${healthCheck.localEndpoints} local endpoints`];
    }
    case 'not-ours':
      return ['=> not a Service: nothing here concerns it'];
  }
}

function formatBackend({ address, port, seenAs, answersThisWay }: WalkBackend, source: string): string {
  const host = address.includes(':') ? `[${address}]` : address;
  const seen = seenAs === 'node' ? 'an address of this node' : `the client itself, ${source}`;
  const lost = answersThisWay ? '' : '; its answer does not come back this way: THE CLIENT HEARS NOTHING';
  return `${host}:${port} sees ${seen}${lost}`;
}
