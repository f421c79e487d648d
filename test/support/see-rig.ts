/** The commands that show what is there, against a data plane over a fake kernel, served as the daemon serves it. */
import { type StatusAccess } from '../../src/values/status-access.js';
import { type TestContext } from 'node:test';
import { runCommandLine } from '../../src/cli/command-line.js';
import { commandHandlers } from '../../src/cli/commands.js';
import { type Environment } from '../../src/daemon/environment.js';
import { inspectionSource } from '../../src/daemon/answer/inspection-source.js';
import { KernelLook } from '../../src/daemon/answer/kernel-look.js';
import { metricsHandler } from '../../src/serve/metrics-server.js';
import { parseAddress } from '../../src/values/address.js';
import { type Protocol } from '../../src/values/protocol.js';
import { type VirtualServerKey, addressServerKey, realServerKey } from '../../src/values/virtual-server.js';
import { serve } from './http.js';
import { ReconcileRig } from './reconcile-rig.js';
import { statusReport } from './status-report.js';

const NO_STATUS = {
  status: () => Promise.resolve(statusReport()),
  services: () => Promise.resolve({ total: 0, services: [] }),
  changes: () => [],
};

export interface Typed {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export class SeeRig extends ReconcileRig {
  refusals: readonly string[] = [];
  /** Requests, with their queries. */
  readonly asked: string[] = [];
  port = 0;

  async listen(t: TestContext, access: StatusAccess = 'loopback'): Promise<void> {
    const metrics = { text: () => Promise.resolve(''), contentType: 'text/plain' };
    const inspection = inspectionSource(this.dataPlane, () => this.refusals, new KernelLook(this.kernel.open));
    const handler = metricsHandler({ metrics, status: NO_STATUS, inspection, configz: () => ({}), access });
    this.port = await serve(t, {
      handler: (request, response) => {
        this.asked.push(request.url ?? '');
        handler(request, response);
      },
    });
  }

  /** Types a command as it is typed after `kube-proxy-ipvs`; what the program throws is told as main.ts tells it. */
  async type(command: string, world: Partial<Environment> = {}): Promise<Typed> {
    let [out, err] = ['', ''];
    const environment = {
      openNetlinkSocket: this.kernel.open,
      ...{ variables: {}, hostname: 'node-0', version: '1.0.0' },
      exists: () => false,
      stop: new AbortController().signal,
      out: (text: string) => void (out += text),
      err: (text: string) => void (err += text),
      ...world,
    } as unknown as Environment;
    const args = [...command.split(' '), `--metrics-bind-address=127.0.0.1:${this.port}`, '--proxy-mode=ipvs'];
    try {
      const code = await runCommandLine(args, commandHandlers(environment), '1.0.0', environment);
      return { code, out, err };
    } catch (error) {
      return { code: 1, out, err: `${err}${(error as Error).message}\n` };
    }
  }

  /** Gives a real server in the kernel connections. */
  connect(server: VirtualServerKey, real: string, active: number, inactive = 0): void {
    const [address = '', port = ''] = real.split(':');
    Object.assign(
      this.kernel.ipvs.table.get(server)!.realServers.get(realServerKey(parseAddress(address)!, Number(port)))!,
      {
        active,
        inactive,
      },
    );
  }
}

/** `TCP`, `10.96.0.1`, 80 */
export function server(address: string, port: number, protocol: Protocol = 'TCP'): VirtualServerKey {
  return addressServerKey(protocol, parseAddress(address)!, port);
}

/** The cells of a table's lines. */
export function cells(text: string): string[][] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => line.trimEnd().split(/ {3,}/));
}
