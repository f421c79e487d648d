import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type DaemonOptions, loadDaemonConfig } from '../../../src/daemon/daemon-options.js';
import { runCommandLine } from '../../../src/cli/command-line.js';
import { normaliseGoFlags } from '../../../src/cli/go-flags.js';
import { ConfigError } from '../../../src/config/errors.js';
import { formatPrefix } from '../../../src/values/prefix.js';

interface Call {
  readonly command: string;
  readonly options: DaemonOptions & {
    json?: boolean;
    fix?: boolean;
    all?: boolean;
    diff?: boolean;
    exitCode?: boolean;
    strict?: boolean;
    writeTo?: string;
    timeoutMs?: number;
    destination?: string;
    from?: string;
    format?: string;
    watchMs?: number;
    headers?: boolean;
    output?: string;
    yaml?: boolean;
    sinceMs?: number;
    ownOnly?: boolean;
    force?: boolean;
    dryRun?: boolean;
  };
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
    services: record('services', 0),
    backends: record('backends', 0),
    connections: record('connections', 0),
    table: record('table', 0),
    migrate: record('migrate', 2),
    verify: record('verify', 2),
    plan: record('plan', 0),
    explain: record('explain', 0),
    events: record('events', 0),
    diag: record('diag', 0),
    preflight: record('preflight', 1),
    configCheck: record('config check', 1),
    configPrint: record('config print', 0),
  };
  let [out, err] = ['', ''];
  const output = {
    ...{ out: (text: string) => void (out += text), err: (text: string) => void (err += text) },
    build: { commit: '0123abcd', date: '2026-11-26T07:00:00.000Z' },
  };
  const code = await runCommandLine(args, handlers, '1.2.3', output);
  return { code, calls, out, err };
}

async function single(...args: string[]): Promise<Call['options'] & { command: string; code: number }> {
  const { calls, code, err } = await runWith(...args);
  assert.equal(calls.length, 1, err);
  return { ...calls[0]!.options, command: calls[0]!.command, code };
}

