/**
 * Builds the laboratory of the traffic tests: the pods of traffic-world.ts, all serving, and the host's own servers.
 */
import { type Protocol } from '../../src/values/protocol.js';
import { shell } from './harness/kernel-state.js';
import { Lab, NODE } from './harness/lab.js';
import { OTHER_NODE, type PodSpec } from './harness/layout.js';
import {
  BRIDGE_ADDRESSES,
  nodePort,
  PODS,
  SECOND4,
  SECOND_PORT,
  SERVICE_PREFIXES,
  TARGET_PORT,
} from './traffic-world.js';

const PROTOCOLS: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];

/** A socket of SCTP loads the kernel's module. */
export async function createTrafficLab(pods: readonly PodSpec[] = PODS, protocols = PROTOCOLS): Promise<Lab> {
  const lab = await Lab.create({
    pods,
    servicePrefixes: SERVICE_PREFIXES,
    bridgeAddresses: [`${BRIDGE_ADDRESSES[0]}/24`, `${BRIDGE_ADDRESSES[1]}/64`],
  });
  await shell(`ip addr add ${SECOND4}/32 dev eth0`);
  const serving = pods.flatMap((pod) =>
    pod.addresses.flatMap((address) =>
      protocols.flatMap((protocol) => [
        lab.agent.serve(pod.name, { protocol, address, port: TARGET_PORT, by: pod.name }),
        lab.agent.serve(pod.name, { protocol, address, port: SECOND_PORT, by: `${pod.name}81` }),
      ]),
    ),
  );
  for (const address of ['0.0.0.0', '::']) {
    // 2222 stands for a port of the host such as sshd's, 9022 and 9023 for backends on the nodes' own networks.
    for (const protocol of ['TCP', 'UDP'] as const) {
      serving.push(
        lab.agent.serve(NODE, { protocol, address, port: 2222, by: 'host' }),
        lab.agent.serve(NODE, { protocol, address, port: 9022, by: 'host' }),
        // A process of the host on the number of a NodePort, which IPVS serves before it.
        lab.agent.serve(NODE, { protocol, address, port: nodePort(6), by: 'host' }),
        lab.agent.serve(OTHER_NODE, { protocol, address, port: 9023, by: 'otherhost' }),
      );
    }
  }
  await Promise.all(serving);
  return lab;
}
