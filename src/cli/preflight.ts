import { CommandRunner } from '../kernel/command.js';
import { detectIptables } from '../kernel/iptables/detect.js';
import { Sysctl } from '../kernel/node/sysctl.js';
import { closeKernelClients, openKernelClients } from '../kernel/clients.js';
import { ensureSysctls } from '../reconcile/sysctl-keeper.js';
import { errorMessage } from '../values/errors.js';
import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type PreflightOptions } from './options.js';
import { probeRequiredModules } from '../daemon/preflight-checks.js';
import { sysctlsOf } from '../daemon/sysctls.js';

interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** Checks (with --fix: also sets right) what the daemon needs of the node; 1 when something is missing. */
export async function runPreflight(options: PreflightOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const { run } = new CommandRunner();
  const checks: Check[] = [];
  for (const { name, state, fix } of await probeRequiredModules(run, config.scheduler))
    checks.push({ name: `module ${name}`, ok: state !== 'missing', detail: fix ?? state });
  checks.push(
    await attempt('iptables', async () => {
      const { backend, version, reason } = await detectIptables(run, { probe: true });
      return `${backend} ${version}: ${reason}`;
    }),
  );
  checks.push(
    await attempt('netlink', async () => {
      const clients = openKernelClients(environment.openNetlinkSocket);
      const { version } = clients.ipvs.getInfo();
      closeKernelClients(clients);
      return `IPVS ${version}`;
    }),
  );
  const sysctl = new Sysctl();
  const wanted = sysctlsOf(config);
  const { changed, failures } = options.fix ? ensureSysctls(sysctl, wanted) : { changed: [], failures: [] };
  for (const name of changed) checks.push({ name: `sysctl ${name}`, ok: true, detail: 'set' });
  for (const { wanted: one, message } of failures)
    checks.push({ name: `sysctl ${one.name}`, ok: !one.required, detail: message });
  // A kernel without module files may still have everything: when the functional probes pass, modules are only a remark.
  const works = checks.filter(({ name }) => name === 'iptables' || name === 'netlink').every(({ ok }) => ok);
  const ok = works && checks.every((check) => check.ok || check.name.startsWith('module '));
  environment.out(options.json ? `${JSON.stringify({ ok, checks })}\n` : checks.map(line).join(''));
  return ok ? 0 : 1;
}

function line({ name, ok, detail }: Check): string {
  return `${ok ? 'ok  ' : 'FAIL'} ${name}: ${detail}\n`;
}

async function attempt(name: string, check: () => Promise<string>): Promise<Check> {
  try {
    return { name, ok: true, detail: await check() };
  } catch (error) {
    return { name, ok: false, detail: errorMessage(error) };
  }
}
