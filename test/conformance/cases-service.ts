/** The cases of test/e2e/network/service.go; see cases.ts. */
import { other, packets, type Section } from './verdicts.js';

export const SERVICE_SECTION: Section = {
  file: 'service.go',
  group: 'Services',
  cases: [
    packets(
      '[C] should serve a basic endpoint from pods',
      'golden: TCP and UDP requests through cluster IPs reach every backend',
      'golden: an endpoint change reaches the kernel by its event',
    ),
    packets(
      '[C] should serve multiport endpoints from pods',
      'traffic: slices of other port numbers',
      'live-changes: a port is added',
    ),
    packets(
      'should be updated after adding or deleting ports',
      'live-changes: a port is added',
      'live-changes: the port is removed',
      'live-changes: while its cluster IP is served: no request has failed',
    ),
    packets('should preserve source pod IP for traffic thru service cluster IP [LinuxOnly]', 'traffic: ClusterIP'),
    packets(
      'should allow pods to hairpin back to themselves through services',
      'traffic: hairpin: a pod reaches itself',
      'traffic: hairpin on a bridge',
    ),
    packets(
      'should be able to up and down services',
      'live-changes: deleted: nothing is served',
      'live-changes: one Service takes over the address',
    ),
    packets(
      'should work after the service has been recreated',
      'live-changes: created again with the same name and address',
      'live-changes: deleted and created with another address, in one moment',
    ),
    packets(
      'should work after restarting kube-proxy [Disruptive]',
      'reliability-restart: SIGTERM and start',
      'reliability-restart: kill -9 at random moments',
    ),
    packets(
      'should work after restarting apiserver [Disruptive]',
      'reliability-restart: the API server goes away and comes back with changes',
      'reliability-restart: the API server restarts with its history compacted',
    ),
    packets('[C] should be able to create a functioning NodePort service', 'traffic: NodePort'),
    packets(
      'should be possible to connect to a service via ExternalIP when the external IP is not assigned to a node',
      'traffic: external IP, LB IP',
    ),
    packets(
      'should be able to update service type to NodePort listening on same port number but different protocols',
      'live-changes: ClusterIP -> NodePort with TCP and UDP on one port',
    ),
    packets(
      '[C] should be able to change the type from ExternalName to ClusterIP',
      'live-changes: ExternalName -> ClusterIP',
    ),
    packets(
      '[C] should be able to change the type from ExternalName to NodePort',
      'live-changes: ExternalName -> NodePort',
    ),
    packets(
      '[C] should be able to change the type from ClusterIP to ExternalName',
      'live-changes: ClusterIP -> ExternalName',
    ),
    packets(
      '[C] should be able to change the type from NodePort to ExternalName',
      'live-changes: NodePort -> ExternalName',
    ),
    other('should prevent NodePort collisions', 'API server'),
    other('should check NodePort out-of-range', 'API server'),
    other('should release NodePorts on delete', 'API server'),
    packets('should create endpoints for unready pods', 'traffic: terminating and not serving, but published'),
    packets(
      'should be able to connect to terminating and unready endpoints if PublishNotReadyAddresses is true',
      'traffic: terminating and not serving, but published',
    ),
    packets(
      'should not be able to connect to terminating and unready endpoints if PublishNotReadyAddresses is false',
      'traffic: terminating and not serving',
    ),
    packets('[C] should have session affinity work for service with type clusterIP [LinuxOnly]', 'traffic: affinity'),
    packets(
      'should have session affinity timeout work for service with type clusterIP [LinuxOnly]',
      'live-flows: affinity times out by UDP, by each kind of address',
      'live-flows: affinity times out by TCP, once its connections have gone',
    ),
    packets(
      '[C] should be able to switch session affinity for service with type clusterIP [LinuxOnly]',
      'live-flows: affinity is switched on and off on a live Service, by each kind of address',
    ),
    packets('[C] should have session affinity work for NodePort service [LinuxOnly]', 'traffic: affinity'),
    packets(
      'should have session affinity timeout work for NodePort service [LinuxOnly]',
      'live-flows: affinity times out by UDP, by each kind of address',
      'live-flows: affinity times out by TCP, once its connections have gone',
    ),
    packets(
      '[C] should be able to switch session affinity for NodePort service [LinuxOnly]',
      'live-flows: affinity is switched on and off on a live Service, by each kind of address',
    ),
    packets(
      'should implement service.kubernetes.io/service-proxy-name',
      'live-changes: labelled service-proxy-name',
      'live-changes: the label is taken off',
    ),
    packets(
      'should implement service.kubernetes.io/headless',
      'live-changes: slices labelled headless',
      'live-changes: slices without that label',
    ),
    packets('should be rejected when no endpoints exist', 'traffic: no endpoints', 'live-changes: scaled to nothing'),
    packets(
      'should be rejected for evicted pods (no endpoints exist)',
      'traffic: not ready',
      'live-changes: scaled to nothing',
    ),
    packets(
      'should respect internalTrafficPolicy=Local Pod to Pod',
      'traffic: internal policy Local',
      'traffic: internal policy Local, none local',
      'live-changes: internal policy Cluster -> Local',
    ),
    packets(
      'should respect internalTrafficPolicy=Local Pod (hostNetwork: true) to Pod',
      'traffic: internal policy Local',
      'traffic: internal policy Local, none local',
    ),
    packets(
      'should respect internalTrafficPolicy=Local Pod and Node, to Pod (hostNetwork: true)',
      'traffic: endpoint on the node’s network, internal policy Local',
    ),
    packets(
      'should support externalTrafficPolicy=Local for type=NodePort',
      'traffic: external policy Local',
      'traffic: external policy Local, none local',
    ),
    packets(
      'should fail health check node port if there are only terminating endpoints',
      'traffic: external policy Local, the local one is terminating: health check node port',
      'live-changes: the only local endpoint is terminating',
    ),
    packets(
      'should fallback to terminating endpoints when there are no ready endpoints with internalTrafficPolicy=Cluster',
      'traffic: terminating, nothing is ready',
    ),
    packets(
      'should fallback to local terminating endpoints when there are no ready endpoints with internalTrafficPolicy=Local',
      'traffic: internal policy Local, the local one is terminating',
    ),
    packets(
      'should fallback to terminating endpoints when there are no ready endpoints with externallTrafficPolicy=Cluster',
      'traffic: terminating, nothing is ready',
    ),
    packets(
      'should fallback to local terminating endpoints when there are no ready endpoints with externalTrafficPolicy=Local',
      'traffic: external policy Local, the local one is terminating',
    ),
    other('[C] should find a service from listing all namespaces', 'API server'),
    other('[C] should complete a service status lifecycle', 'API server'),
    other('[C] should delete a collection of services', 'API server'),
    packets(
      '[C] should serve endpoints on same port and different protocols',
      'live-changes: a protocol is removed from a port: it stops, the other stays',
    ),
    packets(
      'should serve endpoints on same port and different protocol for internal traffic on Type LoadBalancer',
      'live-changes: NodePort -> LoadBalancer, with a UDP port again',
      'traffic: external IP, LB IP',
    ),
    packets(
      'should allow creating a basic SCTP service with pod and endpoints [LinuxOnly] [Serial]',
      'live-packets: a Service by SCTP does not load the kernel’s sctp',
    ),
    packets(
      'should implement NodePort and HealthCheckNodePort correctly when ExternalTrafficPolicy changes',
      'live-changes: external policy Cluster -> Local: the health check port opens',
      'live-changes: external policy Local -> Cluster: the health check port closes',
      'live-changes: external policy Cluster -> Local again, and no endpoint here',
      'traffic: external policy Local, none local: from a node address',
    ),
    packets(
      'should connect to the ports exposed by restartable init containers',
      'live-changes: the target port is changed',
    ),
    packets(
      'should connect to the named ports exposed by restartable init containers',
      'traffic: slices of other port numbers',
    ),
    packets(
      'should support named targetPorts that resolve to different ports on different endpoints',
      'traffic: slices of other port numbers',
    ),
  ],
};
