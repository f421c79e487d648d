/** `explain`: what happens to a packet on this node, and why. */
import { type Environment } from '../daemon/environment.js';
import {
  type Explanation,
  type PacketQuestion,
  type WalkBackend,
  type WalkVerdict,
  explain,
} from '../daemon/answer/explain.js';
import { parseAddress } from '../values/address.js';
import { isProtocol } from '../values/protocol.js';
import { type ExplainOptions } from './options.js';
import { hostPort } from './service-view.js';
import { formatChange } from './plan-text.js';
import { type Answer, show } from './see.js';

/** Exit code when the kernel differs from what the answer follows from. */
const DIFFERS = 2;
/** Backends and differences printed unless all are asked for. */
const MANY = 20;

/** Prints the way of a packet, step by step, and what comes of it. Rejects on a destination that cannot be read. */
export async function runExplain(options: ExplainOptions, environment: Environment): Promise<number> {
  const question = parseQuestion(options);
  return show(options, environment, async () => {
    const found = await explain(question, options, environment);
    return explanationAnswer(found, options.format === 'wide');
  });
}

/** `-o name` has the backends, one of which gets the packet. */
export function explanationAnswer(found: Explanation, isWide: boolean): Answer {
  const { verdict, kernelDiffers } = found;
  const names = verdict.kind === 'served' ? verdict.backends.map(({ address, port }) => hostPort(address, port)) : [];
  const text = formatExplanation(found, isWide).trimEnd().split('\n');
  return { data: found, text, names, notes: [], code: kernelDiffers.length === 0 ? 0 : DIFFERS };
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
      `not a destination: ${text} (wanted is ADDRESS:PORT[/PROTOCOL], as 10.96.0.1:443 or [fd00::1]:53/UDP${addressesOf(text)})`,
    );
  const protocol = protocolText.toUpperCase();
  if (!isProtocol(protocol)) throw new Error(`${protocolText} is not a protocol of Services: TCP, UDP or SCTP`);
  const from = fromText === undefined ? undefined : parseAddress(fromText);
  if (fromText !== undefined && from === undefined) throw new Error(`--from ${fromText} is not an IP address`);
  if (from !== undefined && from.length !== destination.length)
    throw new Error(`--from ${fromText} and ${text} are not of one family`);
  return { destination, port, protocol, from, comesBy };
}

/** Where a name is typed: who knows its addresses. */
function addressesOf(text: string): string {
  return /^[a-z][a-z0-9.-]*(\/[a-z0-9.-]+)?$/.test(text) ? `; \`services ${text}\` has the addresses of a Service` : '';
}

/** The steps, numbered, with their rules if `isWide`; the outcome; what the kernel lacks. */
export function formatExplanation(found: Explanation, isWide: boolean): string {
  const { packet, steps, verdict, notes, kernelDiffers } = found;
  const lines = [
    `${packet.protocol} ${hostPort(packet.destination, packet.port)} from ${packet.source} (${packet.from})`,
  ];
  for (const [i, { at, text, rule, entries = [] }] of steps.entries()) {
    lines.push(`${String(i + 1).padStart(3)}. ${at}: ${text}`);
    if (isWide && rule !== undefined) lines.push(`     rule: ${rule}`);
    if (isWide) for (const { set, entry } of entries) lines.push(`     ${set} has ${entry}`);
  }
  const many = isWide ? Infinity : MANY;
  lines.push(...outcome(verdict, packet.source, many));
  for (const note of notes) lines.push(`note: ${note}`);
  if (kernelDiffers.length === 0) lines.push('the kernel has it so');
  else {
    lines.push('THE KERNEL DIFFERS; a sync would');
    for (const change of kernelDiffers.slice(0, many)) lines.push(`  ${formatChange(change)}`);
    if (kernelDiffers.length > many) lines.push(`  and ${kernelDiffers.length - many} more (-o wide names them)`);
  }
  return `${lines.join('\n')}\n`;
}

function outcome(verdict: WalkVerdict, source: string, many: number): string[] {
  switch (verdict.kind) {
    case 'served': {
      const { service, scheduler, persistenceTimeout, backends } = verdict;
      const kept = persistenceTimeout > 0 ? `, the same for ${persistenceTimeout} s` : '';
      const lines = [`=> served by ${service}, by one of these (${scheduler}${kept}):`];
      for (const backend of backends.slice(0, many)) lines.push(`   ${formatBackend(backend, source)}`);
      if (backends.length > many) lines.push(`   and ${backends.length - many} more (-o wide names them)`);
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
  const seen = seenAs === 'node' ? 'an address of this node' : `the client itself, ${source}`;
  const lost = answersThisWay ? '' : '; its answer does not come back this way: THE CLIENT HEARS NOTHING';
  return `${hostPort(address, port)} sees ${seen}${lost}`;
}
