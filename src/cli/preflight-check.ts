/** `todo`: not so yet, and `preflight --fix` is expected to set it right. */
export type CheckState = 'ok' | 'todo' | 'failed';

export interface Check {
  readonly name: string;
  readonly state: CheckState;
  readonly detail: string;
}
