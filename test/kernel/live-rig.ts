/**
 * The traffic laboratory while Services change: a change is applied, then packets must meet what rows of the traffic
 * table say. Shared by the tests of live changes (test/kernel/live-*.test.ts).
 */
import assert from 'node:assert/strict';
import { type Protocol } from '../../src/values/protocol.js';
import { type Lab } from './harness/lab.js';
import { patience, waitUntil } from './harness/wait.js';
import { realServers } from './reliability-state.js';
import { createTrafficLab } from './traffic-lab.js';
import { nodeObject, serviceObject, serviceObjects, sliceObjects } from './traffic-objects.js';
import { Proxy } from './traffic-proxy.js';
import { row } from './traffic-table.js';
import { type Case, casesOf, describeCase, walk } from './traffic-walk.js';
import { clusterIP, podAddress, PODS, type ServiceSpec } from './traffic-world.js';

/** `['clusterIP TCP,UDP', 'client: near far as self']`: a row of the traffic table without feature and Service. */
export type Meets = readonly [where: string, ...expectations: string[]];

const CONFIG = { clusterCIDR: '10.128.0.0/16,fd00:10:128::/40', ipvs: { syncPeriod: '1h' } };
/** A Service that follows every change, so that one can see when the daemon has heard of all that came before. */
const MARKER: ServiceSpec = { number: 250, name: 'marker', endpoints: ['near'] };

export class LiveRig {
  /** Cases that were walked. */
  cases = 0;
  #marks = 0;
  readonly #config: Readonly<Record<string, unknown>>;

  private constructor(
    readonly lab: Lab,
    readonly proxy: Proxy,
    config: Readonly<Record<string, unknown>>,
  ) {
    this.#config = config;
  }

  /** Laboratory and daemon, with these Services served; verification is an hour away, and repairs nothing meanwhile. */
  static async create(
    services: readonly ServiceSpec[],
    config: Readonly<Record<string, unknown>> = {},
    protocols?: readonly Protocol[],
  ): Promise<LiveRig> {
    const lab = await createTrafficLab(
      PODS.filter((pod) => pod.link !== 'bridge'),
      protocols,
    );
    const proxy = await Proxy.create([nodeObject(), ...[...services, MARKER].flatMap(serviceObjects)]);
    const ipvs = { ...CONFIG.ipvs, ...(config['ipvs'] as object | undefined) };
    const rig = new LiveRig(lab, proxy, { ...CONFIG, ...config, ipvs });
    await proxy.start(rig.#config);
    return rig;
  }

  /** The daemon ends, and another takes the kernel over, with these fields of its configuration changed. */
  async restart(config: Readonly<Record<string, unknown>> = {}): Promise<void> {
    await this.proxy.stop();
    await this.proxy.start({ ...this.#config, ...config });
  }

  /** Sets the Services with their slices, removes the slices that are no more, and waits until all is heard. */
  async apply(...services: readonly ServiceSpec[]): Promise<void> {
    for (const spec of services) {
      this.proxy.set(serviceObject(spec), ...sliceObjects(spec));
      this.#deleteSlices(spec, new Set(sliceObjects(spec).map(({ metadata }) => metadata.name)));
    }
    await this.heard();
  }

  /** Deletes the Service; its slices stay, as they do for a while in a cluster, when told so. */
  async remove(spec: ServiceSpec, withSlices: 'with its slices' | 'slices stay'): Promise<void> {
    this.proxy.api.delete('services', `traffic/${spec.name}`);
    if (withSlices === 'with its slices') this.#deleteSlices(spec, new Set());
    await this.heard();
  }

  #deleteSlices(spec: ServiceSpec, kept: ReadonlySet<string>): void {
    const { store } = this.proxy.api;
    for (const family of [4, 6])
      for (let index = 0; index < 9; index++) {
        const name = `${spec.name}-ipv${family}${index === 0 ? '' : `-${index}`}`;
        if (!kept.has(name) && store.get('endpointslices', `traffic/${name}`) !== undefined)
          this.proxy.api.delete('endpointslices', `traffic/${name}`);
      }
  }

  /** Waits until the kernel shows a change that was made after all others, in both resources. */
  async heard(): Promise<void> {
    const port = 1000 + ++this.#marks;
    const ports = [{ name: 'tcp', port, target: port }];
    this.proxy.set(...serviceObjects({ ...MARKER, ports }));
    const [server, backend] = [`TCP ${clusterIP(MARKER.number, 4)}:${port}`, `${podAddress('near', 4)}:${port}`];
    await waitUntil(
      `the change before ${server}`,
      () => realServers(server).has(backend),
      60_000,
      () => this.proxy.daemon.tail(5),
    );
  }

  /**
   * Packets meet what the rows say, within a minute: rules and sets may follow IPVS by a moment. Each row is walked
   * anew until it comes out, so a row that only came out before the change was made does not count (see `heard`).
   */
  async meets(spec: ServiceSpec, ...rows: readonly Meets[]): Promise<void> {
    let cases: Case[] = rows
      .flatMap(([where, ...expected]) => casesOf([row(spec.name, `${spec.name} ${where}`, ...expected)], [spec]))
      .map((one) => ({ ...one, patience: patience(2000) }));
    assert.ok(cases.length > 0, 'nothing is expected');
    this.cases += cases.length;
    let wrong: string[] = [];
    await waitUntil(
      `${spec.name} to be served as expected`,
      async () => {
        const verdicts = [...(await walk(this.lab, cases))].filter(([, { isExpected }]) => !isExpected);
        cases = verdicts.map(([one]) => one);
        wrong = verdicts.map(([one, verdict]) => describeCase(one, verdict));
        return wrong.length === 0;
      },
      60_000,
      () => `\n${wrong.join('\n')}\n${this.proxy.daemon.tail(5)}`,
    );
  }

  async close(): Promise<void> {
    await this.proxy.close();
    this.lab.close();
  }
}
