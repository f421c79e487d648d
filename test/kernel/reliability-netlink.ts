import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ROOT } from './harness/agent.js';
import { shell } from './harness/kernel-state.js';

/** Netlink requests that changed something, as `ipvs DEL_DEST` -> count. */
export type NetlinkWrites = Readonly<Record<string, number>>;

/** Counts the changing requests of all programs while `body` runs, seen by the kernel's own monitor (nlmon). */
export async function netlinkWrites(body: () => Promise<void>): Promise<NetlinkWrites> {
  await shell('modprobe nlmon; ip link add nlmon0 type nlmon 2>/dev/null || true; ip link set nlmon0 up');
  const monitor = spawn('python3', ['-u', `${ROOT}test/kernel/harness/netlink_monitor.py`, 'nlmon0'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: monitor.stdout })[Symbol.asyncIterator]();
  try {
    if ((await lines.next()).value !== 'ready') throw new Error('the netlink monitor did not start');
    await body();
    monitor.kill('SIGTERM');
    return JSON.parse(String((await lines.next()).value)) as NetlinkWrites;
  } finally {
    monitor.kill('SIGKILL');
  }
}
