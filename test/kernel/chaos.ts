/**
 * `npm run chaos -- [--minutes N] [--seed S] [--services N] [--acts N]`, inside the test kernel. Exit code 0 only when
 * every round converged; the last line counts.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { Chaos } from './chaos-run.js';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    seed: { type: 'string' },
    services: { type: 'string', default: '250' },
    acts: { type: 'string', default: '40' },
  },
});
const minutes = Number(values.minutes);
const seed = values.seed === undefined ? randomInt(1, 0x7fffffff) : Number(values.seed);
if (!(minutes > 0) || !Number.isInteger(seed)) throw new RangeError('--minutes and --seed are numbers');
console.log(`chaos: seed ${seed}, ${minutes} minutes`);
const chaos = new Chaos({
  seed,
  services: Number(values.services),
  acts: Number(values.acts),
  onLine: (line) => console.log(line),
});
const end = performance.now() + minutes * 60_000;
try {
  await chaos.start();
  do await chaos.round();
  while (performance.now() < end);
  await chaos.stop();
} catch (error) {
  chaos.counts.differences++;
  console.log(error);
}
console.log(`chaos: the daemon's verifications repaired ${chaos.repaired} differences`);
const { rounds, faults, compared, differences } = chaos.counts;
console.log(
  `chaos: ${rounds} rounds, ${faults} faults injected, ${compared} objects compared, ${differences} differences`,
);
process.exit(differences === 0 && rounds > 0 ? 0 : 1);
