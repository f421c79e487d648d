/**
 * Builds the laboratory of the traffic tests: the pods of traffic-world.ts, all serving, and the host's own servers.
 */
import { shell } from './harness/kernel-state.js';
import { Lab, NODE } from './harness/lab.js';
import { OTHER_NODE, type PodSpec } from './harness/layout.js';
import { BRIDGE_ADDRESSES, nodePort, PODS, SECOND4, SERVICE_PREFIXES, TARGET_PORT } from './traffic-world.js';

const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const;

export async function createTrafficLab(pods: readonly PodSpec[] = PODS): Promise<Lab> {
  const lab = await Lab.create({
    pods,
    servicePrefixes: SERVICE_PREFIXES,
    bridgeAddresses: [`${BRIDGE_ADDRESSES[0]}/24`, `${BRIDGE_ADDRESSES[1]}/64`],
  });
  await shell(`ip addr add ${SECOND4}/32 dev eth0`);
  const serving = pods.flatMap((pod) =>
    pod.addresses.flatMap((address) =>
      PROTOCOLS.map((protocol) => lab.agent.serve(pod.name, { protocol, address, port: TARGET_PORT, by: pod.name })),
    ),
  );
  for (const address of ['0.0.0.0', '::']) {
    // 2222 stands for a port of the host such as sshd's, 9022 and 9023 for backends on the nodes' own networks.
    serving.push(
      lab.agent.serve(NODE, { protocol: 'TCP', address, port: 2222, by: 'host' }),
      lab.agent.serve(NODE, { protocol: 'UDP', address, port: 2222, by: 'host' }),
      lab.agent.serve(NODE, { protocol: 'TCP', address, port: 9022, by: 'host' }),
      // A process of the host on the number of a NodePort, which IPVS serves before it.
      lab.agent.serve(NODE, { protocol: 'TCP', address, port: nodePort(6), by: 'host' }),
      lab.agent.serve(NODE, { protocol: 'UDP', address, port: nodePort(6), by: 'host' }),
      lab.agent.serve(OTHER_NODE, { protocol: 'TCP', address, port: 9023, by: 'otherhost' }),
    );
  }
  await Promise.all(serving);
  return lab;
}
