import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type DaemonOptions, loadDaemonConfig } from '../../../src/daemon/daemon-options.js';
import { normaliseGoFlags, runCommandLine } from '../../../src/cli/options.js';
import { ConfigError } from '../../../src/config/errors.js';
import { formatPrefix } from '../../../src/values/prefix.js';

interface Call {
  readonly command: string;
  readonly options: DaemonOptions & { json?: boolean; fix?: boolean };
}

async function runWith(...args: string[]): Promise<{ code: number; calls: Call[]; out: string; err: string }> {
  const calls: Call[] = [];
  const record = (command: string, code: number) => async (options: DaemonOptions) => {
    calls.push({ command, options });
    return code;
  };
  const handlers = {
    run: record('run', 0),
    cleanup: record('cleanup', 3),
    status: record('status', 0),
    verify: record('verify', 2),
    plan: record('plan', 0),
    preflight: record('preflight', 1),
  };
  let [out, err] = ['', ''];
  const output = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
  const code = await runCommandLine(args, handlers, '1.2.3', output);
  return { code, calls, out, err };
}

async function single(...args: string[]): Promise<Call['options'] & { command: string; code: number }> {
  const { calls, code, err } = await runWith(...args);
  assert.equal(calls.length, 1, err);
  return { ...calls[0]!.options, command: calls[0]!.command, code };
}

describe('command line', () => {
  it('takes what the DaemonSets of kubeadm and EKS pass', async () => {
    const kubeadm = await single('--config=/var/lib/kube-proxy/config.conf', '--hostname-override=node-0');
    assert.equal(kubeadm.command, 'run');
    assert.equal(kubeadm.configFile, '/var/lib/kube-proxy/config.conf');
    assert.equal(kubeadm.overrides.hostnameOverride, 'node-0');
    assert.deepEqual(kubeadm.warnings, []);
    const eks = await single('--v=2', '--config=/var/lib/kube-proxy-config/config', '--hostname-override=ip-10-0-0-1');
    assert.equal(eks.overrides.logLevel, 'info');
    assert.equal((await single('-v=6', '--config', 'f')).overrides.logLevel, 'trace');
    assert.equal((await single('-v', '4', '--log-level', 'warn')).overrides.logLevel, 'warn');
  });

  it('makes a configuration of the flags when there is no file', async () => {
    const options = await single(
      ...[
        '--proxy-mode=ipvs',
        '--cluster-cidr=10.244.0.0/16,fd00::/48',
        '--ipvs-scheduler',
        'lc',
        '--masquerade-all=true',
      ],
      ...['--ipvs-strict-arp', '--ipvs-exclude-cidrs=192.0.2.0/24, 198.51.100.0/24', '--iptables-masquerade-bit=13'],
      ...['--nodeport-addresses=primary', '--ipvs-sync-period=10s', '--feature-gates=AllAlpha=true,AllBeta=false'],
      ...['--metrics-bind-address=', '--drain-timeout=1m', '--profiling=false', '--kubeconfig', '/k'],
    );
    const { config, warnings } = await loadDaemonConfig(options);
    assert.deepEqual([...warnings, ...options.warnings], []);
    assert.equal(config.scheduler, 'lc');
    assert.equal(config.masqueradeAll, true);
    assert.equal(config.strictARP, true);
    assert.deepEqual(config.excludeCIDRs[4].map(formatPrefix), ['192.0.2.0/24', '198.51.100.0/24']);
    assert.equal(config.masqueradeBit, 13);
    assert.equal(config.nodePortAddresses[4].primary, true);
    assert.equal(config.syncPeriodMs, 10_000);
    assert.equal(config.metricsBindAddress, undefined);
    assert.deepEqual(config.healthzBindAddress, { host: '0.0.0.0', port: 10256 });
    assert.equal(config.drainTimeoutMs, 60_000);
    assert.equal(config.enableProfiling, false);
    assert.equal(config.kubeconfig, '/k');
  });

  it('refuses wrong values of flags as it does those of a file', async () => {
    const options = await single('--proxy-mode=iptables', '--oom-score-adj=many', '--ipvs-tcp-timeout=1');
    await assert.rejects(loadDaemonConfig(options), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.deepEqual(error.problems.map(({ path }) => path).sort(), ['ipvs.tcpTimeout', 'mode', 'oomScoreAdj']);
      return true;
    });
  });

  it('says which flags have no effect', async () => {
    const { warnings, overrides } = await single(
      '--config',
      'f',
      '--cluster-cidr=10.0.0.0/8',
      '--metrics-bind-address=',
    );
    assert.deepEqual(warnings, [
      '--cluster-cidr is ignored because --config is given',
      '--metrics-bind-address is ignored because --config is given',
    ]);
    assert.equal(overrides.metricsBindAddress, undefined);
    const ignored = await single('--logtostderr=true', '--iptables-sync-period=1s', '--healthz-port', '0');
    assert.equal(ignored.warnings.length, 3);
  });

  it('has the commands, which take the options before and after their name', async () => {
    const verify = await single('--config', 'f', 'verify', '--json');
    assert.deepEqual([verify.command, verify.code, verify.configFile, verify.json], ['verify', 2, 'f', true]);
    const plan = await single('plan', '--config', 'f');
    assert.deepEqual([plan.command, plan.configFile, plan.json], ['plan', 'f', false]);
    assert.deepEqual((await single('preflight', '--fix')).fix, true);
    assert.deepEqual((await single('preflight')).fix, false);
    assert.equal((await single('status')).command, 'status');
    assert.equal((await single('run', '--manifests', 'm')).manifests, 'm');
    assert.equal((await single('cleanup')).code, 3);
    assert.equal((await single('--cleanup')).command, 'cleanup');
    const init = await single('--init-only', '--config=f');
    assert.deepEqual([init.command, init.fix], ['preflight', true]);
  });

  it('explains wrong arguments and exits with 1, running nothing', async () => {
    for (const args of [
      ['--confg=f'],
      ['veryfy'],
      ['--drain-timeout=-5s'],
      ['--v=high'],
      ['--log-level=loud'],
      ['--config'],
    ]) {
      const { code, calls, err } = await runWith(...args);
      assert.equal(code, 1, args.join(' '));
      assert.deepEqual(calls, []);
      assert.match(err, /^error: /, args.join(' '));
    }
    assert.match((await runWith('--confg=f')).err, /Did you mean --config\?/);
  });

  it('prints help with examples, and its version', async () => {
    const help = await runWith('--help');
    assert.equal(help.code, 0);
    assert.match(help.out, /Examples:\n {2}kube-proxy-ipvs --config/);
    assert.doesNotMatch(help.out, /conntrack-max-per-core/);
    assert.match((await runWith('verify', '--help')).out, /--config <file>/);
    const version = await runWith('--version');
    assert.deepEqual([version.code, version.out], [0, '1.2.3\n']);
  });

  it('passes on what a handler throws', async () => {
    const fail = (): Promise<number> => Promise.reject(new TypeError('boom'));
    const handlers = { run: fail, cleanup: fail, status: fail, verify: fail, plan: fail, preflight: fail };
    const silent = { out: () => undefined, err: () => undefined };
    await assert.rejects(runCommandLine([], handlers, '1', silent), /boom/);
  });
});

it("rewrites Go's boolean and verbosity flags only", () => {
  assert.deepEqual(
    normaliseGoFlags(['-v=2', '--cleanup=true', '--profiling=false', '--config=a=b', '--masquerade-all=x']),
    ['--v=2', '--cleanup', '--config=a=b', '--masquerade-all=x'],
  );
});
