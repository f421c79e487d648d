import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Parts, rowOf, table } from '../../bench/report.js';
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
    changesAfterBurst: { count: 200, p50Ms: 4, p99Ms: 8.125, maxMs: 9 },
  },
  limit: { ms: 2000, datagrams: 1, messages: 1, bytes: 1, refused: 0, perSocket: [1] },
  restore: { ms: 50_000.6 },
  strace: { syscalls: null, why: 'no ptrace here' },
};

test('a row has the published names, and null for what was not measured', () => {
  const { details, ...row } = rowOf(10_000, 100_000, PARTS);
  assert.equal(details, PARTS);
  assert.deepEqual(row, {
    services: 10_000,
    endpoints: 100_000,
    coldSyncMs: 3000,
    startToServingMs: 9000,
    kernelLimitMs: 2000,
    ratio: 1.5,
    ipvsadmRestoreMs: 50_001,
    changeP50Ms: 4.32,
    changeP99Ms: 19.88,
    burstMs: 6300,
    changeAfterBurstP99Ms: 8.13,
    verifyMs: 123,
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

test('the table names the machine, lines up its columns and marks a quick run', () => {
  const rows = [rowOf(100, 1000, {}), rowOf(10_000, 100_000, PARTS)];
  const text = table({ machine: { cpu: 'some cpu' }, quick: true, rows });
  assert.match(text, /^cpu: some cpu\nQUICK RUN/);
  const lines = text.split('\n').filter((line) => /\d$|-$/.test(line));
  assert.equal(new Set(lines.map((line) => line.length)).size, 1);
  assert.match(text, /^ratio +- +1\.5$/m);
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
