import { type TableFill } from '../../kernel/node/table-fill.js';

/** Entries per bucket up to which a search costs next to nothing. */
const FEW_PER_BUCKET = 8;
/** The kernel's own choice, conn_tab_bits 12, and less. */
const FEW_BUCKETS = 4096;

/** What preflight says of the table of connections, which gets its size when ip_vs is loaded. */
export function describeConnectionTable({ connectionBuckets: buckets }: Pick<TableFill, 'connectionBuckets'>): string {
  if (buckets === undefined) return 'not there yet: ip_vs is not loaded';
  if (buckets === 0) return 'this kernel sizes it by itself';
  const size = `${buckets} buckets (conn_tab_bits ${Math.log2(buckets)})`;
  if (buckets > FEW_BUCKETS) return size;
  return (
    `${size}: good for some ${buckets * FEW_PER_BUCKET} connections at a time, and a UDP client counts as one for ` +
    'udpTimeout. For more put "options ip_vs conn_tab_bits=18" (2 MB; 20: 8 MB) into /etc/modprobe.d/ip_vs.conf on ' +
    'the node: it counts when ip_vs is loaded, at the next boot'
  );
}
