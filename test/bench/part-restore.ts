/** The same state by ipvsadm, ipset and ip, as a person with a backup would make it. */
import { execFileSync } from 'node:child_process';
import { openSync, writeFileSync } from 'node:fs';
import { type Scale } from './world.js';

export interface RestoreResult {
  readonly ms: number;
}

/** Reads the state that the daemon made, for `measureRestore` in another kernel. */
export function dumpState(directory: string): void {
  const run = (command: string, ...args: string[]): string =>
    execFileSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 30 });
  writeFileSync(`${directory}/ipvs`, run('ipvsadm', '-Sn'));
  writeFileSync(`${directory}/ipset`, run('ipset', 'save'));
  const addresses = run('ip', '-4', '-o', 'addr', 'show', 'dev', 'kube-ipvs0').matchAll(/inet (\S+)/g);
  const routes = run('ip', '-4', 'route', 'show', 'table', 'local', 'proto', '75').matchAll(/^local (\S+)/gm);
  const lines = [
    ...[...addresses].map(([, address]) => `addr add ${address} dev kube-ipvs0\n`),
    ...[...routes].map(([, address]) => `route add local ${address} dev lo table local proto 75 metric 75\n`),
  ];
  writeFileSync(`${directory}/addresses`, ['link add kube-ipvs0 type dummy\n', ...lines].join(''));
}

export function measureRestore(_scale: Scale, directory: string): Promise<RestoreResult> {
  const start = performance.now();
  for (const [command, args, input] of [
    ['ipset', ['restore'], 'ipset'],
    ['ipvsadm', ['-R'], 'ipvs'],
    ['ip', ['-batch', `${directory}/addresses`], 'addresses'],
  ] as const) {
    execFileSync(command, args, { stdio: [openSync(`${directory}/${input}`, 'r'), 'ignore', 'inherit'] });
  }
  return Promise.resolve({ ms: performance.now() - start });
}
