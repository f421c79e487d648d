/** /healthz, /livez and /readyz through the source of health that the daemon uses and the server that it starts. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { pino } from 'pino';
import { type HealthSourceOptions, healthSource } from '../../../src/daemon/answer/health-source.js';
import { SyncReporter } from '../../../src/daemon/report/sync-reporter.js';
import { type SyncState } from '../../../src/daemon/report/sync-state.js';
import { allReasons, formatReason, healthHandler } from '../../../src/serve/health.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { type Answer, fetchText, serve } from '../../support/http.js';

const NOW = new Date('2026-11-21T07:00:00.000Z');
const SYNCED_AT = new Date('2026-11-21T06:30:00.000Z');
const SYNC_PERIOD = 30_000;
const RED_AFTER = 2 * SYNC_PERIOD;
const MINUTE = 60_000;

/** A daemon's state of health with a clock that only the test moves; nothing is known and nothing in the kernel. */
class Node {
  readonly reporter: SyncReporter;
  readonly state: SyncState;
  readonly metrics = new Metrics({ version: '0.1.0' });
  now = 1_000_000;
  verifiedAt: number | undefined;
  rules: { waitingSince: number | undefined; checkingSince: number | undefined } = {
    waitingSince: undefined,
    checkingSince: undefined,
  };
  isSynced = false;
  isNodeKnown = false;
  isEligible = true;
  families: HealthSourceOptions['families'] = [4, 6];

  constructor(
    t: TestContext,
    readonly hadKernelState = false,
  ) {
    this.reporter = new SyncReporter(this.metrics, pino({ enabled: false }));
    this.state = this.reporter.state;
    t.after(() => this.metrics.close());
  }

  /** As it is in an ordinary minute: all is known, all is in the kernel. */
  settle(): this {
    this.isSynced = true;
    this.isNodeKnown = true;
    this.state.lastSuccess = SYNCED_AT;
    this.verifiedAt = this.now;
    return this;
  }

  source() {
    return healthSource({
      state: this.state,
      syncPeriodMs: () => SYNC_PERIOD,
      families: this.families,
      verificationAge: () => (this.verifiedAt === undefined ? undefined : this.now - this.verifiedAt),
      rules: () => this.rules,
      isSynced: () => this.isSynced,
      isNodeKnown: () => this.isNodeKnown,
      isEligible: () => this.isEligible,
      hadKernelState: this.hadKernelState,
      now: () => this.now,
    });
  }

  async ask(t: TestContext, path: string, options: { method?: string } = {}): Promise<Answer> {
    const port = await serve(t, { handler: healthHandler(this.source(), this.metrics, () => NOW) });
    return fetchText(port, path, options);
  }

  async status(t: TestContext, path = '/healthz'): Promise<number> {
    return (await this.ask(t, path)).status;
  }

  /** What /status and the command say. */
  details(): string {
    return allReasons(this.source().healthz()).map(formatReason).join('\n');
  }
}

