import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFileSync } from 'node:fs';
import { svgChart } from '../../bench/chart.js';
import { parseHistogram, quantileOf } from '../../bench/histogram.js';
import { shares } from '../../bench/profile-shares.js';
import { changeChart, coldSyncChart, withFigures } from '../../bench/publish.js';
import { type Parts, type Report, markdownTable, rowOf, table } from '../../bench/report.js';
import { parseStrace } from '../../bench/part-strace.js';

const window = {
  seconds: 60,
  cpuMs: 900,
  cpuPercent: 1.5,
  cpuPercentWithoutChildren: 1,
  verifications: 2,
  verificationWallMs: 123.4,
  processesPerVerify: 1,
};
const PARTS: Parts = {
  cold: {
    coldSyncMs: 3000,
    coldSyncWithoutRulesMs: 2900,
    startToServingMs: 9000.4,
    eventLoopMaxMs: 42.24,
    eventLoopMaxListMs: 50,
    netlinkMessages: 120_139,
    rssMb: { peak: 131, settled: 115.5, end: 120, peakEnd: 140 },
    idle: window,
    churn: { ...window, cpuPercent: 6.789 },
    changes: { count: 200, p50Ms: 4.321, p99Ms: 19.876, maxMs: 30 },
    messagesPerChange: 3,
    processesPerChange: 0,
    burstMs: 6300.1,
    ownP50Ms: 0.5,
    ownAhead: { p50Ms: 1, p99Ms: 2 },
    ownP99Ms: 1,
    burstCpuMs: { daemon: 3000, apiServer: 2000 },
    changesAfterBurst: {
      ...{ count: 200, p50Ms: 4, p99Ms: 8.125, maxMs: 9 },
      ...{ ownP99Ms: 2, ownMaxMs: 5, apiServerPauseMs: 7.77, daemonPauseMs: 3.33 },
    },
  },
  limit: { ms: 2000, datagrams: 1, messages: 1, bytes: 1, refused: 0, perSocket: [1] },
  restore: { ms: 50_000.6 },
  steady: {
    duringColdSync: { count: 30, p50Ms: 5, p99Ms: 20.004, maxMs: 21 },
    duringVerification: { count: 300, p50Ms: 5, p99Ms: 9, maxMs: 9, ownP50Ms: 1, ownP99Ms: 2, verifications: 20 },
    duringRelist: { count: 300, p50Ms: 5, p99Ms: 11, maxMs: 12, ownP50Ms: 1, ownP99Ms: 2, verifications: 20 },
    verification: { cpuMs: 330, count: 20 },
    limit: { cpuMs: 165, ms: 166, listMs: 3, virtualServers: 10_000, realServers: 100_000 },
  },
  traffic: {
    direct: { perSecond: 3000, p50Us: 300.4, p99Us: 900, answered: 1, failed: 0 },
    throughIpvs: { perSecond: 2500.4, p50Us: 380, p99Us: 1000, answered: 1, failed: 0 },
  },
  strace: { syscalls: null, why: 'no ptrace here' },
};

test('a row has the published names, and null for what was not measured', () => {
  const { details, ...row } = rowOf(10_000, 100_000, PARTS);
  assert.equal(details, PARTS);
  assert.deepEqual(row, {
    services: 10_000,
    endpoints: 100_000,
    vips: 'addresses',
    coldSyncMs: 3000,
    coldSyncWithoutRulesMs: 2900,
    startToServingMs: 9000,
    kernelLimitMs: 2000,
    ratio: 1.5,
    ratioWithoutRules: 1.45,
    ipvsadmRestoreMs: 50_001,
    changeP50Ms: 4.32,
    changeP99Ms: 19.88,
    ownWorkP50Ms: 0.5,
    ownWorkP99Ms: 1,
    ownWorkAheadP50Ms: 1,
    ownWorkAheadP99Ms: 2,
    changeInVerificationP99Ms: 9,
    changeInRelistP99Ms: 11,
    changeInColdSyncP99Ms: 20,
    burstMs: 6300,
    changeAfterBurstP99Ms: 8.13,
    ownWorkAfterBurstP99Ms: 2,
    apiServerPauseAfterBurstMs: 7.8,
    daemonPauseAfterBurstMs: 3.3,
    verifyMs: 123,
    verifyCpuMs: 330,
    verifyLimitCpuMs: 165,
    verifyRatio: 2,
    traffic: { perSecond: 2500, p50Us: 380, p99Us: 1000, directP50Us: 300 },
    cpuPercentIdle: 1.5,
    cpuPercentChurn: 6.79,
    rssMb: { peak: 131, settled: 115.5 },
    eventLoopMaxMs: 42.2,
    netlinkMessages: 120_139,
    syscalls: null,
    processesPerChange: 0,
    processesPerVerify: 1,
  });
  const nothing = rowOf(100, 1000, {});
  assert.equal(nothing.ratio, null);
  assert.deepEqual(nothing.rssMb, { peak: null, settled: null });
});

