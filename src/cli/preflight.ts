import { type ProxyConfig } from '../config/proxy-config.js';
import { CommandRunner } from '../kernel/command.js';
import { readKernelReleaseText } from '../kernel/node/kernel-release.js';
import { Sysctl } from '../kernel/node/sysctl.js';
import { countRealServers, readTableFill } from '../kernel/node/table-fill.js';
import { EstimationKeeper } from '../reconcile/estimation.js';
import { type DesiredSysctl, ensureSysctls, isRight } from '../reconcile/sysctl-keeper.js';
import { errorMessage } from '../values/errors.js';
import { type Environment } from '../daemon/environment.js';
import { loadDaemonConfig } from '../daemon/daemon-options.js';
import { type PreflightOptions } from './options.js';
import { type Check, type CheckState, attempt } from './preflight-check.js';
import { checkApi } from './preflight-api.js';
import { lookAtKernel, tryKernelOut } from './preflight-kernel.js';
import { checkLinks } from './preflight-links.js';
import { checkPorts } from './preflight-ports.js';
import { requireCapabilities } from '../daemon/preflight-checks.js';
import { describeConnectionTable } from '../daemon/answer/connection-table.js';
import { lookForKubeProxy } from '../daemon/takeover/kube-proxy-signs.js';
import { sysctlsOf } from '../daemon/sysctls.js';

const LABELS: Readonly<Record<CheckState, string>> = { ok: 'ok  ', todo: 'TODO', warn: 'WARN', failed: 'FAIL' };

/**
 * Checks what the daemon needs of the node; with --fix also loads modules and writes sysctls, and tries everything out.
 * Without it nothing is changed, nor anything done that makes the kernel load a module. 1 when a check failed.
 */
export async function runPreflight(options: PreflightOptions, environment: Environment): Promise<number> {
  const { config } = await loadDaemonConfig(options);
  const checks = await checkNode(config, options.fix, environment);
  // What prepares a node has no credentials, and needs none.
  if (!options.fix && options.manifests === undefined)
    checks.push(await checkApi(config, config.hostnameOverride ?? environment.hostname.toLowerCase()));
  const ok = checks.every(({ state }) => state !== 'failed');
  const lines = checks.map(({ name, state, detail }) => `${LABELS[state]} ${name}: ${detail}\n`);
  const found = checks.map(({ name, state, detail }) => ({ name, ok: state !== 'failed', state, detail }));
  environment.out(options.json ? `${JSON.stringify({ ok, checks: found })}\n` : lines.join(''));
  return ok ? 0 : 1;
}

/** One line of preflight each; as `runPreflight`, with the same effect on the node. */
export async function checkNode(config: ProxyConfig, fix: boolean, environment: Environment): Promise<Check[]> {
  const { run } = new CommandRunner();
  const { openNetlinkSocket } = environment;
  const options = { run, scheduler: config.scheduler, rules: config.rules, openNetlinkSocket };
  const checks = await attempt('permissions', async () => (requireCapabilities(), 'CAP_NET_ADMIN, CAP_NET_RAW'));
  if (checks.every(({ state }) => state === 'ok'))
    checks.push(...(await (fix ? tryKernelOut(options) : lookAtKernel(options))));
  const kernel: Check = { name: 'kernel', state: 'ok', detail: `Linux ${readKernelReleaseText().trim()}` };
  return [
    kernel,
    ...checks,
    await checkKubeProxy(config),
    ...(await checkPorts(config)),
    ...checkLinks(config),
    ...checkSysctls(sysctlsOf(config), fix),
    ...checkTables(config, fix),
  ];
}

/** One that runs on is no fault of the node: on the day of the switch it is still there. */
async function checkKubeProxy(config: ProxyConfig): Promise<Check> {
  const name = 'kube-proxy';
  const signs = await lookForKubeProxy({ ...config, ownPorts: new Set() });
  if (signs.length === 0) return { name, state: 'ok', detail: 'none is seen (its process only with hostPID)' };
  const seen = signs.map(({ text }) => text).join('; ');
  return { name, state: 'warn', detail: `runs on this node: ${seen}; take it off before the daemon starts` };
}

function checkSysctls(desired: readonly DesiredSysctl[], fix: boolean): Check[] {
  const sysctl = new Sysctl();
  const name = ({ name: one }: DesiredSysctl): string => `sysctl ${one}`;
  if (fix) {
    const { changed, failures } = ensureSysctls(sysctl, desired, 'start');
    return [
      ...changed.map((text): Check => ({ name: `sysctl ${text}`, state: 'ok', detail: 'set' })),
      ...failures.map(({ desired: one, message }): Check => {
        return { name: name(one), state: one.required ? 'failed' : 'ok', detail: message };
      }),
    ];
  }
  return desired.map((one): Check => {
    try {
      const current = sysctl.readNumber(one.name);
      if (isRight(one, current, 'start')) return { name: name(one), state: 'ok', detail: String(current) };
      const is = current === undefined ? 'not there yet' : String(current);
      return { name: name(one), state: 'todo', detail: `${is}, must be ${one.value}; preflight --fix sets it` };
    } catch (error) {
      return { name: name(one), state: one.required ? 'failed' : 'ok', detail: errorMessage(error) };
    }
  });
}

/** What the kernel spends on IPVS by itself: never a reason to fail. */
function checkTables({ estimation: mode }: Pick<ProxyConfig, 'estimation'>, fix: boolean): Check[] {
  const connections = describeConnectionTable(readTableFill());
  const checks: Check[] = [{ name: 'IPVS connection table', state: 'ok', detail: connections }];
  const sysctl = new Sysctl();
  // What there is by now: an earlier run's, or kube-proxy's. A new node has none, and may never have many.
  const realServers = countRealServers();
  const { isRunning, note } = fix
    ? new EstimationKeeper(sysctl, mode).ensure(realServers)
    : { isRunning: sysctl.readNumber('net.ipv4.vs.run_estimation') !== 0, note: undefined };
  const state = `${mode}: ${isRunning === false ? 'off' : 'on'}, with ${realServers} real servers`;
  checks.push({ name: 'IPVS estimation', state: 'ok', detail: note ?? state });
  return checks;
}
