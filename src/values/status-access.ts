/** Who may see pages that name Services and settings: this node's own processes, everybody, or (`off`) nobody. */
export type StatusAccess = 'loopback' | 'all' | 'off';

export const STATUS_ACCESS: readonly StatusAccess[] = ['loopback', 'all', 'off'];
