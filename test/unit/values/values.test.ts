/** Packed values: what is written is read back, what is malformed is refused. */
import assert from 'node:assert/strict';
import { isIP, isIPv4, isIPv6 } from 'node:net';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  type Address,
  type Family,
  addressFromBytes,
  familyOf,
  formatAddress,
  isLinkLocal,
  isLoopback,
  isServable,
  isMulticast,
  isUnspecified,
  parseAddress,
} from '../../../src/values/address.js';
import { formatPrefix, hostPrefix, parsePrefix, prefixContains, prefixFamily } from '../../../src/values/prefix.js';
import { isProtocol, protocolName, protocolNumber } from '../../../src/values/protocol.js';
import {
  type RealServerList,
  addressServerKey,
  formatRealServer,
  formatVirtualServer,
  fwmarkServerKey,
  isUdp,
  realServerAddress,
  realServerKey,
  realServerKeys,
  realServerList,
  realServerPort,
  virtualServerFamily,
  virtualServerIdentity,
} from '../../../src/values/virtual-server.js';
import {
  addressEntry,
  addressPortAddressEntry,
  addressPortEntry,
  addressPortNetEntry,
  formatIpsetEntry,
  portEntry,
} from '../../../src/values/ipset.js';

const ip = (text: string): Address => parseAddress(text)!;
const bytesOf = (address: Address): number[] => [...address].map((char) => char.charCodeAt(0));

const family: fc.Arbitrary<Family> = fc.constantFrom(4, 6);
const addressOf = (of: Family): fc.Arbitrary<Address> =>
  fc
    .uint8Array({ minLength: of === 4 ? 4 : 16, maxLength: of === 4 ? 4 : 16 })
    .map((bytes) => addressFromBytes(bytes, 0, of))
    .filter((address) => of === 4 || !isMapped(address));
const address = family.chain(addressOf);
const port = fc.integer({ min: 0, max: 65535 });
const protocol = fc.constantFrom('TCP', 'UDP', 'SCTP');

/** Written as `::ffff:a.b.c.d`: refused by design, an IPv4 address in disguise. */
function isMapped(packed: Address): boolean {
  return packed.startsWith(`${'\0'.repeat(10)}\xff\xff`);
}

