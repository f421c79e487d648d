import { type Logger } from 'pino';
import { type ClusterState } from '../../model/cluster-state.js';

export interface OwnNodeOptions {
  readonly name: string;
  readonly cluster: Pick<ClusterState, 'node'>;
  /** False for a directory of manifests, which need not hold any Node. */
  readonly isFromApiServer: boolean;
  readonly log: Logger;
}

/** What is known of the Node that this daemon serves. */
export class OwnNode {
  readonly #options: OwnNodeOptions;
  #isKnown = false;

  constructor(options: OwnNodeOptions) {
    this.#options = options;
  }

  /** The source has said what it knows of this Node. */
  listed(): void {
    this.#isKnown = true;
    const { log, name } = this.#options;
    for (const note of this.notes) log.error({ node: name }, note);
  }

  /** True once the source has said what it knows of this Node. */
  get isKnown(): boolean {
    return this.#isKnown;
  }

  /**
   * As kube-proxy has it: false while this Node is being deleted or drained by the cluster autoscaler, and where the
   * API server knows no such Node (a wrong hostnameOverride, mostly). True while it has not said so: an outage is no
   * verdict.
   */
  get isEligible(): boolean {
    return this.#options.cluster.node?.eligible ?? !this.#isMissing;
  }

  /** What an operator should do about a Node that is missing. */
  get notes(): readonly string[] {
    if (!this.#isMissing) return [];
    const name = JSON.stringify(this.#options.name);
    const fix = 'set hostnameOverride to the name by which the kubelet registered this node';
    return [
      `the API server knows no Node ${name}: policies "Local" and zones cannot work, /healthz answers 503 (${fix})`,
    ];
  }

  /** The API server has said that there is no such Node. */
  get #isMissing(): boolean {
    const { cluster, isFromApiServer } = this.#options;
    return this.#isKnown && isFromApiServer && cluster.node === undefined;
  }
}
