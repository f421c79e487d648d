/** What may differ in the kernel from what this program left there, and how; the labels of metrics. */
export const DRIFT_KINDS = ['missing', 'extra', 'changed'] as const;
export const DRIFT_OBJECTS = [
  ...(['virtual_server', 'real_server', 'address', 'link'] as const),
  ...(['set', 'set_entry', 'rule', 'sysctl'] as const),
] as const;
export type DriftKind = (typeof DRIFT_KINDS)[number];
export type DriftObject = (typeof DRIFT_OBJECTS)[number];

/** How a drain ended: its last connection went, its time was up, or its endpoint came back. */
export const DRAIN_ENDS = ['idle', 'deadline', 'restored'] as const;
export type DrainEnd = (typeof DRAIN_ENDS)[number];