describe('addresses', () => {
  test('of both families are read as the API writes them, and written in canonical form', () => {
    const cases: [string, string][] = [
      ['10.96.0.1', '10.96.0.1'],
      ['255.255.255.255', '255.255.255.255'],
      ['fd00:0:0:0:0:0:0:1', 'fd00::1'],
      ['FD00::A', 'fd00::a'],
      ['::', '::'],
      ['::1', '::1'],
      ['1::', '1::'],
      ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
      ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
      ['2001:db8::1:0:0:1', '2001:db8::1:0:0:1'],
      ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
      // As netutils.ParseIPSloppy of kube-proxy: leading zeros are decimal, IPv4-mapped is IPv4.
      ['010.096.000.001', '10.96.0.1'],
      ['00000000192.0.2.08', '192.0.2.8'],
      ['::ffff:10.0.0.1', '10.0.0.1'],
      ['::FFFF:a00:1', '10.0.0.1'],
      ['0:0:0:0:0:ffff:010.0.0.1', '10.0.0.1'],
      ['02001:0db8::00001', '2001:db8::1'],
      ['::fffe:10.0.0.1', '::fffe:a00:1'],
      ['::1:ffff:10.0.0.1', '::1:ffff:a00:1'],
    ];
    for (const [text, canonical] of cases) assert.equal(formatAddress(ip(text)), canonical, text);
  });

  test('that are malformed are refused', () => {
    const bad = [
      ...[
        '',
        ' ',
        '1',
        '1.2.3',
        '1.2.3.4.5',
        '1.2.3.',
        '.1.2.3',
        '1..2.3',
        '256.1.1.1',
        '0256.1.1.1',
        '9999999999.1.1.1',
      ],
      ...['1.2.3.4 ', '1.2.3.-4', '+1.2.3.4', '1.2.3.4/32', '0x1.2.3.4', '1e1.2.3.4', '١.2.3.4'],
      ...[':', ':::', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', '1::2::3', '12345::', 'g::', '::1%eth0', '[::1]'],
      ...[':1', '1:', '1:2:3:4:5:6:7:', '::1.2.3', '::1.2.3.4.5', '1.2.3.4::', '::ffff:10.0.0', '::1:', '::010000'],
      ...['1:2:3:4:5:6:7:1.2.3.4', '1:2:3:4:5:6:7::8'],
    ];
    for (const text of bad) assert.equal(parseAddress(text), undefined, JSON.stringify(text));
  });

  test('survive text and bytes', () => {
    fc.assert(
      fc.property(address, (packed) => {
        assert.equal(parseAddress(formatAddress(packed)), packed);
        assert.ok(familyOf(packed) === 4 ? isIPv4(formatAddress(packed)) : isIPv6(formatAddress(packed)));
        const bytes = Buffer.concat([Buffer.from([7]), Buffer.from(packed, 'latin1'), Buffer.from([7])]);
        assert.equal(addressFromBytes(bytes, 1, familyOf(packed)), packed);
      }),
    );
  });

  test('are accepted from any text exactly when Node accepts it without leading zeros, but for zones', () => {
    const digit = fc.constantFrom(...'00123456789abcf:.:.%/ ');
    const padded = fc.tuple(fc.oneof(fc.ipV4(), fc.ipV6()), fc.nat(3)).map(([text, zeros]) => {
      return text.replace(/(^|[.:])(?=[0-9a-f])/gi, `$1${'0'.repeat(zeros)}`);
    });
    const texts = fc.oneof(fc.string({ unit: digit, maxLength: 24 }), fc.ipV4(), fc.ipV6(), padded, fc.string());
    const mapped = fc.ipV4().map((text) => `::ffff:${text}`);
    fc.assert(
      fc.property(fc.oneof(texts, mapped), (text) => {
        const parsed = parseAddress(text);
        const plain = text.replace(/(^|[.:])0+(?=[0-9a-f])/gi, '$1');
        assert.equal(parsed !== undefined, isIP(plain) !== 0 && !plain.includes('%'), text);
        if (parsed === undefined) return;
        const canonical = isIP(plain) === 4 ? plain : new URL(`http://[${plain}]/`).hostname.slice(1, -1);
        const bits = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(canonical);
        assert.equal(familyOf(parsed), isIP(plain) === 4 || bits !== null ? 4 : 6, text);
        if (bits === null) return assert.equal(formatAddress(parsed), canonical);
        const [high, low] = [parseInt(bits[1]!, 16), parseInt(bits[2]!, 16)];
        assert.equal(formatAddress(parsed), [high >> 8, high & 255, low >> 8, low & 255].join('.'));
      }),
      { numRuns: 3000 },
    );
  });

  test('may be a VIP or an endpoint if they are unicast, also where no router would take them', () => {
    const never = [
      '0.0.0.0',
      '0.1.2.3',
      '127.0.0.1',
      '224.0.0.1',
      '239.9.9.9',
      '255.255.255.255',
      '::',
      '::1',
      'ff02::1',
    ];
    for (const text of [...never, 'fe80::1', 'febf::1']) assert.equal(isServable(ip(text)), false, text);
    const always = [
      '1.0.0.0',
      '10.0.0.0',
      '10.0.0.255',
      '169.254.20.10',
      '240.0.0.1',
      '255.255.255.254',
      '223.255.255.255',
    ];
    for (const text of [...always, '::2', 'fd00::1', 'fec0::1', '::10.0.0.1'])
      assert.equal(isServable(ip(text)), true, text);
  });

  test('of special meaning are told apart', () => {
    const tell = (text: string): boolean[] =>
      [isLoopback, isLinkLocal, isMulticast, isUnspecified].map((is) => is(ip(text)));
    const [none, loopback, linkLocal, multicast, unspecified] = [-1, 0, 1, 2, 3].map((which) =>
      [0, 1, 2, 3].map((index) => index === which),
    );
    const cases: [string, boolean[] | undefined][] = [
      ['127.0.0.1', loopback],
      ['127.255.0.9', loopback],
      ['126.0.0.1', none],
      ['::1', loopback],
      ['::2', none],
      ['169.254.1.1', linkLocal],
      ['169.253.1.1', none],
      ['fe80::1', linkLocal],
      ['febf::1', linkLocal],
      ['fec0::1', none],
      ['224.0.0.1', multicast],
      ['239.1.1.1', multicast],
      ['240.0.0.1', none],
      ['ff02::1', multicast],
      ['0.0.0.0', unspecified],
      ['::', unspecified],
      ['0.0.0.1', none],
    ];
    for (const [text, expected] of cases) assert.deepEqual(tell(text), expected, text);
  });
});

describe('prefixes', () => {
  test('are read with their host bits cleared, and written', () => {
    const cases: [string, string][] = [
      ['10.1.2.3/8', '10.0.0.0/8'],
      ['010.1.2.3/08', '10.0.0.0/8'],
      ['::ffff:10.1.2.3/104', '10.0.0.0/8'],
      ['::ffff:10.1.2.3/128', '10.1.2.3/32'],
      ['::ffff:10.1.2.3/96', '0.0.0.0/0'],
      ['::ffff:10.1.2.3/0', '::/0'],
      ['10.255.255.255/9', '10.128.0.0/9'],
      ['1.2.3.4/32', '1.2.3.4/32'],
      ['1.2.3.4/0', '0.0.0.0/0'],
      ['fd00:10:128:ffff::1/48', 'fd00:10:128::/48'],
      ['fd00::ff/127', 'fd00::fe/127'],
      ['::1/128', '::1/128'],
    ];
    for (const [text, canonical] of cases) assert.equal(formatPrefix(parsePrefix(text)!), canonical, text);
  });

  test('that are malformed are refused', () => {
    for (const text of [
      '10.0.0.0',
      '10.0.0.0/',
      '10.0.0.0/33',
      '::/129',
      '::ffff:10.0.0.0/129',
      '10.0.0.0/-1',
      '/8',
      '10/8',
    ])
      assert.equal(parsePrefix(text), undefined, text);
    for (const text of ['10.0.0.0/8/8', '10.0.0.0/1e1', '10.0.0.0/ 8', 'x/8', '10.0.0.0/1000'])
      assert.equal(parsePrefix(text), undefined, text);
  });

  test('contain an address exactly when its first bits are theirs', () => {
    const withBits = family.chain((of) =>
      fc.tuple(addressOf(of), addressOf(of), fc.nat(of === 4 ? 32 : 128), fc.boolean()),
    );
    fc.assert(
      fc.property(withBits, ([base, other, bits, near]) => {
        const prefix = parsePrefix(`${formatAddress(base)}/${bits}`)!;
        // Two random addresses rarely share more than a few bits: let half of the cases share the prefix's bytes.
        const whole = bits >> 3;
        const probe = (near ? base.slice(0, whole) + other.slice(whole) : other) as Address;
        const binary = (one: Address): string => bytesOf(one).reduce((text, byte) => text + bin(byte), '');
        const expected = binary(base).slice(0, bits) === binary(probe).slice(0, bits);
        assert.equal(prefixContains(prefix, probe), expected);
        assert.ok(prefixContains(prefix, base));
        assert.ok(prefixContains(hostPrefix(base), base));
        assert.equal(prefixFamily(prefix), familyOf(base));
        assert.deepEqual(parsePrefix(formatPrefix(prefix)), prefix);
      }),
      { numRuns: 500 },
    );
  });

  test('never contain an address of the other family', () => {
    assert.equal(prefixContains(parsePrefix('::/0')!, ip('10.0.0.1')), false);
    assert.equal(prefixContains(parsePrefix('0.0.0.0/0')!, ip('::1')), false);
  });
});

function bin(byte: number): string {
  return byte.toString(2).padStart(8, '0');
}

test('protocols have the numbers of IANA', () => {
  assert.deepEqual((['TCP', 'UDP', 'SCTP'] as const).map(protocolNumber), [6, 17, 132]);
  assert.deepEqual([6, 17, 132, 1, 0, 256].map(protocolName), ['TCP', 'UDP', 'SCTP', undefined, undefined, undefined]);
  assert.deepEqual(['TCP', 'tcp', 6, null, undefined, 'ICMP'].map(isProtocol), [
    true,
    false,
    false,
    false,
    false,
    false,
  ]);
});

describe('virtual server keys', () => {
  test('are taken apart into what they were made of', () => {
    fc.assert(
      fc.property(protocol, address, port, (of, at, number) => {
        const key = addressServerKey(of, at, number);
        assert.deepEqual(virtualServerIdentity(key), { kind: 'address', protocol: of, address: at, port: number });
        assert.equal(virtualServerFamily(key), familyOf(at));
        assert.equal(isUdp(key), of === 'UDP');
      }),
    );
    fc.assert(
      fc.property(family, fc.integer({ min: 0, max: 0xffffffff }), (of, mark) => {
        const key = fwmarkServerKey(of, mark);
        assert.deepEqual(virtualServerIdentity(key), { kind: 'fwmark', family: of, mark });
        assert.equal(virtualServerFamily(key), of);
        assert.equal(isUdp(key), false);
      }),
    );
  });

  test('differ when anything differs', () => {
    const parts = fc.tuple(protocol, address, port);
    fc.assert(
      fc.property(parts, parts, (a, b) => {
        const same = a[0] === b[0] && a[1] === b[1] && a[2] === b[2];
        assert.equal(addressServerKey(...a) === addressServerKey(...b), same);
      }),
    );
  });

  test('are written for people', () => {
    assert.equal(formatVirtualServer(addressServerKey('TCP', ip('10.96.0.1'), 443)), 'TCP 10.96.0.1:443');
    assert.equal(formatVirtualServer(addressServerKey('UDP', ip('fd00::1'), 53)), 'UDP [fd00::1]:53');
    assert.match(formatVirtualServer(fwmarkServerKey(6, 0x80000001)), /2147483649.*IPv6/);
  });
});

describe('real server lists', () => {
  const reals = family.chain((of) =>
    fc.tuple(fc.constant(of), fc.array(fc.tuple(addressOf(of), port), { maxLength: 12 })),
  );

  test('are the same string for the same pool, in whatever order and however often it is named', () => {
    fc.assert(
      fc.property(reals, fc.nat(), ([of, pool], turn) => {
        const keys = pool.map(([at, number]) => realServerKey(at, number));
        const list = realServerList(keys);
        const turned = [...keys.slice(turn % (keys.length + 1)), ...keys.slice(0, turn % (keys.length + 1))].reverse();
        assert.equal(realServerList([...turned, ...keys]), list);
        assert.deepEqual(realServerKeys(list, of), [...new Set(keys)].sort());
      }),
    );
    assert.equal(realServerList([]), '' as RealServerList);
  });

  test('keep address and port', () => {
    fc.assert(
      fc.property(address, port, (at, number) => {
        const key = realServerKey(at, number);
        assert.deepEqual([realServerAddress(key), realServerPort(key)], [at, number]);
        const host = familyOf(at) === 4 ? formatAddress(at) : `[${formatAddress(at)}]`;
        assert.equal(formatRealServer(key), `${host}:${number}`);
      }),
    );
  });
});

describe('set entries', () => {
  const server4 = addressServerKey('TCP', ip('10.96.0.1'), 443);
  const server6 = addressServerKey('SCTP', ip('fd00::1'), 65535);

  test('are written as ipset prints them', () => {
    const cases: [string, string][] = [
      [formatIpsetEntry('hash:ip', addressEntry(ip('10.96.0.1'))), '10.96.0.1'],
      [formatIpsetEntry('hash:ip', addressEntry(ip('fd00::1'))), 'fd00::1'],
      [formatIpsetEntry('bitmap:port', portEntry(30100)), '30100'],
      [formatIpsetEntry('bitmap:port', portEntry(65535)), '65535'],
      [formatIpsetEntry('hash:ip,port', addressPortEntry(server4)), '10.96.0.1,tcp:443'],
      [formatIpsetEntry('hash:ip,port', addressPortEntry(server6)), 'fd00::1,sctp:65535'],
      [
        formatIpsetEntry('hash:ip,port,ip', addressPortAddressEntry(server4, ip('10.0.0.9'))),
        '10.96.0.1,tcp:443,10.0.0.9',
      ],
      [formatIpsetEntry('hash:ip,port,ip', addressPortAddressEntry(server6, ip('::2'))), 'fd00::1,sctp:65535,::2'],
      [
        formatIpsetEntry('hash:ip,port,net', addressPortNetEntry(server4, parsePrefix('203.0.113.0/24')!)),
        '10.96.0.1,tcp:443,203.0.113.0/24',
      ],
      [
        formatIpsetEntry('hash:ip,port,net', addressPortNetEntry(server4, parsePrefix('203.0.113.9/32')!)),
        '10.96.0.1,tcp:443,203.0.113.9',
      ],
      [
        formatIpsetEntry('hash:ip,port,net', addressPortNetEntry(server6, parsePrefix('2001:db8::/32')!)),
        'fd00::1,sctp:65535,2001:db8::/32',
      ],
      [
        formatIpsetEntry('hash:ip,port,net', addressPortNetEntry(server6, hostPrefix(ip('::2')))),
        'fd00::1,sctp:65535,::2',
      ],
    ];
    for (const [written, expected] of cases) assert.equal(written, expected);
  });
});