describe('health server', () => {
  it("answers green in kube-proxy 1.36's words, a status per family, lastUpdated being now", async (t) => {
    const node = new Node(t).settle();
    const answer = await node.ask(t, '/healthz');
    assert.equal(answer.status, 200);
    assert.equal(answer.headers['content-type'], 'application/json');
    assert.equal(answer.headers['x-content-type-options'], 'nosniff');
    const family = '{"lastUpdated":"2026-11-21T06:30:00.000Z","healthy":true}';
    const expected =
      '{"lastUpdated":"2026-11-21T07:00:00.000Z","currentTime":"2026-11-21T07:00:00.000Z","nodeEligible":true,' +
      `"healthy":true,"status":{"IPv4":${family},"IPv6":${family}}}`;
    assert.equal(answer.body, expected);
    const { nodeEligible, ...live } = JSON.parse(expected) as Record<string, unknown>;
    assert.equal(nodeEligible, true);
    assert.deepEqual(JSON.parse((await node.ask(t, '/livez')).body), live);
  });

  it('has the served families only, and no status before the first sync (omitempty)', async (t) => {
    const node = new Node(t).settle();
    node.families = [6];
    assert.deepEqual(Object.keys((JSON.parse((await node.ask(t, '/healthz')).body) as { status: object }).status), [
      'IPv6',
    ]);
    node.state.lastSuccess = undefined;
    assert.ok(!('status' in (JSON.parse((await node.ask(t, '/healthz')).body) as object)));
  });

  it('answers red with the real lastUpdated and categories; names, addresses and errors are for /status (X-L7)', async (t) => {
    const node = new Node(t).settle();
    node.state.waitingSince = node.now - RED_AFTER - 5000;
    node.state.lastFailure = 'add-real-server TCP 10.96.0.66:80 -> 10.1.2.3:80: EINVAL';
    node.state.failureCount = 3;
    const answer = await node.ask(t, '/healthz');
    assert.equal(answer.status, 503);
    const { reasons, details, ...rest } = JSON.parse(answer.body) as Record<string, unknown>;
    const family = { lastUpdated: SYNCED_AT.toISOString(), healthy: false };
    assert.deepEqual(rest, {
      lastUpdated: SYNCED_AT.toISOString(),
      currentTime: NOW.toISOString(),
      nodeEligible: true,
      healthy: false,
      status: { IPv4: family, IPv6: family },
    });
    assert.deepEqual(reasons, ['sync: changes have waited for 65 s to reach the kernel (3 failed at the last try)']);
    assert.match(String(details), /\/status/);
    assert.doesNotMatch(answer.body, /10\.96|EINVAL|add-real/);
    assert.match(node.details(), /EINVAL/);
  });

  it('is red on /healthz, not on /livez and /readyz, while the node goes away; /status says why (D21)', async (t) => {
    const node = new Node(t).settle();
    node.isEligible = false;
    const healthz = await node.ask(t, '/healthz');
    assert.equal(healthz.status, 503);
    const body = JSON.parse(healthz.body) as Record<string, unknown>;
    assert.deepEqual([body.nodeEligible, body.healthy], [false, true]);
    assert.match(String(body.reasons), /^node: .*being deleted/);
    const livez = await node.ask(t, '/livez');
    assert.equal(livez.status, 200);
    assert.ok(!('nodeEligible' in (JSON.parse(livez.body) as object)));
    assert.equal(await node.status(t, '/readyz'), 200);
    assert.match(node.details(), /being deleted/);
  });

  it('counts its answers, refuses other methods and paths, and answers HEAD without a body', async (t) => {
    const node = new Node(t).settle();
    assert.equal(await node.status(t, '/healthz?verbose'), 200);
    node.state.runningSince = node.now - 6 * MINUTE;
    assert.equal(await node.status(t, '/livez'), 503);
    const text = await node.metrics.text();
    assert.match(text, /^kubeproxy_proxy_healthz_total\{code="200"\} 1$/m);
    assert.match(text, /^kubeproxy_proxy_livez_total\{code="503"\} 1$/m);
    assert.equal(await node.status(t, '/metrics'), 404);
    assert.equal((await node.ask(t, '/healthz', { method: 'POST' })).status, 405);
    const head = await node.ask(t, '/healthz', { method: 'HEAD' });
    assert.deepEqual([head.status, head.body], [200, '']);
  });

  it('answers 500 without details when the source throws, and goes on', async (t) => {
    const node = new Node(t).settle();
    const { state } = node;
    let isBroken = true;
    const source = healthSource({
      ...{ state, syncPeriodMs: () => SYNC_PERIOD, families: [4], verificationAge: () => 0, rules: () => node.rules },
      ...{ isSynced: () => true, isNodeKnown: () => true, hadKernelState: true },
      isEligible: () => {
        if (isBroken) throw new Error('secret detail');
        return true;
      },
    });
    const port = await serve(t, { handler: healthHandler(source, node.metrics) });
    const answer = await fetchText(port, '/healthz');
    assert.deepEqual([answer.status, answer.body], [500, 'internal error\n']);
    isBroken = false;
    assert.equal((await fetchText(port, '/healthz')).status, 200);
  });
});