it('cleanup removes, and only what it is told to: each flag turns its own switch, and no other', async () => {
  const switches = async (...flags: string[]): Promise<unknown[]> => {
    const { code, calls } = await runWith('cleanup', ...flags);
    assert.equal(code, 3);
    const { dryRun, ownOnly, force, json } = calls[0]!.options;
    return [dryRun, ownOnly, force, json];
  };
  assert.deepEqual(await switches(), [false, false, false, false]);
  assert.deepEqual(await switches('--dry-run'), [true, false, false, false]);
  assert.deepEqual(await switches('--own-only'), [false, true, false, false]);
  assert.deepEqual(await switches('--force'), [false, false, true, false]);
  assert.deepEqual(await switches('--json', '--dry-run'), [true, false, false, true]);
});

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
    const ignored = await single('--logtostderr=true', '--iptables-sync-period=1s', '--boot-id-file', '/b');
    assert.equal(ignored.warnings.length, 3);
  });

  it('takes every flag of kube-proxy 1.36, with - or _ in its name', async () => {
    // AddFlags in cmd/kube-proxy/app/options.go, the logging flags of component-base and those of cAdvisor.
    const flags: Record<string, readonly string[]> = {
      text: [
        ...['bind-address', 'boot-id-file', 'cluster-cidr', 'config', 'config-sync-period', 'detect-local-mode'],
        ...['conntrack-tcp-timeout-close-wait', 'conntrack-tcp-timeout-established', 'conntrack-udp-timeout'],
        ...['conntrack-udp-timeout-stream', 'feature-gates', 'healthz-bind-address', 'hostname-override'],
        ...['iptables-min-sync-period', 'iptables-sync-period', 'ipvs-exclude-cidrs', 'ipvs-min-sync-period'],
        ...['ipvs-scheduler', 'ipvs-sync-period', 'ipvs-tcp-timeout', 'ipvs-tcpfin-timeout', 'ipvs-udp-timeout'],
        ...['kube-api-content-type', 'kubeconfig', 'log-flush-frequency', 'log-json-info-buffer-size'],
        ...['log-text-info-buffer-size', 'logging-format', 'machine-id-file', 'master', 'metrics-bind-address'],
        ...['nodeport-addresses', 'pod-bridge-interface', 'pod-interface-name-prefix', 'proxy-mode'],
        ...['proxy-port-range', 'show-hidden-metrics-for-version', 'vmodule', 'write-config-to'],
      ],
      number: [
        ...['conntrack-max-per-core', 'conntrack-min', 'healthz-port', 'iptables-masquerade-bit', 'kube-api-burst'],
        ...['kube-api-qps', 'metrics-port', 'oom-score-adj', 'v'],
      ],
      boolean: [
        ...['bind-address-hard-fail', 'cleanup', 'conntrack-tcp-be-liberal', 'init-only', 'ipvs-strict-arp'],
        ...['iptables-localhost-nodeports', 'log-json-split-stream', 'log-text-split-stream', 'masquerade-all'],
        ...['profiling', 'version'],
      ],
    };
    const value = { text: '=1s', number: '=1', boolean: '=false' };
    for (const [kind, names] of Object.entries(flags))
      for (const name of names)
        for (const written of [name, name.replaceAll('-', '_')]) {
          const { code, calls, err } = await runWith(`--${written}${value[kind as keyof typeof value]}`);
          assert.deepEqual([code, calls.length, err], [0, 1, ''], written);
        }
  });

  it('adds up flags that are repeated, as pflag does, and lets the last boolean win', async () => {
    const options = await single(
      ...['--nodeport-addresses=10.0.0.0/8', '--nodeport-addresses', '192.0.2.0/24,fd00::/8'],
      ...['--ipvs-exclude-cidrs=198.51.100.0/24', '--ipvs-exclude-cidrs=203.0.113.0/24', '--cluster-cidr=10.1.0.0/16'],
      ...['--feature-gates=AllAlpha=true,AllBeta=t', '--feature-gates=AllBeta=0', '--masquerade_all', '--profiling'],
      ...['--masquerade-all=false', '--profiling=T'],
    );
    const { config, document } = await loadDaemonConfig(options);
    assert.deepEqual(document.nodePortAddresses, ['10.0.0.0/8', '192.0.2.0/24', 'fd00::/8']);
    assert.deepEqual(config.excludeCIDRs[4].map(formatPrefix), ['198.51.100.0/24', '203.0.113.0/24']);
    assert.deepEqual(document.featureGates, { AllAlpha: true, AllBeta: false });
    assert.deepEqual([config.masqueradeAll, config.enableProfiling], [false, true]);
  });

  it('switches a server off by port 0, and takes a port for an address that has none, as kube-proxy', async () => {
    const off = await single('--healthz-port=0', '--metrics_port=0', '--cluster-cidr=10.0.0.0/8');
    const { config } = await loadDaemonConfig(off);
    assert.deepEqual([config.healthzBindAddress, config.metricsBindAddress], [undefined, undefined]);
    const ports = ['--healthz-port=1234', '--metrics-port=1235', '--metrics-bind-address=192.0.2.1'];
    const given = await loadDaemonConfig(await single(...ports, '--cluster-cidr=10.0.0.0/8'));
    assert.deepEqual(given.config.healthzBindAddress, { host: '0.0.0.0', port: 10256 });
    assert.deepEqual(given.config.metricsBindAddress, { host: '192.0.2.1', port: 1235 });
    const withFile = await single('--config=f', '--healthz-port=0');
    assert.deepEqual(withFile.warnings, ['--healthz-port is ignored because --config is given']);
    assert.equal(withFile.overrides.healthzBindAddress, undefined);
    assert.match((await runWith('--healthz-port=none')).err, /It is a port, or 0/);
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
    const flagged = await single('--cleanup');
    assert.deepEqual(
      [flagged.command, flagged.dryRun, flagged.ownOnly, flagged.force, flagged.json],
      ['cleanup', false, false, false, false],
    );
    const init = await single('--init-only', '--config=f');
    assert.deepEqual([init.command, init.fix], ['preflight', true]);
  });

  it('explain takes a destination, whose packet it is and how to print', async () => {
    const one = await single('explain', '--from', '10.0.0.1', '10.96.0.1:443/TCP', '-o', 'wide', '--config', 'f');
    assert.deepEqual(
      [one.command, one.destination, one.from, one.format],
      ['explain', '10.96.0.1:443/TCP', '10.0.0.1', 'wide'],
    );
    assert.match((await runWith('explain')).err, /missing required argument 'destination'/);
    assert.match((await runWith('explain', 'x', '-o', 'xml')).err, /Allowed choices are wide, json, yaml, name/);
  });

  it('events takes how far back, and how to print', async () => {
    const some = await single('events', '--since', '10m', '-o', 'json');
    assert.deepEqual([some.command, some.sinceMs, some.format], ['events', 600_000, 'json']);
    assert.equal((await single('events')).sinceMs, undefined);
    assert.match((await runWith('events', '--since', 'yesterday')).err, /yesterday/);
  });

  it('every command that shows this node takes the same forms', async () => {
    const operands: Record<string, string[]> = { backends: ['a/b'], connections: ['a/b'], explain: ['10.0.0.1:80'] };
    for (const name of ['services', 'backends', 'connections', 'table', 'status', 'events', 'explain', 'migrate']) {
      const words = [name, ...(operands[name] ?? [])];
      for (const format of ['wide', 'json', 'yaml', 'name'])
        assert.equal((await single(...words, '-o', format)).format, format, name);
      assert.equal((await single(...words, '--json')).format, 'json', name);
      const plain = await single(...words);
      assert.deepEqual([plain.format, plain.headers, plain.watchMs], [undefined, true, undefined], name);
      const watching = await single(...words, '--no-headers', '--watch=5s');
      assert.deepEqual([watching.headers, watching.watchMs], [false, 5000], name);
    }
    for (const words of [['verify'], ['plan'], ['preflight'], ['cleanup'], ['config', 'check'], ['config', 'print']]) {
      const forms = [
        await single(...words),
        await single(...words, '-o', 'json'),
        await single(...words, '-o', 'yaml'),
      ];
      assert.deepEqual(
        forms.map(({ json, yaml }) => [json, yaml]),
        [
          [false, false],
          [true, false],
          [true, true],
        ],
        words.join(' '),
      );
    }
    assert.equal((await single('diag', '--output', 'x.tar')).output, 'x.tar');
    assert.equal((await single('migrate', '--timeout', '5s')).timeoutMs, 5000);
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
    const verify = (await runWith('verify', '--help')).out;
    assert.match(verify, /--config <file>/);
    assert.doesNotMatch(verify, /--cleanup|--init-only|--drain-timeout|--no-/);
    assert.equal((await runWith('help', 'verify')).out, verify);
    const run = (await runWith('run', '--help')).out;
    for (const option of ['--config <file>', '--drain-timeout <duration>', '--log-level <level>'])
      assert.ok(run.includes(option), option);
    assert.doesNotMatch(run, /--cleanup|--init-only/);
  });

  it("lists kube-proxy's flags with what they do here", async () => {
    const { code, out } = await runWith('help', 'flags');
    assert.equal(code, 0);
    assert.match(out, /^ {2}--conntrack-max-per-core +sets conntrack\.maxPerCore$/m);
    assert.match(out, /^ {2}--boot-id-file +is ignored: it has no effect in kube-proxy either$/m);
    assert.equal((await runWith('flags')).out, out);
  });

  it('says its version in every form that kube-proxy has', async () => {
    for (const flag of ['--version', '--version=true', '-V']) {
      const { code, out } = await runWith(flag);
      assert.deepEqual([code, out], [0, '1.2.3\n'], flag);
    }
    const raw = JSON.parse((await runWith('--version=raw')).out) as Record<string, string>;
    assert.equal(raw.version, '1.2.3');
    assert.equal(raw.nodeVersion, process.versions.node);
    assert.deepEqual([raw.gitCommit, raw.buildDate], ['0123abcd', '2026-11-26T07:00:00.000Z']);
  });

  it('knows what a mistyped command was meant to be', async () => {
    for (const [typed, meant] of [
      ['stauts', 'status'],
      ['veryfy', 'verify'],
      ['paln', 'plan'],
      ['prefligt', 'preflight'],
    ]) {
      const { code, calls, err } = await runWith(typed!);
      assert.deepEqual([code, calls], [1, []]);
      assert.match(err, new RegExp(`^error: unknown command '${typed}'\\n\\(Did you mean ${meant}\\?\\)`));
    }
    assert.doesNotMatch((await runWith('xyzzy')).err, /Did you mean/);
  });

  it('has what plan, verify and config take', async () => {
    const plan = await single('plan', '--diff', '--exit-code', '--json');
    assert.deepEqual([plan.diff, plan.exitCode, plan.json], [true, true, true]);
    assert.deepEqual((await single('plan')).exitCode, false);
    assert.deepEqual((await single('verify', '--all')).all, true);
    assert.equal((await single('verify', '--timeout', '5s')).timeoutMs, 5000);
    assert.equal((await single('plan', '--timeout=1m')).timeoutMs, 60_000);
    assert.equal((await single('plan')).timeoutMs, undefined);
    const check = await single('config', 'check', 'f', '--strict');
    assert.deepEqual([check.command, check.configFile, check.strict], ['config check', 'f', true]);
    assert.equal((await single('--config=g', 'config', 'print')).configFile, 'g');
    const write = await single('--write-config-to=/tmp/x', '--ipvs-scheduler=lc');
    assert.deepEqual([write.command, write.writeTo], ['config print', '/tmp/x']);
  });

  it('passes on what a handler throws', async () => {
    const fail = (): Promise<number> => Promise.reject(new TypeError('boom'));
    const handlers = {
      ...{ run: fail, cleanup: fail, status: fail, verify: fail, plan: fail, preflight: fail },
      ...{ configCheck: fail, configPrint: fail, explain: fail, events: fail },
      ...{ configCheck: fail, configPrint: fail, services: fail, backends: fail, connections: fail, table: fail },
      ...{ migrate: fail, diag: fail },
    };
    const silent = { out: () => undefined, err: () => undefined };
    await assert.rejects(runCommandLine([], handlers, '1', silent), /boom/);
  });
});

it("rewrites Go's boolean and verbosity flags, underscores in names, and nothing else", () => {
  const booleans = new Set(['cleanup', 'profiling', 'masquerade-all']);
  assert.deepEqual(
    normaliseGoFlags(
      ['-v=2', '--cleanup=true', '--profiling=F', '--config=a=b_c', '--masquerade_all=x', '--masquerade_all', '-v'],
      booleans,
    ),
    ['--v=2', '--cleanup', '--no-profiling', '--config=a=b_c', '--masquerade-all=x', '--masquerade-all', '-v'],
  );
  assert.deepEqual(normaliseGoFlags(['a_b', '--', '--cleanup=true'], booleans), ['a_b', '--', '--cleanup=true']);
});
