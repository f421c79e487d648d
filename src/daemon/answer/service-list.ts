/** Which Services somebody asks for, found, counted and sorted in turns with the event loop's other work. */
import { formatVirtualServer, realServerKeyLength, virtualServerFamily } from '../../values/virtual-server.js';
import { type Service } from '../../model/service.js';
import { type ServiceFilter, type ServicesQuery } from '../../serve/inspection.js';
import { type DataPlane } from '../data-plane.js';
import { serviceMatcher } from './service-matcher.js';
import { type Turns, sortInTurns } from '../../time/turns.js';

export type ListedDataPlane = Pick<DataPlane, 'cluster' | 'updater' | 'ipvs'>;

export interface ListedServices {
  /** All that match, by filter. */
  readonly counts: Record<ServiceFilter, number>;
  /** Those of the filter that was asked for, in order. */
  readonly services: readonly Service[];
}

interface Listed {
  readonly service: Service;
  /** What is sorted by before the name. */
  readonly rank: number;
}

/** What can be told of a Service from a few look-ups. */
interface ServiceFacts {
  /** Most that one of its virtual servers sends traffic to. */
  readonly backends: number;
  readonly draining: number;
  readonly noEndpoints: boolean;
  readonly unwritten: boolean;
}

/**
 * Memory: one reference per Service found, while the answer is made. Services that come or go meanwhile may be in it.
 */
export async function listServices(
  dataPlane: ListedDataPlane,
  query: Omit<ServicesQuery, 'offset' | 'limit'>,
  turns: Turns,
): Promise<ListedServices> {
  const contested = await contestedServices(dataPlane, turns);
  const matches = queryMatcher(dataPlane, query);
  const counts = { all: 0, noEndpoints: 0, draining: 0, contested: 0, unwritten: 0 };
  const found: Listed[] = [];
  for (const service of dataPlane.cluster.services.values()) {
    const steps = 1 + (dataPlane.updater.desired.services.get(service.key)?.virtualServers.length ?? 0);
    if (turns.spend(steps)) await turns.next();
    if (!matches(service)) continue;
    const facts = factsOf(dataPlane, service.key);
    const has: Record<ServiceFilter, boolean> = {
      all: true,
      noEndpoints: facts.noEndpoints,
      draining: facts.draining > 0,
      contested: contested.has(service.key),
      unwritten: facts.unwritten,
    };
    for (const filter of Object.keys(counts) as ServiceFilter[]) if (has[filter]) counts[filter]++;
    if (has[query.filter]) found.push({ service, rank: rankOf(facts, query) });
  }
  const sorted = await sortInTurns(found, comparison(query), turns);
  return { counts, services: sorted.map(({ service }) => service) };
}

function queryMatcher(
  { cluster, updater }: ListedDataPlane,
  { namespace, match, search }: Pick<ServicesQuery, 'namespace' | 'match' | 'search'>,
): (service: Service) => boolean {
  const { context, desired } = updater;
  const isNamed = serviceMatcher(match, cluster, context);
  const isPlace = serviceMatcher(search, cluster, context);
  const isPartOfAddress = /^(?=.*[0-9])(?=.*[.:])[0-9a-f.:[\]]+$/.test(search);
  const hasAddress = ({ key }: Service): boolean =>
    desired.services.get(key)?.virtualServers.some((one) => formatVirtualServer(one.key).includes(search)) === true;
  return (service) =>
    (namespace === '' || service.key.startsWith(`${namespace}/`)) &&
    isNamed(service) &&
    (service.key.includes(search) || isPlace(service) || (isPartOfAddress && hasAddress(service)));
}

/** Those that quarrel about an address, whoever has it. */
async function contestedServices({ updater }: ListedDataPlane, turns: Turns): Promise<ReadonlySet<string>> {
  const contested = new Set<string>();
  for (const { winner, loser } of updater.claims.pairs) {
    contested.add(winner).add(loser);
    if (turns.spend()) await turns.next();
  }
  return contested;
}

function factsOf({ updater, ipvs }: ListedDataPlane, service: string): ServiceFacts {
  let [backends, draining] = [0, 0];
  let [noEndpoints, unwritten] = [false, false];
  for (const { key, realServers } of updater.desired.services.get(service)?.virtualServers ?? []) {
    const length = realServerKeyLength(virtualServerFamily(key));
    const applied = ipvs.applied.get(key);
    backends = Math.max(backends, realServers.length / length);
    draining += (applied?.draining.length ?? 0) / length;
    noEndpoints ||= realServers === '';
    unwritten ||= applied?.realServers !== realServers;
  }
  return { backends, draining, noEndpoints, unwritten };
}

function rankOf({ backends, draining }: ServiceFacts, { order }: Pick<ServicesQuery, 'order'>): number {
  return order === 'backends' ? backends : order === 'draining' ? draining : 0;
}

/** Of the same rank by name upwards, whichever way the ranks go. */
function comparison({ order, descending }: Pick<ServicesQuery, 'order' | 'descending'>) {
  const sign = descending ? -1 : 1;
  const byName = (a: Listed, b: Listed): number =>
    a.service.key < b.service.key ? -1 : a.service.key > b.service.key ? 1 : 0;
  if (order === 'name') return (a: Listed, b: Listed) => sign * byName(a, b);
  return (a: Listed, b: Listed) => sign * (a.rank - b.rank) || byName(a, b);
}
