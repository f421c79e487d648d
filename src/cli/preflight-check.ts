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
