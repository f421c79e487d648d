/**
 * Which address of the node decides, after detectNodeIPs of kube-proxy 1.36 (cmd/kube-proxy/app/server.go): one per
 * family, the first of the Node object, InternalIPs before ExternalIPs, and bindAddress before those where it is set.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseAddress } from '../../../src/values/address.js';
import { type Settings, TestCluster } from '../../support/desired-cluster.js';

const PRIMARY = { all: false, primary: true, cidrs: [] };
const ADDRESSES = ['10.200.0.2', '192.168.1.5', 'fd00:200::2', 'fd00:200::3'];

function cluster(settings: Partial<Settings> = {}): TestCluster {
  const made = new TestCluster({ nodePorts: { 4: PRIMARY, 6: PRIMARY }, ...settings });
  made.node({ zone: 'a', addresses: ADDRESSES });
  made.local(...ADDRESSES, '127.0.0.1', '::1');
  return made;
}

/** The addresses on which NodePort 30080 is served. */
async function nodePorts(of: TestCluster): Promise<string[]> {
  of.service('web', {
    type: 'NodePort',
    clusterIP: '10.96.0.1',
    clusterIPs: ['10.96.0.1', 'fd00:96::1'],
    ipFamilies: ['IPv4', 'IPv6'],
    ports: [{ port: 80, nodePort: 30080 }],
  });
  const lines = (await of.table()).filter((line) => line.includes(':30080'));
  return lines.map((line) => line.replace(/^TCP \[?(.*?)\]?:30080 ->.*$/, '$1')).sort();
}

describe("the node's address", () => {
  test('is one of each family: `primary` serves NodePorts on no other', async () => {
    assert.deepEqual(await nodePorts(cluster()), ['10.200.0.2', 'fd00:200::2']);
  });

  test('is bindAddress in the family of that', async () => {
    const four = cluster({ nodeIP: parseAddress('192.168.1.5')! });
    assert.deepEqual(await nodePorts(four), ['192.168.1.5', 'fd00:200::2']);
    const six = cluster({ nodeIP: parseAddress('fd00:200::3')! });
    assert.deepEqual(await nodePorts(six), ['10.200.0.2', 'fd00:200::3']);
  });

  test('decides whether source ranges let the node itself in', async () => {
    const entries = async (nodeIP?: string): Promise<string[]> => {
      const of = cluster(nodeIP === undefined ? {} : { nodeIP: parseAddress(nodeIP)! });
      const spec = { type: 'LoadBalancer', loadBalancerSourceRanges: ['192.168.0.0/16'] };
      of.service('lb', spec, { ingress: [{ ip: '192.0.2.10' }] });
      return of.entries('LOAD-BALANCER-SOURCE-IP');
    };
    assert.deepEqual(await entries(), []);
    assert.deepEqual(await entries('192.168.1.5'), ['KUBE-LOAD-BALANCER-SOURCE-IP 192.0.2.10,tcp:80,192.0.2.10']);
  });
});
