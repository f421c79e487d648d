import { type Prefix } from './prefix.js';

/**
 * nodePortAddresses of one family: every address, the node's primary one, or those within CIDRs; any of the three may
 * apply.
 */
export interface NodePortSelection {
  readonly all: boolean;
  readonly primary: boolean;
  readonly cidrs: readonly Prefix[];
}
