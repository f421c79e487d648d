import { setTimeout as sleep } from 'node:timers/promises';
import { type ApiServer, type Scale } from './world.js';

/** Share of all endpoints that change in a minute. */
const SHARE_PER_MINUTE = 0.01;
const LEAST_PAUSE_MS = 50;

/** Replaces endpoints at an even pace, one EndpointSlice each, until the time is over. */
export async function runChurn(scale: Scale, server: ApiServer, seconds: number): Promise<void> {
  const { services, endpointsPerService } = scale;
  const perSecond = (services * endpointsPerService * SHARE_PER_MINUTE) / 60;
  const start = performance.now();
  let done = 0;
  for (;;) {
    const elapsed = (performance.now() - start) / 1000;
    if (elapsed >= seconds) return;
    for (const due = Math.floor(elapsed * perSecond); done < due; done++) {
      const [service, round] = [done % services, Math.floor(done / services)];
      const move = { endpointsPerService, endpoint: 3, by: 20 + round };
      await server.send({ op: 'move', from: service, to: service + 1, ...move });
    }
    await sleep(Math.max(LEAST_PAUSE_MS, 1000 / perSecond / 2));
  }
}
