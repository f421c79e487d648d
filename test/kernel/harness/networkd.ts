/**
 * A real systemd-networkd, started by hand: no service manager and no bus, its configuration in /run alone, and its
 * links announced as udev would announce them (networkd waits for that; what is not announced it leaves alone).
 * TEST_NETWORKD_ROOT is a directory with another release's files, `debootstrap` with systemd say; by default it is this
 * machine's.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { shell } from './kernel-state.js';
import { waitUntil } from './wait.js';

const ROOT = process.env['TEST_NETWORKD_ROOT'] ?? '/';
const PROGRAM = '/usr/lib/systemd/systemd-networkd';

/** Why networkd cannot be run here; undefined when it can. */
export function networkdMissing(): string | undefined {
  if (!existsSync(`${ROOT}${PROGRAM}`)) return `${PROGRAM} is missing (package systemd)`;
  try {
    execFileSync('chroot', [ROOT, 'id', 'systemd-network'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'there is no user systemd-network';
  }
}

export class Networkd {
  #process: ChildProcess | undefined;
  #log = '';

  /** What it has logged since its last start, at level debug. */
  get log(): string {
    return this.#log;
  }

  /**
   * Starts it with these files, path below /run/systemd and text, and waits until its log says it is done with the
   * links.
   */
  async start(links: readonly string[], files: Readonly<Record<string, string>>): Promise<void> {
    await shell(`rm -rf /run/systemd/network /run/systemd/networkd.conf.d
      mkdir -p /run/udev/data /run/systemd/network /run/systemd/networkd.conf.d /run/systemd/netif/links
      ${links.map((link) => `echo I:1 >/run/udev/data/n$(cat /sys/class/net/${link}/ifindex)`).join('\n')}
      ${Object.entries(files)
        .map(([path, text]) => `cat >/run/systemd/${path} <<'END'\n${text}\nEND`)
        .join('\n')}
      chown -R "$(chroot ${ROOT} id -u systemd-network)" /run/systemd/netif`);
    // In mounts of its own: files of this machine's /etc are for this machine's links.
    const script = `mount -t tmpfs tmpfs ${ROOT}/etc/systemd/network 2>/dev/null
      ${ROOT === '/' ? '' : ['proc', 'sys', 'dev', 'run'].map((name) => `mount --rbind /${name} ${ROOT}/${name}`).join('\n')}
      exec chroot ${ROOT} env SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console ${PROGRAM}`;
    this.#log = '';
    const child = spawn('unshare', ['--mount', 'sh', '-c', script], { stdio: 'pipe' });
    this.#process = child;
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (this.#log += chunk.toString()));
    const isDone = (link: string): boolean =>
      new RegExp(`^${link}: State changed: \\w+ -> (configured|unmanaged)$`, 'm').test(this.#log);
    const done = (): boolean => links.every(isDone);
    await waitUntil('networkd to be done with the links', done, 60_000, () => this.#log.slice(-4000));
  }

  async stop(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  }
}
