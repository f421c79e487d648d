/** Walks the table of traffic-cases.ts: makes the requests, compares, prints one line per case. */
import { type Protocol } from '../../src/values/protocol.js';
import { type Failure, type Histogram, type Outcome } from './harness/agent.js';
import { type Lab, NODE } from './harness/lab.js';
import { OTHER_NODE, OUTSIDE } from './harness/layout.js';
import { patience } from './harness/wait.js';
import {
  type AddressKind,
  type Expectation,
  formatExpectation,
  type Place,
  type Row,
  type Way,
} from './traffic-table.js';
import {
  BRIDGE_ADDRESSES,
  clusterIP,
  healthPort,
  NODE4,
  NODE6,
  nodePort,
  OTHER4,
  OUTSIDE4,
  OUTSIDE6,
  podAddress,
  SECOND4,
  type ServiceSpec,
} from './traffic-world.js';

type Family = 4 | 6;

export interface Case {
  readonly row: Row;
  readonly at: AddressKind;
  readonly way: Way;
  readonly family: Family;
  readonly place: Place;
  readonly address: string;
  readonly port: number;
  readonly expected: Expectation;
  /** Milliseconds for an answer, when the case is tried again anyhow. */
  readonly patience?: number;
}

export interface Verdict {
  readonly isExpected: boolean;
  readonly got: string;
}

/** What a server may see of masqueraded traffic: an address of the node, and never a VIP. */
const NODE_SOURCES = [NODE4, NODE6, SECOND4, ...BRIDGE_ADDRESSES];

/** Milliseconds for a refusal: less than the second after which a lost one is repeated. */
const AT_ONCE = 500;
/** Milliseconds after which silence is believed. */
const SILENCE = 400;
/** Milliseconds that a refusal may take before it is asked for again, and an answer on a busy machine. */
const REFUSAL_PATIENCE = patience(3000);
const PATIENCE = patience(15_000);

/** All cases of some rows, in the table's order. */
export function casesOf(rows: readonly Row[], services: readonly ServiceSpec[]): Case[] {
  return rows.flatMap((row) => {
    const service = services.find((one) => one.name === row.service);
    if (service === undefined) throw new Error(`the table names an unknown Service ${row.service}`);
    return row.at.flatMap((at) =>
      row.ways.flatMap((way) =>
        row.families.flatMap((family) =>
          row.expect.map(([place, expected]) => ({
            row,
            at,
            way,
            family,
            place,
            address: addressOf(at, service, family),
            port: portOf(row, at, way, service),
            expected,
          })),
        ),
      ),
    );
  });
}

function addressOf(at: AddressKind, service: ServiceSpec, family: Family): string {
  const index = family === 4 ? 0 : 1;
  if (at === 'clusterIP') return clusterIP(service.number, family);
  if (at === 'loadBalancer') return service.loadBalancerIPs![index]!;
  if (at === 'externalIP') return service.externalIPs![index]!;
  if (at === 'second') return SECOND4;
  if (at === 'loopback') return family === 4 ? '127.0.0.1' : '::1';
  return family === 4 ? NODE4 : NODE6;
}

function portOf(row: Row, at: AddressKind, way: Way, service: ServiceSpec): number {
  if (row.port !== undefined) return row.port;
  if (way === 'HTTP') return healthPort(service.number);
  const isNodePort = at === 'nodePort' || at === 'second' || at === 'loopback';
  return isNodePort ? nodePort(service.number) : (service.port ?? 80);
}

/**
 * Tries every case. Requests to one virtual server come one after the other, or round robin would not be seen;
 * different ones run side by side.
 */
export async function walk(lab: Lab, cases: readonly Case[]): Promise<Map<Case, Verdict>> {
  const verdicts = new Map<Case, Verdict>();
  const groups = new Map<string, Case[]>();
  for (const one of cases) {
    const target = `${one.way} ${one.address} ${one.port}`;
    groups.set(target, [...(groups.get(target) ?? []), one]);
  }
  const waiting = [...groups.values()];
  const worker = async (): Promise<void> => {
    for (let group = waiting.shift(); group !== undefined; group = waiting.shift()) {
      for (const one of group) verdicts.set(one, await attempt(lab, one));
    }
  };
  await Promise.all(Array.from({ length: 10 }, worker));
  return verdicts;
}

/** One line per case; `|` between columns. */
export function describeCase(one: Case, verdict: Verdict): string {
  const host = one.family === 6 ? `[${one.address}]` : one.address;
  const hasPort = one.way !== 'PING' && one.way !== 'ARP';
  const where = `${one.at} ${one.way} ${host}${hasPort ? `:${one.port}` : ''}`;
  const columns = [one.row.feature, where, `from ${one.place}`, formatExpectation(one.expected)];
  return `${verdict.isExpected ? 'ok    ' : 'WRONG '}${columns.join(' | ')}${verdict.isExpected ? '' : ` | got ${verdict.got}`}`;
}

async function attempt(lab: Lab, one: Case): Promise<Verdict> {
  const { expected, way: protocol } = one;
  if (protocol === 'PING' || protocol === 'ARP') return attemptEcho(lab, one, protocol);
  if (protocol === 'HTTP') return attemptHttp(lab, one);
  if (expected.what === 'answered') return attemptAnswered(lab, one, protocol, expected);
  if (expected.what === 'any' || expected.what === 'one') return attemptSomeone(lab, one, protocol, expected);
  if (expected.what === 'refused') return attemptRefused(lab, one, protocol);
  const outcome = await lab.agent.request(namespaceOf(one.place), { ...target(one, protocol), timeout: SILENCE });
  const isSilent = outcome.result === 'timeout' || isOwnDatagram(one, outcome);
  const isExpected = expected.what === 'unserved' ? outcome.result !== 'answered' : isSilent;
  return { isExpected, got: describe(outcome) };
}

