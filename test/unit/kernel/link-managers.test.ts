/** Who else configures a link: by state files as systemd-networkd 252 and 257 and NetworkManager 1.52 wrote them. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { checkLinks } from '../../../src/cli/preflight-links.js';
import { findLinkManagers, seenLinkManagers } from '../../../src/kernel/node/link-managers.js';

/** A root with these files; `lo` has index 1 and `kube-ipvs0` index 7. */
function node(files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), 'links-'));
  const all = { 'sys/class/net/lo/ifindex': '1\n', 'sys/class/net/kube-ipvs0/ifindex': '7\n', ...files };
  for (const [path, text] of Object.entries(all)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

const NETWORKD = 'run/systemd/netif/links';
/** 252, a link that no file matches; 257 writes the same for one with Unmanaged=yes. */
const ALONE = `# This is private data. Do not parse.
ADMIN_STATE=unmanaged
OPER_STATE=off
CARRIER_STATE=off
ADDRESS_STATE=routable
IPV4_ADDRESS_STATE=routable
IPV6_ADDRESS_STATE=off
`;
const managed = (file: string, dropIns?: string, admin = 'configured'): string => `# This is private data. Do not parse.
ADMIN_STATE=${admin}
OPER_STATE=carrier
CARRIER_STATE=carrier
ADDRESS_STATE=off
IPV4_ADDRESS_STATE=off
IPV6_ADDRESS_STATE=off
ONLINE_STATE=offline
REQUIRED_FOR_ONLINE=yes
REQUIRED_OPER_STATE_FOR_ONLINE=degraded
REQUIRED_FAMILY_FOR_ONLINE=any
ACTIVATION_POLICY=up
NETWORK_FILE=${file}
${dropIns === undefined ? '' : `NETWORK_FILE_DROPINS="${dropIns}"\n`}DNS=
NTP=
SIP=
DOMAINS=
ROUTE_DOMAINS=
LLMNR=yes
MDNS=no
`;
const NM = 'run/NetworkManager/devices';
/** lo as NetworkManager finds it: it looks on ("connected (externally)"). */
const EXTERNAL = `[device]
managed=true
perm-hw-addr-fake=00:00:00:00:00:00
connection-uuid=dd55e0e5-2b70-43b7-8567-5c72d95459ac
nm-owned=false
`;
const ACTIVE = `[device]
managed=true
perm-hw-addr-fake=9E:2D:1C:16:D5:93
connection-uuid=ba73a076-9a7d-4450-99fa-8959253925c7
nm-owned=false
route-metric-default-effective=550
`;
const DISCONNECTED = '[device]\nmanaged=true\nperm-hw-addr-fake=9E:2D:1C:16:D5:93\nnm-owned=false\n';
const UNMANAGED = '[device]\nnm-owned=false\n';

const states = (root: string, vips: 'addresses' | 'routes' = 'addresses'): string[] =>
  checkLinks({ vips }, root).map(({ name, state, detail }) => `${state} ${name}: ${detail}`);

describe('systemd-networkd', () => {
  test('leaves alone what no file matches, or one with Unmanaged=yes', () => {
    const root = node({ [`${NETWORKD}/1`]: ALONE, [`${NETWORKD}/7`]: ALONE });
    assert.deepEqual(findLinkManagers(['lo', 'kube-ipvs0', 'nosuch'], root), []);
    assert.deepEqual(states(root), ['ok links: systemd-networkd leaves kube-ipvs0 alone']);
    assert.deepEqual(states(root, 'routes'), ['ok links: systemd-networkd leaves lo alone']);
  });

  test('that matches kube-ipvs0 is told with its file and the remedy; lo counts where VIPs are routes, alone', () => {
    const all = '/etc/systemd/network/50-all.network';
    for (const state of ['configured', 'configuring', 'pending', 'failed']) {
      const root = node({ [`${NETWORKD}/7`]: managed(all, undefined, state), [`${NETWORKD}/1`]: ALONE });
      assert.deepEqual(states(root), [
        `warn links: systemd-networkd manages kube-ipvs0 by ${all} and takes all VIPs away whenever it starts: put ` +
          '[Match] Name=kube-ipvs0 and [Link] Unmanaged=yes into /etc/systemd/network/10-kube-ipvs0.network ' +
          '(docs/compatibility.md)',
      ]);
      assert.deepEqual(states(root, 'routes'), ['ok links: systemd-networkd leaves lo alone']);
    }
    const root = node({
      [`${NETWORKD}/1`]: managed('/run/systemd/network/20-lo.network', ''),
      [`${NETWORKD}/7`]: ALONE,
    });
    assert.match(
      states(root, 'routes').join(),
      /^warn links: systemd-networkd manages lo by \/run\/systemd\/network\/20-lo/,
    );
    assert.match(states(root, 'routes').join(), /KeepConfiguration=yes into \/run\/systemd\/network\/20-lo\.network/);
    assert.deepEqual(states(root), ['ok links: systemd-networkd leaves kube-ipvs0 alone']);
  });

  test('told to keep what it did not make is no harm, in its file or in a drop-in', () => {
    const file = '/etc/systemd/network/50-all.network';
    const dropIn = `${file}.d/keep.conf`;
    const keep = '[Network]\nKeepConfiguration = yes\n';
    const [bare, kept] = ['[Match]\nName=*\n[Network]\n#KeepConfiguration=yes\n', `[Match]\nName=*\n${keep}`];
    const state = managed(file, `${file}.d/a.conf ${dropIn}`);
    const told = (files: Readonly<Record<string, string>>): string =>
      states(node({ [`${NETWORKD}/7`]: state, ...files }))[0]!.split(' ')[0]!;
    assert.equal(told({ [file]: bare }), 'warn');
    assert.equal(told({ [file]: kept }), 'ok');
    assert.equal(told({ [file]: bare, [dropIn]: keep }), 'ok');
    assert.equal(
      told({ [file]: kept, [dropIn]: '[Network]\nKeepConfiguration=dhcp\n' }),
      'warn',
      'the last one counts',
    );
  });

  test('ManageForeignRoutes=no spares the routes of lo, wherever it is set, and not addresses', () => {
    const file = '/etc/systemd/network/20-lo.network';
    const state = { [`${NETWORKD}/1`]: managed(file), [`${NETWORKD}/7`]: managed(file) };
    const told = (files: Readonly<Record<string, string>>, vips: 'addresses' | 'routes' = 'routes'): string =>
      states(node({ ...state, ...files }), vips)[0]!.split(' ')[0]!;
    const set = (value: string): string => `[Network]\nManageForeignRoutes=${value}\n`;
    assert.equal(told({}), 'warn');
    assert.equal(told({ 'etc/systemd/networkd.conf': '[Network]\n#ManageForeignRoutes=no\n' }), 'warn');
    assert.equal(told({ 'etc/systemd/networkd.conf': set('no') }), 'ok');
    assert.equal(told({ 'usr/lib/systemd/networkd.conf.d/a.conf': set('false') }), 'ok');
    const both = { 'run/systemd/networkd.conf.d/b.conf': set('yes'), 'etc/systemd/networkd.conf.d/a.conf': set('no') };
    assert.equal(told(both), 'warn', 'by name, not by place');
    const same = {
      'usr/lib/systemd/networkd.conf.d/a.conf': set('yes'),
      'etc/systemd/networkd.conf.d/a.conf': set('no'),
    };
    assert.equal(told(same), 'ok', 'of one name that of /etc counts');
    assert.equal(told({ 'etc/systemd/networkd.conf': set('no') }, 'addresses'), 'warn');
  });
});

describe('NetworkManager', () => {
  test('that only looks on, or has no profile on the link, is no harm', () => {
    const root = node({ [`${NM}/1`]: EXTERNAL, [`${NM}/7`]: DISCONNECTED });
    assert.deepEqual(states(root), ['ok links: NetworkManager leaves kube-ipvs0 alone']);
    assert.deepEqual(states(root, 'routes'), ['ok links: NetworkManager leaves lo alone']);
    assert.deepEqual(states(node({ [`${NM}/7`]: UNMANAGED })), ['ok links: NetworkManager leaves kube-ipvs0 alone']);
  });

  test('with a profile is told by it, unless the link is among unmanaged-devices, whose old state stays', () => {
    const profile = 'ba73a076-9a7d-4450-99fa-8959253925c7';
    const root = node({ [`${NM}/1`]: ACTIVE, [`${NM}/7`]: ACTIVE });
    const expected = (link: string, what: string): string =>
      `warn links: NetworkManager manages ${link} by ${profile} and takes ${what} away whenever that profile is ` +
      `activated: put [keyfile] unmanaged-devices=interface-name:${link} into /etc/NetworkManager/conf.d/${link}.conf ` +
      '(docs/compatibility.md)';
    assert.deepEqual(states(root), [expected('kube-ipvs0', 'all VIPs')]);
    assert.deepEqual(states(root, 'routes'), [expected('lo', 'the IPv6 routes of VIPs')]);
    const told = (value: string): string =>
      states(
        node({
          [`${NM}/7`]: ACTIVE,
          'etc/NetworkManager/conf.d/a.conf': `[keyfile]\nunmanaged-devices=${value}\n`,
        }),
      )[0]!.split(' ')[0]!;
    for (const value of [
      'interface-name:kube-ipvs0',
      'mac:00:11:22:33:44:55;interface-name:kube-*',
      'interface-name:=kube-ipvs0',
      '*',
    ])
      assert.equal(told(value), 'ok', value);
    for (const value of [
      'interface-name:kube-ipvs',
      'interface-name:eth*',
      'type:wifi',
      'interface-name:kube.ipvs0',
      '',
    ])
      assert.equal(told(value), 'warn', value);
  });

  test('and systemd-networkd on one link are both told', () => {
    const root = node({ [`${NM}/7`]: ACTIVE, [`${NETWORKD}/7`]: managed('/etc/systemd/network/a.network') });
    assert.deepEqual(
      findLinkManagers(['kube-ipvs0'], root).map(({ program }) => program),
      ['systemd-networkd', 'NetworkManager'],
    );
    assert.equal(states(root).length, 2);
  });
});

test('in a container, whose /run is its own, preflight says where to type it', () => {
  assert.deepEqual(seenLinkManagers(node({})), []);
  assert.match(
    states(node({})).join(),
    /^ok links: neither systemd-networkd nor NetworkManager is seen .* on the node itself/,
  );
});