describe('health is red only for what is known and not in the kernel (X-C1)', () => {
  it('stays green however long the API server is away', async (t) => {
    const node = new Node(t).settle();
    for (let minute = 0; minute < 24 * 60; minute += 7) {
      node.now += 7 * MINUTE;
      node.verifiedAt = node.now - SYNC_PERIOD;
      assert.deepEqual(node.source().healthz().reasons, []);
    }
    for (const path of ['/healthz', '/livez', '/readyz']) assert.equal(await node.status(t, path), 200, path);
  });

  it('is green from the first moment of a restart while the API server is away, if the kernel goes on serving', async (t) => {
    const node = new Node(t, true);
    node.now += 60 * MINUTE;
    assert.equal(await node.status(t), 200);
    assert.equal(await node.status(t, '/livez'), 200);
    // A rollout waits: this process has not shown yet that it can do its work.
    const ready = await node.ask(t, '/readyz');
    assert.equal(ready.status, 503);
    assert.match(ready.body, /starting: the first lists/);
  });

  it('is red on a fresh node until the API server has told it anything, where kube-proxy does not listen yet', async (t) => {
    const node = new Node(t);
    const answer = await node.ask(t, '/healthz');
    assert.equal(answer.status, 503);
    assert.equal((JSON.parse(answer.body) as { lastUpdated: string }).lastUpdated, '0001-01-01T00:00:00Z');
    assert.match(answer.body, /starting: nothing is known/);
    node.isNodeKnown = true;
    assert.equal(await node.status(t), 200, 'as kube-proxy before its first sync');
    node.isSynced = true;
    node.state.waitingSince = node.now;
    assert.equal(await node.status(t), 200, 'the first sync has its time');
    node.now += RED_AFTER + 1;
    assert.equal(await node.status(t), 503, 'what is known is not in the kernel');
  });

  it('is red when a change has waited for two sync periods, not before', async (t) => {
    const node = new Node(t).settle();
    node.state.waitingSince = node.now;
    node.now += RED_AFTER;
    assert.equal(await node.status(t), 200);
    node.now++;
    assert.equal(await node.status(t), 503);
    node.state.waitingSince = undefined;
    assert.equal(await node.status(t), 200);
  });

  it('is red when the kernel was not read back for two sync periods and half a minute', async (t) => {
    const node = new Node(t).settle();
    node.now += RED_AFTER + 30_000;
    assert.equal(await node.status(t), 200);
    node.now += 2;
    assert.match((await node.ask(t, '/healthz')).body, /verification: the kernel was last verified 90 s ago/);
  });

  it('is red when rules wait, hang or fail for two sync periods: also when they never were written (X-M1)', async (t) => {
    for (const rules of [
      { waitingSince: 0, checkingSince: undefined },
      { waitingSince: undefined, checkingSince: 0 },
    ]) {
      const node = new Node(t).settle();
      node.now = RED_AFTER;
      node.verifiedAt = node.now;
      node.rules = rules;
      assert.equal(await node.status(t), 200);
      node.now++;
      assert.match((await node.ask(t, '/healthz')).body, /"rules: iptables rules have waited for 60 s"/);
      assert.match(node.details(), /xtables lock/);
    }
    const node = new Node(t).settle();
    node.state.rulesFailure = 'ip6tables-restore: line 7 failed';
    node.state.rulesFailureFamily = 6;
    node.state.rulesFailingSince = node.now;
    assert.equal(await node.status(t), 200, 'it is tried again');
    node.now += RED_AFTER + 1;
    const { body } = await node.ask(t, '/healthz');
    assert.match(body, /rules: iptables rules have failed for 60 s/);
    assert.doesNotMatch(body, /line 7/);
    const { status } = JSON.parse(body) as { status: Record<string, { healthy: boolean }> };
    assert.deepEqual([status.IPv4!.healthy, status.IPv6!.healthy], [true, false]);
  });

  it('is red while a sysctl that Service traffic needs is wrong, with the fix in the details (X-M6)', async (t) => {
    const node = new Node(t).settle();
    const failure = (name: string, message: string, required: boolean) => ({
      desired: { name, value: 1, required },
      message,
    });
    const optional = failure('net.netfilter.nf_conntrack_max', 'cannot set it', false);
    node.reporter.sysctlsPrepared({ changed: [], failures: [optional] });
    assert.equal(await node.status(t), 200);
    const message = 'cannot set sysctl net.ipv4.ip_forward=1: /proc/sys is mounted read-only: set it on the node';
    node.reporter.sysctlsPrepared({
      changed: [],
      failures: [optional, failure('net.ipv4.ip_forward', message, true)],
    });
    assert.match((await node.ask(t, '/healthz')).body, /"sysctl: 1 kernel settings/);
    assert.match(node.details(), /ip_forward=1.*set it on the node/);
    node.reporter.sysctlsPrepared({ changed: [], failures: [optional] });
    assert.equal(await node.status(t), 200);
    node.reporter.sysctlsPrepared({ changed: [], failures: [] });
    assert.equal(node.state.failedSysctls.size, 0, 'what was mended is complained of no more');
  });

  it('is dead when a sync has been running for five minutes', async (t) => {
    const node = new Node(t).settle();
    node.state.runningSince = node.now;
    node.now += 5 * MINUTE;
    assert.equal(await node.status(t, '/livez'), 200);
    node.now++;
    assert.equal(await node.status(t, '/livez'), 503);
  });
});
