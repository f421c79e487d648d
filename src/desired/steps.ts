/** Long work is cut into steps (generators), so that whoever does it can let the event loop turn in between. */

/** All steps in one go, for the one object that somebody asks about. */
export function lastOf<T>(steps: Generator<void, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}
