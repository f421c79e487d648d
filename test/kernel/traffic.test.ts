// test-kernel: timeout=1200 seconds=125
/** Every Service feature proven by packets. */
import { PHASES } from './traffic-cases.js';
import { testPhases } from './traffic-phases.js';

testPhases(PHASES);
