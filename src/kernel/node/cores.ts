import { readFileSync } from 'node:fs';

/**
 * How many logical CPUs of the machine are online: /sys/devices/system/cpu/online, such as `0-3,8`. Neither this
 * process's affinity nor a CPU limit of its container matters, as they do to os.availableParallelism(). Undefined when
 * /sys does not say.
 */
export function machineCores(sysRoot = '/sys'): number | undefined {
  let text: string;
  try {
    text = readFileSync(`${sysRoot}/devices/system/cpu/online`, 'latin1').trim();
  } catch {
    return undefined;
  }
  let count = 0;
  for (const range of text.split(',')) {
    const [, first, last] = /^(\d+)(?:-(\d+))?$/.exec(range) ?? [];
    if (first === undefined) return undefined;
    count += Number(last ?? first) - Number(first) + 1;
  }
  return count > 0 ? count : undefined;
}
