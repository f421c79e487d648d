/** Kernel parameters: which are wanted, and what becomes of those that cannot be set. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { Sysctl } from '../../../src/kernel/node/sysctl.js';
import { type SysctlOptions, ensureSysctls, desiredSysctls } from '../../../src/reconcile/sysctl-keeper.js';
describe('sysctls', () => {
  const root = mkdtempSync(join(tmpdir(), 'sysctls-'));
  after(() => rmSync(root, { recursive: true, force: true }));
  const path = (name: string): string => join(root, ...name.split('.'));
  const write = (name: string, value: string): void => {
    mkdirSync(dirname(path(name)), { recursive: true });
    writeFileSync(path(name), `${value}\n`);
  };
  const options = (more: Partial<SysctlOptions> = {}): SysctlOptions => ({
    strictARP: false,
    connReuseMode: undefined,
    cores: 2,
    conntrack: {
      maxPerCore: 0,
      min: 0,
      tcpEstablishedTimeoutMs: undefined,
      tcpCloseWaitTimeoutMs: undefined,
      tcpBeLiberal: false,
      udpTimeoutMs: undefined,
      udpStreamTimeoutMs: undefined,
    },
    ...more,
  });
  const wanted = (more: Partial<SysctlOptions> = {}): string[] =>
    desiredSysctls(options(more)).map(
      ({ name, value, atLeast }) => `${name}${atLeast === 'always' ? '>' : ''}=${value}`,
    );

  test('are those of kube-proxy, more only where the configuration asks', () => {
    const always = [
      'net.ipv4.vs.conntrack=1',
      'net.ipv4.vs.expire_nodest_conn=1',
      'net.ipv4.vs.expire_quiescent_template=1',
      'net.ipv4.ip_forward=1',
    ];
    assert.deepEqual(wanted(), always);
    assert.deepEqual(wanted({ connReuseMode: 0 }), [...always, 'net.ipv4.vs.conn_reuse_mode=0']);
    const arp = ['net.ipv4.conf.all.arp_ignore=1', 'net.ipv4.conf.all.arp_announce=2'];
    assert.deepEqual(wanted({ strictARP: true }), [...always, ...arp]);
    const conntrack = {
      maxPerCore: 32768,
      min: 131072,
      tcpEstablishedTimeoutMs: 86_400_000,
      tcpCloseWaitTimeoutMs: 3_600_000,
      tcpBeLiberal: true,
      udpTimeoutMs: 0,
      udpStreamTimeoutMs: 180_000,
    };
    assert.deepEqual(wanted({ conntrack }).slice(always.length), [
      'net.netfilter.nf_conntrack_max=131072',
      '/sys/module/nf_conntrack/parameters/hashsize>=32768',
      'net.netfilter.nf_conntrack_tcp_timeout_established=86400',
      'net.netfilter.nf_conntrack_tcp_timeout_close_wait=3600',
      'net.netfilter.nf_conntrack_udp_timeout_stream=180',
      'net.netfilter.nf_conntrack_tcp_be_liberal=1',
    ]);
    assert.deepEqual(wanted({ conntrack, cores: 8 })[4], 'net.netfilter.nf_conntrack_max=262144');
    const required = desiredSysctls(options({ strictARP: true, connReuseMode: 0, conntrack })).map(
      (one) => one.required,
    );
    assert.deepEqual(required, [...Array<true>(7).fill(true), ...Array<false>(6).fill(false)], 'conntrack’s are not');
    // As kube-proxy 1.36: what the cores make is capped, seconds are cut.
    for (const cores of [33, 64, 128])
      assert.deepEqual(wanted({ conntrack, cores }).slice(4, 6), [
        'net.netfilter.nf_conntrack_max=1048576',
        '/sys/module/nf_conntrack/parameters/hashsize>=262144',
      ]);
    const large = { ...conntrack, min: 2_000_000, tcpEstablishedTimeoutMs: 1999 };
    assert.ok(wanted({ conntrack: large, cores: 2 }).includes('net.netfilter.nf_conntrack_max=2000000'));
    assert.ok(wanted({ conntrack: large }).includes('net.netfilter.nf_conntrack_tcp_timeout_established=1'));
    const least = wanted({ conntrack: { ...conntrack, tcpEstablishedTimeoutMs: 1, udpTimeoutMs: 0 } });
    assert.ok(least.includes('net.netfilter.nf_conntrack_tcp_timeout_established=0'), 'whatever is not 0 is written');
    assert.ok(!wanted({ conntrack: { ...conntrack, maxPerCore: 0 } }).some((line) => /max|hashsize/.test(line)));
  });

  test('are written where they differ, and a bad one does not stop the others', () => {
    write('net.ipv4.vs.conntrack', '0');
    write('net.ipv4.vs.expire_quiescent_template', '1');
    write('net.ipv4.ip_forward', '0');
    const { changed, failures } = ensureSysctls(new Sysctl(root), desiredSysctls(options()));
    assert.deepEqual(changed, ['net.ipv4.vs.conntrack=1', 'net.ipv4.ip_forward=1']);
    assert.deepEqual(
      failures.map(({ desired: one }) => one.name),
      ['net.ipv4.vs.expire_nodest_conn'],
    );
    assert.match(failures[0]!.message, /modprobe ip_vs/);
    assert.equal(readFileSync(path('net.ipv4.ip_forward'), 'utf8').trim(), '1');
    assert.deepEqual(ensureSysctls(new Sysctl(root), desiredSysctls(options())).changed, []);
  });

  test('the conntrack limit is lowered at the start, as by kube-proxy; what somebody raises later is left', () => {
    const max = {
      name: 'net.netfilter.nf_conntrack_max',
      value: 1000,
      atLeast: 'after-start',
      required: false,
    } as const;
    const set = ['net.netfilter.nf_conntrack_max=1000'];
    write(max.name, '5000');
    assert.deepEqual(ensureSysctls(new Sysctl(root), [max]).changed, []);
    assert.deepEqual(ensureSysctls(new Sysctl(root), [max], 'start').changed, set);
    write(max.name, '500');
    assert.deepEqual(ensureSysctls(new Sysctl(root), [max]).changed, set);
  });

  test('the hash size is raised only, and a /sys that cannot be written is a remark', () => {
    const sysRoot = join(root, 'sys');
    const file = join(sysRoot, 'module/nf_conntrack/parameters/hashsize');
    mkdirSync(dirname(file), { recursive: true });
    const name = '/sys/module/nf_conntrack/parameters/hashsize';
    const size = { name, value: 1000, atLeast: 'always', required: false } as const;
    writeFileSync(file, '5000\n');
    assert.deepEqual(ensureSysctls(new Sysctl(root, sysRoot), [size], 'start').changed, []);
    writeFileSync(file, '500\n');
    assert.deepEqual(ensureSysctls(new Sysctl(root, sysRoot), [size]).changed, [`${name}=1000`]);
    const { failures } = ensureSysctls(new Sysctl(root, join(root, 'nowhere')), [size]);
    assert.match(failures[0]!.message, /hashsize does not exist: load the nf_conntrack module/);
  });
});
