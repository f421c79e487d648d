import { readFile, readdir } from 'node:fs/promises';
import { basename } from 'node:path';

export interface KubeProxyProcess {
  readonly pid: number;
  /** Its command line, cut. */
  readonly command: string;
  /** The first characters of its container's id, as `crictl ps` shows it. */
  readonly container: string | undefined;
}

const NAME = 'kube-proxy';
const SHOWN = 200;
/** cri-containerd-ID.scope, crio-ID.scope, docker-ID.scope, or /ID; an id has 64 hexadecimal digits. */
const CONTAINER_ID = /([0-9a-f]{12})[0-9a-f]{52}(?:\.scope)?\/?$/m;

/**
 * The kube-proxy processes that can be seen from here: all of the node's with hostPID, else those of this container. A
 * Go program of that name is one; this program, which may be called so as well, runs as `node`. Never rejects.
 */
export async function findKubeProxy(procRoot = '/proc'): Promise<KubeProxyProcess[]> {
  const found: KubeProxyProcess[] = [];
  for (const entry of await readdir(procRoot).catch((): string[] => [])) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue;
    const directory = `${procRoot}/${entry}`;
    if ((await text(`${directory}/comm`)).trim() !== NAME) continue;
    // A script of that name bears it for as long as its interpreter is being started.
    const words = (await text(`${directory}/cmdline`)).split('\0').filter((word) => word !== '');
    if (basename(words[0] ?? '') !== NAME) continue;
    const [, container] = CONTAINER_ID.exec(await text(`${directory}/cgroup`)) ?? [];
    found.push({ pid: Number(entry), command: words.join(' ').slice(0, SHOWN), container });
  }
  return found;
}

/** A process may end at any time. */
async function text(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}
