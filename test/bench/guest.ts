/**
 * One part of the benchmark, inside a test kernel that was booted for it:
 *
 *   node build/test/bench/guest.js PART SERVICESxENDPOINTS[r] DIRECTORY [--quick]
 *
 * writes its result to DIRECTORY/PART.json. Parts: cold (everything by the daemon as shipped), record (what the first
 * sync sends), limit (the same sent by C), restore (the same by ipvsadm, ipset and ip), steady (changes in the
 * middle of other work, and what a verification costs), traffic (new connections), profile (where the time
 * goes), strace (system calls counted).
 */
import { writeFileSync } from 'node:fs';
import { measureCold } from './part-cold.js';
import { measureLimit, record } from './part-limit.js';
import { measureProfile } from './part-profile.js';
import { measureRestore } from './part-restore.js';
import { measureSteady } from './part-steady.js';
import { countSyscalls } from './part-strace.js';
import { measureTraffic } from './part-traffic.js';
import { type Scale, prepareNode } from './world.js';

const PARTS = {
  cold: measureCold,
  record,
  limit: measureLimit,
  restore: measureRestore,
  steady: measureSteady,
  traffic: measureTraffic,
  profile: measureProfile,
  strace: countSyscalls,
} as const;

const [part, scale, directory, mode] = process.argv.slice(2) as [keyof typeof PARTS, string, string, string?];
const [services = 0, endpointsPerService = 0] = scale.replace('r', '').split('x').map(Number);
const row: Scale = { services, endpointsPerService };

prepareNode(scale.endsWith('r') ? 'routes' : 'addresses');
const result = await PARTS[part](row, directory, mode === '--quick');
writeFileSync(`${directory}/${part}.json`, JSON.stringify(result));
process.exit(0);
