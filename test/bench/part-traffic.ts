/**
 * New connections through IPVS beside a table of this size: from a client's namespace to backends in another, by VIPs
 * spread over the table, and to the same backends directly.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { ApiServer, type Scale, coldStart, untilQuiet } from './world.js';
import { scaleService, scaleSlices } from '../fakes/cluster-generator.js';

/** What `traffic ask` prints (traffic.c): connections one after another; microseconds to the first answer. */
interface Answers {
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly answered: number;
  readonly failed: number;
}

export interface TrafficResult {
  readonly direct: Answers;
  readonly throughIpvs: Answers;
}

/** So many Services are asked, evenly spread. */
const ASKED = 64;
/** Every address of a generated endpoint is in the backends' namespace. */
const ENDPOINTS = '10.128.0.0/10';
const NETWORK = [
  'netns add client',
  'netns add backends',
  'link add toclient type veth peer name eth0 netns client',
  'link add tobackends type veth peer name eth0 netns backends',
  'addr add 10.250.0.1/24 dev toclient',
  'addr add 10.251.0.1/24 dev tobackends',
  'link set toclient up',
  'link set tobackends up',
  '-n client addr add 10.250.0.2/24 dev eth0',
  '-n client link set eth0 up',
  '-n client link set lo up',
  '-n client route add default via 10.250.0.1',
  '-n backends addr add 10.251.0.2/24 dev eth0',
  '-n backends link set eth0 up',
  '-n backends link set lo up',
  '-n backends route add default via 10.251.0.1',
  `-n backends route add local ${ENDPOINTS} dev lo`,
  `route add ${ENDPOINTS} via 10.251.0.2`,
];

export async function measureTraffic(scale: Scale, directory: string, isQuick: boolean): Promise<TrafficResult> {
  for (const line of NETWORK) execFileSync('ip', line.split(' '));
  const program = `${directory}/../traffic`;
  const backends = spawn('ip', ['netns', 'exec', 'backends', program, 'serve', '8080'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(backends.stdout, 'data');
  const server = await ApiServer.start(scale);
  const { daemon } = await coldStart();
  await untilQuiet(daemon.pid);
  const seconds = isQuick ? '3' : '20';
  const ask = (port: number, addresses: readonly string[]): Answers => {
    const output = execFileSync(
      'ip',
      ['netns', 'exec', 'client', program, 'ask', seconds, String(port), ...addresses],
      {
        encoding: 'utf8',
      },
    );
    return JSON.parse(output) as Answers;
  };
  const services = Array.from({ length: ASKED }, (_, i) => Math.floor((i * scale.services) / ASKED));
  ask(80, services.map(vipOf)); // warms up what has been idle since the start
  const direct = ask(
    8080,
    services.map((i) => endpointOf(i, scale)),
  );
  const throughIpvs = ask(80, services.map(vipOf));
  backends.kill();
  await daemon.stop();
  server.stop();
  return { direct, throughIpvs };
}

function vipOf(service: number): string {
  return (scaleService(service)['spec'] as { clusterIP: string }).clusterIP;
}

function endpointOf(service: number, scale: Scale): string {
  const [slice] = scaleSlices(service, scale);
  return (slice!['endpoints'] as { addresses: string[] }[])[0]!.addresses[0]!;
}
