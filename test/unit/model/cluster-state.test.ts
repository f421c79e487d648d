/** Which Services a change makes dirty: no more than it must, and never fewer. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { ClusterState } from '../../../src/model/cluster-state.js';
import { type EndpointSlice } from '../../../src/model/endpoint-slice.js';
import { type NodeInfo } from '../../../src/model/node.js';
import { type Service } from '../../../src/model/service.js';
import { type Address, parseAddress } from '../../../src/values/address.js';

const ip = (text: string): Address => parseAddress(text)!;

function service(key: string, more: Partial<Service> = {}): Service {
  return {
    key,
    createdAt: 0,
    clusterIPs: [],
    externalIPs: [],
    loadBalancerIPs: [],
    loadBalancerSourceRanges: [],
    affinitySeconds: 0,
    externalLocal: false,
    internalLocal: false,
    healthCheckNodePort: 0,
    ports: [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }],
    ...more,
  };
}

function slice(key: string, of: string, endpoints = ''): EndpointSlice {
  const hints = { zoneHints: undefined, nodeHints: undefined };
  return { key, service: of, family: 4, ports: [], endpoints, triggeredAt: 0, ...hints };
}

function node(more: Partial<NodeInfo> = {}): NodeInfo {
  return { name: 'n', zone: 'a', podCIDRs: [], addresses: [ip('10.0.0.1')], eligible: true, ...more };
}

let cluster: ClusterState;

beforeEach(() => {
  cluster = new ClusterState();
  const withNodePort = [{ name: '', protocol: 'TCP' as const, port: 80, nodePort: 30080 }];
  cluster.setService(service('d/plain'));
  cluster.setService(service('d/node-port', { ports: withNodePort }));
  cluster.setService(service('d/external', { externalIPs: [ip('192.0.2.1')] }));
  cluster.setService(service('d/balanced', { loadBalancerIPs: [ip('203.0.113.1')] }));
  cluster.setSlice(slice('d/plain-1', 'd/plain', 'one'));
  cluster.setNode(node());
  cluster.setLocalAddresses(new Set([ip('10.0.0.1')]));
  cluster.takeDirty();
});

const dirty = (): string[] => [...cluster.takeDirty()];

describe('dirty are', () => {
  test('all Services at first, in the order in which they came', () => {
    const fresh = new ClusterState();
    for (const key of ['d/b', 'd/a', 'd/b']) fresh.setService(service(key));
    assert.equal(fresh.dirtyCount, 2);
    assert.deepEqual([...fresh.takeDirty()], ['d/b', 'd/a']);
    assert.equal(fresh.dirtyCount, 0);
  });

  test('a Service that is set or deleted, once', () => {
    cluster.setService(service('d/plain'));
    cluster.deleteService('d/external');
    cluster.deleteService('d/external');
    assert.deepEqual(dirty(), ['d/plain', 'd/external']);
    assert.deepEqual(dirty(), []);
  });

  test('nobody when what is not there is deleted', () => {
    cluster.deleteService('d/nobody');
    cluster.deleteSlice('d/nobody-1');
    assert.deepEqual(dirty(), []);
  });

  test('the Service of a slice, also one that is not there yet', () => {
    cluster.setSlice(slice('d/plain-2', 'd/plain'));
    cluster.setSlice(slice('d/later-1', 'd/later'));
    assert.deepEqual(dirty(), ['d/plain', 'd/later']);
    cluster.deleteSlice('d/later-1');
    assert.deepEqual(dirty(), ['d/later']);
  });

  test('both Services when a slice moves from one to the other', () => {
    cluster.setSlice(slice('d/plain-1', 'd/external', 'one'));
    assert.deepEqual(dirty().sort(), ['d/external', 'd/plain']);
    assert.equal(cluster.slicesOf('d/plain').length, 0);
    assert.equal(cluster.slicesOf('d/external').length, 1);
  });

  test('all when the zone or an address of the node changes, and nobody for anything else of it', () => {
    cluster.setNode(node({ podCIDRs: [], eligible: false }));
    assert.deepEqual(dirty(), []);
    cluster.setNode(node({ zone: 'b' }));
    assert.equal(dirty().length, 4);
    cluster.setNode(node({ zone: 'b', addresses: [ip('10.0.0.2')] }));
    assert.equal(dirty().length, 4);
    cluster.setNode(undefined);
    assert.equal(dirty().length, 4);
  });

  test('Services with a NodePort when an address of the node comes or goes', () => {
    cluster.setLocalAddresses(new Set([ip('10.0.0.1'), ip('10.0.0.9')]));
    assert.deepEqual(dirty(), ['d/node-port']);
    cluster.setLocalAddresses(new Set([ip('10.0.0.9')]));
    assert.deepEqual(dirty(), ['d/node-port']);
    cluster.setLocalAddresses(new Set([ip('10.0.0.9')]));
    assert.deepEqual(dirty(), []);
  });

  test('nobody when the address serves no NodePort and no Service names it, such as the fe80:: of a veth', () => {
    cluster.decideNodePortsBy((address) => address !== ip('fe80::5'));
    cluster.setLocalAddresses(new Set([ip('10.0.0.1'), ip('fe80::5')]));
    assert.deepEqual(dirty(), []);
    cluster.setLocalAddresses(new Set([ip('10.0.0.1')]));
    assert.deepEqual(dirty(), []);
    cluster.setLocalAddresses(new Set([ip('10.0.0.1'), ip('fe80::5'), ip('10.0.0.9')]));
    assert.deepEqual(dirty(), ['d/node-port']);
  });

  test('nobody for an address that a Service named before, and names no more', () => {
    cluster.setService(service('d/plain', { externalIPs: [ip('198.51.100.7')] }));
    cluster.setService(service('d/plain'));
    dirty();
    cluster.setLocalAddresses(new Set([ip('10.0.0.1'), ip('198.51.100.7')]));
    assert.deepEqual(dirty(), ['d/node-port']);
  });

  test('Services that name an address which is protected from now on, or no more', () => {
    const reason = 'an address of Node n3';
    assert.equal(cluster.protect('node n3', { addresses: [ip('192.0.2.1'), ip('10.9.9.9')], reason }), true);
    assert.deepEqual(dirty(), ['d/external']);
    assert.equal(cluster.protect('node n3', { addresses: [ip('192.0.2.1')], reason }), false, 'nothing new for it');
    assert.deepEqual(dirty(), []);
    assert.equal(cluster.protect('node n3', undefined), true);
    assert.deepEqual(dirty(), ['d/external']);
    assert.equal(cluster.protectedAddresses.size, 0);
    cluster.deleteService('d/external');
    dirty();
    assert.equal(cluster.protect('node n3', { addresses: [ip('192.0.2.1')], reason }), false, 'nobody names it now');
    assert.deepEqual(dirty(), []);
  });

  test('Services that claim an address which the node gained or lost', () => {
    const own = [ip('10.0.0.1'), ip('192.0.2.1'), ip('203.0.113.1')];
    cluster.setLocalAddresses(new Set(own));
    assert.deepEqual(dirty().sort(), ['d/balanced', 'd/external', 'd/node-port']);
    cluster.setLocalAddresses(new Set(own.slice(0, 2)));
    assert.deepEqual(dirty().sort(), ['d/balanced', 'd/node-port']);
  });

  test('no NodePort Services any more once they lost the port or are gone', () => {
    cluster.setService(service('d/node-port'));
    dirty();
    cluster.setLocalAddresses(new Set());
    assert.deepEqual(dirty(), []);
  });
});

describe('slices of a Service', () => {
  test('are replaced by key and kept apart by Service', () => {
    cluster.setSlice(slice('d/plain-1', 'd/plain', 'two'));
    cluster.setSlice(slice('d/plain-2', 'd/plain', 'three'));
    assert.deepEqual(
      cluster.slicesOf('d/plain').map(({ endpoints }) => endpoints),
      ['two', 'three'],
    );
    assert.equal(cluster.sliceCount, 2);
    cluster.deleteSlice('d/plain-1');
    assert.deepEqual(
      cluster.slicesOf('d/plain').map(({ endpoints }) => endpoints),
      ['three'],
    );
    assert.deepEqual(cluster.slicesOf('d/nobody'), []);
  });

  test('survive the deletion of their Service, which may come again', () => {
    cluster.deleteService('d/plain');
    assert.equal(cluster.slicesOf('d/plain').length, 1);
  });
});
