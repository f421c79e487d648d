import { type InspectionSource } from '../../serve/inspection.js';
import { backendsPage } from './backends-page.js';
import { type KernelLook } from './kernel-look.js';
import { type InspectedDataPlane } from './server-report.js';
import { servicesPage } from './services-page.js';

/**
 * Services and endpoints as this daemon wants them, worked out from its books when somebody asks: nothing is kept for
 * it. `refusals` is what the kernel is known to refuse, `kernel` reads the kernel itself.
 */
export function inspectionSource(
  dataPlane: InspectedDataPlane,
  refusals: () => readonly string[],
  kernel: KernelLook,
): InspectionSource {
  return {
    services: (query) => servicesPage(dataPlane, query),
    backends: (query) => backendsPage(dataPlane, refusals(), query),
    kernel: (service) => kernel.service(dataPlane.updater.desired.services.get(service)?.virtualServers ?? []),
  };
}
