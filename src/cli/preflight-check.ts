import { errorMessage } from '../values/errors.js';

/**
 * `todo`: not so yet, and `preflight --fix` is expected to set it right; `warn`: works, but somebody should see to it;
 * `failed`: it cannot work so.
 */
export type CheckState = 'ok' | 'todo' | 'warn' | 'failed';

export interface Check {
  readonly name: string;
  readonly state: CheckState;
  readonly detail: string;
}

/** One check: what `check` resolves to is its detail, what it rejects with its failure. */
export async function attempt(name: string, check: () => Promise<string>): Promise<Check[]> {
  try {
    return [{ name, state: 'ok', detail: await check() }];
  } catch (error) {
    return [{ name, state: 'failed', detail: errorMessage(error) }];
  }
}
