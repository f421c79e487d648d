/**
 * How long a change takes from the API server's write to the real server in the kernel, on one clock (CLOCK_MONOTONIC).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { openNetlinkSocket } from '../../native/libc.js';
import { IpvsClient } from '../../src/kernel/ipvs/client.js';
import { parseAddress } from '../../src/values/address.js';
import {
  type RealServerKey,
  type VirtualServerKey,
  addressServerKey,
  realServerKey,
} from '../../src/values/virtual-server.js';
import { scaleService, scaleSlices } from '../fakes/cluster-generator.js';
import { type ApiServer, type Scale } from './world.js';

const PAUSE_MS = 20;
const POLL_MS = 2;
const PATIENCE_NS = 600_000_000_000n;
/** Not the first: where 200 changes are spread over 10,000 Services, that one would always be on this node. */
const CHANGED_ENDPOINT = 1;
const BURST_ENDPOINT = 7;
const BURST_ROUND = 500;
/** A prime: services far apart, each in its turn. */
const SPREAD = 7919;
const WHILE_ROUND = 50;
/** A prime: a Service in its turn again gets another pod than the last time, whatever their number. */
const WHILE_ROUNDS = 97;
let whileRound = 0;
/** Changes after the update go on where those before it ended: no pod gets the address of an earlier one. */
const LATER_ROUND = 250;

interface Expected {
  readonly server: VirtualServerKey;
  readonly real: RealServerKey;
}

/**
 * Replaces one endpoint of one Service `count` times, each time of another Service spread over all, `pauseMs` after the
 * change before.
 */
export interface Quantiles {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** So many changes of Services that are programmed, spread over all, one after another, as long as `isGoing`. */
export async function measureWhile(scale: Scale, api: ApiServer, isGoing: () => boolean): Promise<Quantiles> {
  const ipvs = new IpvsClient(openNetlinkSocket);
  const times: number[] = [];
  for (let i = 0; isGoing(); i++) {
    const service = (i * SPREAD) % scale.services;
    const moved = { endpoint: CHANGED_ENDPOINT, by: WHILE_ROUND + (whileRound++ % WHILE_ROUNDS) };
    if (!isProgrammed(ipvs, expectation(scale, service, { ...moved, by: 0 }))) {
      await sleep(POLL_MS);
      continue;
    }
    const expected = expectation(scale, service, moved);
    const { endpointsPerService } = scale;
    const answer = api.send({ op: 'move', from: service, to: service + 1, endpointsPerService, ...moved });
    const seenAt = await waitFor(() => isThere(ipvs, expected));
    times.push(Number(seenAt - BigInt((await answer)[0]!.at)) / 1e6);
    await sleep(PAUSE_MS);
  }
  ipvs.close();
  return quantilesOf(times);
}

export async function measureChanges(scale: Scale, api: ApiServer, count: number, firstRound = 1, pauseMs = PAUSE_MS) {
  const ipvs = new IpvsClient(openNetlinkSocket);
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const service = Math.floor((i * scale.services) / count);
    const moved = { endpoint: CHANGED_ENDPOINT, by: firstRound + i };
    const expected = expectation(scale, service, moved);
    const { endpointsPerService } = scale;
    const answer = api.send({ op: 'move', from: service, to: service + 1, endpointsPerService, ...moved });
    const seenAt = await waitFor(() => isThere(ipvs, expected));
    times.push(Number(seenAt - BigInt((await answer)[0]!.at)) / 1e6);
    await sleep(pauseMs);
  }
  ipvs.close();
  return quantilesOf(times);
}

/** Single changes spread over so many seconds, after a rolling update, while the kernel lists what was deleted. */
export function measureLaterChanges(scale: Scale, api: ApiServer, seconds: number) {
  const count = 200;
  return measureChanges(scale, api, count, LATER_ROUND, (1000 * seconds) / count);
}

/**
 * Replaces one endpoint in every EndpointSlice; resolves to the milliseconds from the first write until every new real
 * server is there and every old one has weight 0 or is gone.
 */
export async function measureBurst(scale: Scale, api: ApiServer): Promise<number> {
  const ipvs = new IpvsClient(openNetlinkSocket);
  const { services, endpointsPerService } = scale;
  const moved = { endpoint: Math.min(BURST_ENDPOINT, endpointsPerService - 1), by: BURST_ROUND };
  const answer = api.send({ op: 'move', from: 0, to: services, endpointsPerService, ...moved });
  let seenAt = 0n;
  // The daemon works in the order of the changes: when the last one is there the others are, and that is looked at,
  // too.
  for (let service = services - 1; service >= 0; service--) {
    const expected = expectation(scale, service, moved);
    const isDone = (): boolean => isThere(ipvs, expected) && countActive(ipvs, expected) === endpointsPerService;
    if (seenAt === 0n || !isDone()) seenAt = await waitFor(isDone);
  }
  ipvs.close();
  return Number(seenAt - BigInt((await answer)[0]!['publishedAt'] as string)) / 1e6;
}

function expectation(scale: Scale, service: number, moved: { endpoint: number; by: number }): Expected {
  const { clusterIP } = scaleService(service)['spec'] as { clusterIP: string };
  const [slice] = scaleSlices(service, scale, moved);
  const endpoints = slice!['endpoints'] as { addresses: string[] }[];
  return {
    server: addressServerKey('TCP', parseAddress(clusterIP)!, 80),
    real: realServerKey(parseAddress(endpoints[moved.endpoint]!.addresses[0]!)!, 8080),
  };
}

function isThere(ipvs: IpvsClient, { server, real }: Expected): boolean {
  return ipvs.listRealServers(server).some(({ key, weight }) => key === real && weight === 1);
}

/** Whether there is such a virtual server with real servers. */
function isProgrammed(ipvs: IpvsClient, { server }: Expected): boolean {
  try {
    return ipvs.listRealServers(server).length > 0;
  } catch {
    return false; // none yet
  }
}

function countActive(ipvs: IpvsClient, { server }: Expected): number {
  return ipvs.listRealServers(server).filter(({ weight }) => weight > 0).length;
}

/**
 * Looks every POLL_MS, so that what it returns is that much too late at most. More often, or without a pause, it would
 * take the test kernel's one CPU from the daemon: its scheduler lets even an idle-class process run for 10 ms now and
 * then.
 */
async function waitFor(isDone: () => boolean): Promise<bigint> {
  const end = process.hrtime.bigint() + PATIENCE_NS;
  while (!isDone()) {
    if (process.hrtime.bigint() > end) throw new Error('a change never reached the kernel');
    await sleep(POLL_MS);
  }
  return process.hrtime.bigint();
}

function quantilesOf(times: number[]): Quantiles {
  times.sort((a, b) => a - b);
  const count = times.length;
  return { count, p50Ms: quantile(times, 0.5), p99Ms: quantile(times, 0.99), maxMs: quantile(times, 1) };
}

function quantile(sorted: readonly number[], share: number): number {
  const value = sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return Math.round(value * 100) / 100;
}
