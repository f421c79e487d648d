/**
 * The cases of Kubernetes' own end-to-end tests that concern a service proxy (test/e2e/network/*.go of about 1.36, in
 * their order), and what shows the same here. A test is named `FILE: NAME`, where FILE is a file of test/kernel (or a
 * path under test, for unit tests) and NAME its beginning; `traffic: FEATURE` is a feature of the traffic table.
 */
import { SERVICE_SECTION } from './cases-service.js';
import { none, other, packets, part, type Section, state } from './verdicts.js';

export const SECTIONS: readonly Section[] = [
  SERVICE_SECTION,
  {
    file: 'networking.go',
    group: 'Networking',
    cases: [
      state(
        'should check kube-proxy urls',
        'an HTTP answer, no packet of a Service',
        'unit/serve/metrics-server: answers /metrics, /proxyMode, /healthz',
      ),
      packets(
        'Granular Checks: Services should function for pod-Service: http',
        'traffic: ClusterIP',
        'traffic: NodePort',
      ),
      packets(
        'Granular Checks: Services should function for pod-Service: udp',
        'traffic: ClusterIP',
        'traffic: NodePort',
      ),
      packets(
        'Granular Checks: Services should function for pod-Service: sctp [Feature:SCTPConnectivity]',
        'traffic: ClusterIP',
        'traffic: NodePort',
      ),
      packets(
        'Granular Checks: Services should function for node-Service: http',
        'traffic: ClusterIP',
        'traffic: NodePort',
      ),
      packets(
        'Granular Checks: Services should function for node-Service: udp',
        'traffic: ClusterIP',
        'traffic: NodePort',
      ),
      packets(
        'Granular Checks: Services should function for node-Service: sctp [Feature:SCTPConnectivity]',
        'traffic: ClusterIP',
        'traffic: NodePort',
      ),
      packets(
        'Granular Checks: Services should function for endpoint-Service: http',
        'traffic: hairpin: a pod reaches itself',
        'traffic: hairpin by NodePort',
      ),
      packets(
        'Granular Checks: Services should function for endpoint-Service: udp',
        'traffic: hairpin: a pod reaches itself',
        'traffic: hairpin by NodePort',
      ),
      packets(
        'Granular Checks: Services should function for endpoint-Service: sctp [Feature:SCTPConnectivity]',
        'traffic: hairpin: a pod reaches itself',
        'traffic: hairpin by NodePort',
      ),
      packets(
        'Granular Checks: Services should function for multiple endpoint-Services with same selector',
        'live-changes: deleted: nothing is served; another Service on the same pods goes on',
      ),
      packets(
        'Granular Checks: Services should update endpoints: http',
        'live-changes: a local endpoint is back',
        'reliability-drain: TCP: weight 0, the live connection goes on',
      ),
      packets(
        'Granular Checks: Services should update endpoints: udp',
        'live-flows: NodePort, same node',
        'live-flows: ClusterIP, backend replaced on the same node',
      ),
      packets(
        'Granular Checks: Services should update nodePort: http',
        'live-changes: the NodePort is changed',
        'live-changes: LoadBalancer -> ClusterIP',
      ),
      packets('Granular Checks: Services should support basic nodePort: udp functionality', 'traffic: NodePort'),
      packets(
        'Granular Checks: Services should update nodePort: udp',
        'live-changes: a protocol is removed from a port',
        'live-changes: LoadBalancer -> ClusterIP',
      ),
      packets(
        'Granular Checks: Services should function for client IP based session affinity: http [LinuxOnly]',
        'traffic: affinity',
      ),
      packets(
        'Granular Checks: Services should function for client IP based session affinity: udp [LinuxOnly]',
        'traffic: affinity',
      ),
      packets(
        'Granular Checks: Services should be able to handle large requests: http',
        'live-packets: large requests: ',
      ),
      packets(
        'Granular Checks: Services should be able to handle large requests: udp',
        'live-packets: large requests: ',
      ),
      packets(
        'Granular Checks: Services should function for service endpoints using hostNetwork',
        'traffic: endpoint on the node’s network',
        'traffic: endpoint on another node’s network',
      ),
      packets(
        'should recreate its iptables rules if they are deleted [Disruptive]',
        'reliability-drift: rules: a jump, a rule and a whole chain deleted, a rule added, in both families',
      ),
      other('should allow creating a Pod with an SCTP HostPort [LinuxOnly] [Serial]', 'network plugin'),
    ],
  },
  {
    file: 'conntrack.go',
    group: 'Conntrack',
    cases: [
      packets(
        'should be able to preserve UDP traffic when server pod cycles for a NodePort service',
        'live-flows: NodePort, same node',
        'live-flows: NodePort, other node',
      ),
      packets(
        'should be able to preserve UDP traffic when server pod cycles for a ClusterIP service',
        'live-flows: ClusterIP, backend replaced on the same node',
        'traffic-changes: a UDP client with one source port follows when its backend is replaced',
      ),
      packets(
        'should be able to preserve UDP traffic when server pod cycles for a ClusterIP service with InternalTrafficPolicy set to Local',
        'live-flows: ClusterIP, internal policy Local',
      ),
      packets(
        'should be able to preserve UDP traffic when server pod cycles for a ClusterIP service and client is hostNetwork',
        'live-flows: ClusterIP, the client is the node',
      ),
      packets(
        'should be able to preserve UDP traffic when initial unready endpoints get ready',
        'live-flows: ClusterIP, endpoint not ready yet',
        'live-flows: NodePort, endpoint not ready yet',
      ),
      packets(
        'proxy implementation should not be vulnerable to the invalid conntrack state bug [Privileged]',
        'live-packets: a segment out of the window: no pod’s own address is seen',
      ),
      packets(
        'should be able to cleanup conntrack entries when UDP service target port changes for a NodePort service',
        'live-flows: NodePort, target port changed',
      ),
    ],
  },
  {
    file: 'loadbalancer.go',
    group: 'LoadBalancers',
    cases: [
      packets(
        'should be able to change the type and ports of a TCP service',
        'live-changes: NodePort -> LoadBalancer, with a UDP port again',
        'live-changes: the NodePort is changed',
        'live-changes: the port is changed',
        'live-changes: scaled to nothing',
        'live-changes: LoadBalancer -> ClusterIP',
      ),
      packets(
        'should be able to change the type and ports of a UDP service',
        'live-changes: NodePort -> LoadBalancer, with a UDP port again',
        'live-changes: scaled to nothing',
        'live-changes: LoadBalancer -> ClusterIP',
      ),
      packets(
        'should only allow access from service loadbalancer source ranges',
        'live-changes: source ranges are set',
        'live-changes: source ranges are changed',
        'live-changes: source ranges are cleared',
        'traffic: source ranges: outside only',
      ),
      packets(
        'should have session affinity work for LoadBalancer service with Local traffic policy',
        'traffic: affinity, external policy Local',
      ),
      packets(
        'should be able to switch session affinity for LoadBalancer service with Local traffic policy',
        'live-flows: affinity is switched on and off on a live Service, by each kind of address',
      ),
      packets(
        'should have session affinity work for LoadBalancer service with Cluster traffic policy',
        'traffic: affinity',
      ),
      packets(
        'should be able to switch session affinity for LoadBalancer service with Cluster traffic policy',
        'live-flows: affinity is switched on and off on a live Service, by each kind of address',
      ),
      other('should handle load balancer cleanup finalizer for service', 'service controller'),
      packets(
        'should be able to create LoadBalancer Service without NodePort and change it',
        'live-changes: no node ports for the load balancer any more',
        'live-changes: node ports for the load balancer again',
      ),
      packets(
        'should be able to preserve UDP traffic when server pod cycles for a LoadBalancer service on different nodes',
        'live-flows: load balancer IP, other node',
      ),
      packets(
        'should be able to preserve UDP traffic when server pod cycles for a LoadBalancer service on the same nodes',
        'live-flows: load balancer IP, same node',
      ),
      packets(
        'should not have connectivity disruption during rolling update with externalTrafficPolicy=Cluster',
        'live-flows: rolling update by load balancer IP, external policy Cluster',
      ),
      packets(
        'should not have connectivity disruption during rolling update with externalTrafficPolicy=Local',
        'live-flows: rolling update by load balancer IP, external policy Local',
      ),
    ],
  },
  {
    file: 'loadbalancer.go',
    group: 'LoadBalancers ExternalTrafficPolicy: Local',
    cases: [
      packets(
        'should work for type=LoadBalancer',
        'traffic: external policy Local',
        'traffic: health check node port, one local',
      ),
      packets(
        'should only target nodes with endpoints',
        'traffic: external policy Local, none local',
        'traffic: health check node port, none local',
        'traffic-changes: health check node port: 200 with the count, 503 when the last local endpoint goes',
      ),
      packets(
        'should target all nodes with endpoints',
        'traffic: external policy Local',
        'traffic: health check node port, one local',
      ),
      packets('should work from pods', 'traffic: external policy Local, none local'),
    ],
  },
  {
    file: 'traffic_distribution.go',
    group: 'Traffic Distribution',
    cases: [
      packets('should route traffic to an endpoint in the same zone when using PreferClose', 'traffic: zone hints'),
      packets(
        'should route traffic correctly between pods on multiple nodes when using PreferClose',
        'traffic: zone hints',
        'live-changes: hints: as a node of the other zone sees them',
        'live-changes: hints: none is for this node or its zone: all',
      ),
      packets('should route traffic to an endpoint in the same zone when using PreferSameZone', 'traffic: zone hints'),
      packets(
        'should route traffic correctly between pods on multiple nodes when using PreferSameZone',
        'traffic: zone hints',
        'live-changes: hints: as a node of the other zone sees them',
        'live-changes: hints: none is for this node or its zone: all',
      ),
      packets(
        'should route traffic to an endpoint on the same node or fall back to same zone when using PreferSameNode',
        'traffic: node hints',
        'live-changes: hints for this node',
        'live-changes: hints: none is for this node, one for its zone: that one',
      ),
      packets(
        'should route traffic to an endpoint on the same node when using PreferSameNode and fall back when the endpoint becomes unavailable',
        'live-changes: hints: the endpoint of this node becomes unavailable',
        'live-changes: hints: it is back',
      ),
    ],
  },
  {
    file: 'topology_hints.go',
    group: 'Topology Hints',
    cases: [
      part(
        'should distribute endpoints evenly',
        'the hints are the controller’s; that they are obeyed',
        'traffic: zone hints',
      ),
    ],
  },
  {
    file: 'dual_stack.go',
    group: 'IPv6DualStack',
    cases: [
      packets('should create service with ipv4 cluster ip', 'traffic: single-stack IPv4'),
      packets('should create service with ipv6 cluster ip', 'traffic: single-stack IPv6'),
      packets('should create service with ipv4,v6 cluster ip', 'traffic: ClusterIP'),
      packets('should create service with ipv6,v4 cluster ip', 'traffic: dual-stack, IPv6 first'),
      packets(
        'Granular Checks: Services Secondary IP Family (fourteen cases, as those of networking.go)',
        'traffic: ClusterIP',
        'traffic: NodePort',
        'traffic: hairpin by NodePort',
        'traffic: affinity',
        'traffic: endpoint on the node’s network',
        'live-packets: large requests: ',
        'live-flows: NodePort, same node',
      ),
    ],
  },
  {
    file: 'endpointslice.go',
    group: 'EndpointSlice',
    cases: [
      packets(
        '[C] should support a Service with multiple ports specified in multiple EndpointSlices',
        'traffic: each port in a slice of its own',
      ),
      packets(
        '[C] should support a Service with multiple endpoint IPs specified in multiple EndpointSlices',
        'traffic: slices of other port numbers',
      ),
    ],
  },
  {
    file: 'kube_proxy.go',
    group: 'KubeProxy',
    cases: [
      packets(
        'should set TCP CLOSE_WAIT timeout [Privileged]',
        'live-packets: a connection that only one side has closed: conntrack keeps it for an hour',
      ),
      none(
        'should update metric for tracking accepted packets destined for localhost nodeports',
        'iptables mode alone: node ports are not on loopback with IPVS',
      ),
    ],
  },
  {
    file: 'hostport.go',
    group: 'HostPort',
    cases: [
      part(
        '[C] validates that there is no conflict between pods with same hostPort but different hostIP and protocol [LinuxOnly]',
        'the plugin’s own rules are; that ours leave them be, and theirs ours',
        'live-packets: host ports of a CNI plugin beside ours: each gets what is its own',
      ),
    ],
  },
  {
    file: 'service_cidrs.go, service_latency.go, pod_lifecycle.go',
    group: 'Others',
    cases: [
      packets(
        'Service CIDRs should create Services and serve on different Service CIDRs',
        'traffic: ClusterIP',
        'traffic: external IP, LB IP',
      ),
      other('[C] Service endpoints latency should not be very high', 'EndpointSlice controller'),
      part(
        'Connectivity Pod Lifecycle should be able to connect from a Pod to a terminating Pod',
        'by Services; the pod’s own address is the network plugin’s',
        'traffic: terminating, nothing is ready',
      ),
      part(
        'Connectivity Pod Lifecycle should be able to connect to other Pod from a terminating Pod',
        'a client is not asked whether it terminates',
        'traffic: ClusterIP',
      ),
      packets(
        'Connectivity Pod Lifecycle should be able to have zero downtime on a Blue Green deployment using Services and Readiness Gates',
        'live-flows: rolling update by load balancer IP, external policy Cluster',
        'live-changes: while its cluster IP is served: no request has failed',
      ),
    ],
  },
];
