/** Numbers and times as the page writes them. */

/** `12 s ago` */
export function ago(at: Date, now: Date): string {
  return `${duration(Math.max(0, (now.getTime() - at.getTime()) / 1000))} ago`;
}

/** `3 ms`, `4.5 s`, `12 min`, `3 h`, `9 d` */
export function duration(seconds: number): string {
  if (seconds < 0.01) return `${Math.round(seconds * 10_000) / 10} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Math.round(seconds * 10) / 10} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}

/** `50,000` */
export function grouped(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ',');
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `3.4 MiB` */
export function bytes(count: number): string {
  const unit = count < 1 ? 0 : Math.min(Math.floor(Math.log2(count) / 10), UNITS.length - 1);
  const scaled = count / 1024 ** unit;
  return `${unit === 0 || scaled >= 100 ? Math.round(scaled) : Math.round(scaled * 10) / 10} ${UNITS[unit]}`;
}

/** `1 Service`, `2 Services` */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${grouped(count)} ${count === 1 ? one : many}`;
}

/** `10.0.0.1:80`, `[fd00::1]:80` */
export function hostPort(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
