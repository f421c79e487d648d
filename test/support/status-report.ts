/** Sources of the status page for tests that are about something else. */
import { type InspectionSource } from '../../src/serve/inspection.js';
import { type StatusReport } from '../../src/serve/status.js';

/** A healthy node on which nothing has happened yet. */
export function statusReport(own: Partial<StatusReport> = {}): StatusReport {
  const at = new Date('2026-11-21T07:00:00.000Z');
  return {
    ...{ node: 'node-0', version: '0.1.0', startedAt: at, versions: {}, notes: [], drains: [], counts: {} },
    health: { healthy: true, nodeEligible: true, lastUpdated: at, reasons: [] },
    kernel: { counts: {}, syncingFor: undefined },
    ...{ lastSync: undefined, lastVerification: undefined, lastRepair: undefined, repairs: {} },
    history: { syncs: [], repairs: Array.from({ length: 60 }, () => 0) },
    ...own,
  };
}

const COUNTS = { all: 0, noEndpoints: 0, draining: 0, contested: 0, unwritten: 0 };

/** Of a cluster without Services. */
export const NO_INSPECTION: InspectionSource = {
  services: () => Promise.resolve({ total: 0, counts: COUNTS, services: [] }),
  backends: () => Promise.resolve(undefined),
  kernel: () => Promise.resolve({ servers: [] }),
};