test('a profile by what was running: rooms for our own code, the kernel apart, idleness and other times left out', () => {
  const frame = (functionName: string, url = '') => ({
    functionName,
    url,
    scriptId: '0',
    lineNumber: 1,
    columnNumber: 1,
  });
  const frames = [
    frame('writeBuffer'),
    frame('upsert', 'file:///x/build/src/reconcile/ipvs-applier.js'),
    frame('append', 'file:///x/build/src/kernel/ipvs/client.js'),
    frame('(idle)'),
    frame('now', 'node:internal/perf/performance'),
    frame('inc', 'file:///x/node_modules/prom-client/lib/counter.js'),
  ];
  const profile = {
    nodes: frames.map((callFrame, id) => ({ id, callFrame, hitCount: 1 })),
    startTime: 0,
    endTime: 0,
    samples: [0, 1, 3, 2, 0, 4, 5],
    // The time of a sample goes on until the next one.
    timeDeltas: [1000, 5000, 2000, 90_000, 3000, 4000, 2000, 50_000],
  };
  assert.deepEqual(shares({ startedAt: 1_000_000, profile }), [
    { what: 'others on the CPU', ms: 44 },
    { what: 'the kernel: write and send', ms: 9 },
    { what: 'prom-client', ms: 6 },
    { what: 'src/kernel/ipvs', ms: 3 },
    { what: 'src/reconcile', ms: 2 },
    { what: "Node's JavaScript", ms: 2 },
  ]);
  assert.deepEqual(shares({ startedAt: 1_000_000, profile }, 1_000_005, 1_000_007), [{ what: 'src/reconcile', ms: 2 }]);
});

test('the table names the machine, lines up its columns and marks a quick run', () => {
  const rows = [rowOf(100, 1000, {}), rowOf(10_000, 100_000, PARTS)];
  const text = table({ machine: { cpu: 'some cpu' }, quick: true, rows });
  assert.match(text, /^cpu: some cpu\nQUICK RUN/);
  const lines = text.split('\n').filter((line) => /\d$|-$/.test(line));
  assert.equal(new Set(lines.map((line) => line.length)).size, 1);
  assert.match(text, /^ratio of the two +- +1\.5$/m);
  assert.doesNotMatch(table({ machine: {}, quick: false, rows }), /QUICK/);
});

test('strace -c is added up, its own total left out', () => {
  const { syscalls, byName } = parseStrace(
    [
      '% time     seconds  usecs/call     calls    errors syscall',
      '------ ----------- ----------- --------- --------- ----------------',
      ' 68.94    0.232091        1178       197        29 futex',
      ' 12.56    0.042272          96       439           epoll_pwait',
      '------ ----------- ----------- --------- --------- ----------------',
      '100.00    0.336668         133       636        40 total',
    ].join('\n'),
  );
  assert.equal(syscalls, 636);
  assert.deepEqual(byName, { epoll_pwait: 439, futex: 197 });
});

const REPORT: Report = {
  machine: { cpu: 'some cpu', cores: 2, kernel: '6.18', node: 'v20', testKernel: 'Linux 6.1', at: '2026-11-26' },
  quick: false,
  rows: [rowOf(100, 1000, {}), rowOf(10_000, 100_000, PARTS)],
};

test('the published table leaves out what no row has', () => {
  const rows = [...REPORT.rows, rowOf(10_000, 100_000, PARTS, 'routes')];
  const lines = markdownTable({ ...REPORT, rows }).split('\n');
  assert.equal(lines[0], '| Services x endpoints | 100 x 10 | 10,000 x 10 | 10,000 x 10, VIPs as routes |');
  assert.ok(lines.includes('| cold sync, ms |  | 3,000 | 3,000 |'));
  assert.ok(!lines.some((line) => line.includes('system calls') || line.includes('NaN')));
  const names = lines.map((line) => line.split('|')[1]);
  assert.equal(new Set(names).size, names.length, 'no two figures have one name');
});

test('docs/performance.md has a place for the figures of a run, and only that changes', () => {
  const page = readFileSync('docs/performance.md', 'utf8');
  const published = withFigures(page, REPORT);
  assert.match(
    published,
    /Measured 2026-11-26: 2 vCPUs of some cpu \(Linux 6\.18\), Node v20; test kernel: Linux 6\.1\./,
  );
  assert.ok(published.includes(markdownTable(REPORT)));
  const [before, after] = [page.indexOf('<!-- bench:begin'), page.indexOf('<!-- bench:end -->')];
  assert.ok(published.startsWith(page.slice(0, before)) && published.endsWith(page.slice(after)));
  assert.throws(() => withFigures('nothing', REPORT), /bench:begin/);
});

test('pictures show what was measured, and bounds as broken lines', () => {
  const picture = svgChart(coldSyncChart(REPORT));
  assert.match(picture, /^<svg [^>]*viewBox/);
  assert.equal(picture.match(/<polyline/g)?.length, 3, 'ours, by C, by ipvsadm');
  assert.equal(picture.match(/stroke-dasharray/g)?.length, 2, 'the line by C and its legend');
  for (const text of ['Cold sync over size', '10,000', 'this daemon', '1 s', '10 s'])
    assert.ok(picture.includes(`>${text}<`), text);
  assert.equal(svgChart(changeChart(REPORT)).match(/<polyline/g)?.length, 5);
  const empty = { ...REPORT, rows: [rowOf(100, 1000, {})] };
  assert.throws(() => svgChart(coldSyncChart(empty)), /nothing to draw/);
});

test('a quantile of a histogram is the upper bound of its bucket, of what came in between', () => {
  const text = (counts: readonly number[]): string =>
    ['0.001', '0.002', '+Inf'].map((le, i) => `some_seconds_bucket{le="${le}"} ${counts[i]}`).join('\n');
  const before = parseHistogram(text([100, 100, 100]), 'some_seconds');
  const after = parseHistogram(text([100, 198, 200]), 'some_seconds');
  assert.deepEqual(before.at(-1), [Infinity, 100]);
  assert.equal(quantileOf(before, after, 0.5), 0.002);
  assert.equal(quantileOf(before, after, 0.99), Infinity);
  assert.ok(Number.isNaN(quantileOf(after, after, 0.5)));
});