/**
 * Refused at once. A second and third try are for what is not the kernel's doing: a busy machine, on which a refusal
 * comes late, and icmp_ratelimit, by which a host gets at most one "port unreachable" a second after a burst of six.
 */
async function attemptRefused(lab: Lab, one: Case, protocol: Protocol): Promise<Verdict> {
  for (let left = 2; ; left--) {
    const outcome = await lab.agent.request(namespaceOf(one.place), {
      ...target(one, protocol),
      timeout: REFUSAL_PATIENCE,
    });
    const isLate = isRefusal(one, outcome) && outcome.ms > AT_ONCE;
    const isSilenced = protocol === 'UDP' && outcome.result === 'timeout';
    if ((isLate || isSilenced) && left > 0) continue;
    return { isExpected: isRefusal(one, outcome) && !isLate, got: describe(outcome) };
  }
}

async function attemptEcho(lab: Lab, one: Case, protocol: 'PING' | 'ARP'): Promise<Verdict> {
  const { address, expected } = one;
  const place = namespaceOf(one.place);
  const timeout = expected.what === 'echo' ? (one.patience ?? PATIENCE) : SILENCE;
  const outcome =
    protocol === 'PING'
      ? await lab.agent.ping(place, { address, timeout })
      : await lab.agent.arp(place, { interface: 'br0', address, sourceAddress: '10.200.0.1', timeout });
  return { isExpected: outcome.result === (expected.what === 'echo' ? 'answered' : 'timeout'), got: outcome.result };
}

async function attemptSomeone(
  lab: Lab,
  one: Case,
  protocol: Protocol,
  expected: Expectation & { what: 'any' | 'one' },
): Promise<Verdict> {
  const counts = await lab.agent.many(namespaceOf(one.place), 4, {
    ...target(one, protocol),
    timeout: one.patience ?? PATIENCE,
  });
  const names = Object.keys(counts.by);
  const isExpected =
    counts.answered === 4 &&
    names.every((name) => expected.of.includes(name)) &&
    (expected.what === 'any' || names.length === 1);
  return { isExpected, got: describeCounts(counts) };
}

function isRefusal(one: Case, outcome: Outcome): boolean {
  return outcome.result === 'refused' || isOwnDatagram(one, outcome);
}

/**
 * What is dropped on the node's own way out, by IPVS or by a rule, send(2) refuses with EPERM: at once, and nothing is
 * sent.
 */
function isOwnDatagram(one: Case, outcome: Outcome): boolean {
  return one.place === 'node' && one.way === 'UDP' && outcome.result === 'error' && outcome.errno === 'EPERM';
}

async function attemptAnswered(
  lab: Lab,
  one: Case,
  protocol: Protocol,
  expected: Expectation & { what: 'answered' },
): Promise<Verdict> {
  const place = namespaceOf(one.place);
  const counts = await lab.agent.many(place, expected.by.length * 2, {
    ...target(one, protocol),
    timeout: one.patience ?? PATIENCE,
  });
  const self = { self: placeAddress(one.place, one.family), target: one.address, node: undefined }[expected.seen];
  const sources = self === undefined ? NODE_SOURCES : [self];
  const isExpected =
    sameKeys(counts.by, expected.by) &&
    Object.keys(counts.seen).every((seen) => sources.includes(seen)) &&
    Object.keys(counts.failed).length === 0;
  return { isExpected, got: describeCounts(counts) };
}

async function attemptHttp(lab: Lab, one: Case): Promise<Verdict> {
  const { address, port } = one;
  const timeout = one.expected.what === 'health' ? (one.patience ?? PATIENCE) : SILENCE;
  const outcome = await lab.agent.http(namespaceOf(one.place), { address, port, path: '/', timeout });
  if (outcome.result !== 'answered')
    return { isExpected: one.expected.what === outcome.result, got: describe(outcome) };
  const body = JSON.parse(outcome.body) as { localEndpoints?: number };
  const isExpected =
    one.expected.what === 'health' &&
    outcome.status === one.expected.status &&
    body.localEndpoints === one.expected.localEndpoints;
  return { isExpected, got: `HTTP ${outcome.status} ${outcome.body}` };
}

function target(one: Case, protocol: Protocol): { protocol: Protocol; address: string; port: number } {
  return { protocol, address: one.address, port: one.port };
}

export function namespaceOf(place: Place): string {
  if (place === 'node') return NODE;
  return place === 'other' ? OTHER_NODE : place === 'outside' ? OUTSIDE : place;
}

export function placeAddress(place: Place, family: Family): string {
  if (place === 'node') return family === 4 ? NODE4 : NODE6;
  if (place === 'other') return family === 4 ? OTHER4 : 'fd00:200::3';
  if (place === 'outside') return family === 4 ? OUTSIDE4 : OUTSIDE6;
  return podAddress(place, family);
}

function sameKeys(counts: Record<string, number>, names: readonly string[]): boolean {
  return Object.keys(counts).sort().join() === [...names].sort().join();
}

function describe(outcome: Outcome | Failure): string {
  if (outcome.result === 'answered') return `answer of ${outcome.by}, source ${outcome.seen}`;
  return `${outcome.result}${outcome.errno === undefined ? '' : ` (${outcome.errno})`} after ${outcome.ms} ms`;
}

function describeCounts(counts: Histogram): string {
  const show = (table: Record<string, number>): string =>
    Object.entries(table)
      .map(([key, count]) => `${key} x${count}`)
      .join(' ');
  return `by ${show(counts.by)}, source ${show(counts.seen)}, failed ${show(counts.failed)}`;
}
