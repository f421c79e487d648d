import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorMessage } from '../../values/errors.js';

/** A sysctl that could not be read or written; the message names it and the fix. */
export class SysctlError extends Error {
  override readonly name = 'SysctlError';

  constructor(
    readonly sysctl: string,
    readonly code: string | undefined,
    message: string,
    cause?: unknown,
  ) {
    super(message, { cause });
  }
}

/**
 * Kernel parameters by their sysctl(8) name (`net.ipv4.vs.conntrack`). Reading and writing are synchronous: /proc
 * answers from memory. Interface names with dots are written as in sysctl(8), with a slash
 * (`net.ipv4.conf.eth0/100.arp_ignore`). A name that begins with `/sys/` is that of a file there: a module's parameter.
 */
export class Sysctl {
  readonly #root: string;
  readonly #sysRoot: string;

  constructor(root = '/proc/sys', sysRoot = root === '/proc/sys' ? '/sys' : join(root, 'sys')) {
    this.#root = root;
    this.#sysRoot = sysRoot;
  }

  /** The value without its newline; undefined when this kernel (or a module not loaded) has no such parameter. */
  read(name: string): string | undefined {
    try {
      return readFileSync(this.#path(name), 'latin1').trim();
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return undefined;
      throw new SysctlError(name, errorCode(error), `cannot read sysctl ${name}: ${errorMessage(error)}`, error);
    }
  }

  /** Whether there is such a parameter, or a group of them. */
  has(name: string): boolean {
    return existsSync(this.#path(name));
  }

  /** As `read`, for integers; undefined as well when the value is not one. */
  readNumber(name: string): number | undefined {
    const text = this.read(name);
    return text !== undefined && /^-?[0-9]+$/.test(text) ? Number(text) : undefined;
  }

  /** Writes only when the value differs; returns whether it wrote. Throws SysctlError. */
  ensure(name: string, value: string | number): boolean {
    const current = this.read(name);
    if (current === undefined) throw absent(name);
    if (sameValue(current, String(value))) return false;
    try {
      writeFileSync(this.#path(name), `${value}`, { flag: 'r+' });
      return true;
    } catch (error) {
      throw writeError(name, value, error);
    }
  }

  #path(name: string): string {
    const [, file] = /^\/sys\/(\w+(?:\/\w+)*)$/.exec(name) ?? [];
    if (file !== undefined) return join(this.#sysRoot, file);
    const path = name.replace(/[./]/g, (separator) => (separator === '.' ? '/' : '.'));
    if (path.split('/').some((part) => part === '..' || part === '' || part === '.')) {
      throw new SysctlError(name, 'EINVAL', `not a sysctl name: ${JSON.stringify(name)}`);
    }
    return join(this.#root, path);
  }
}

/** The kernel separates several numbers by a tab; callers write blanks. */
function sameValue(current: string, desired: string): boolean {
  return current.split(/\s+/).join(' ') === desired.trim().split(/\s+/).join(' ');
}

function absent(name: string): SysctlError {
  const hint = name.startsWith('net.ipv4.vs.')
    ? 'load the ip_vs module (modprobe ip_vs)'
    : name.includes('conntrack')
      ? 'load the nf_conntrack module (modprobe nf_conntrack)'
      : 'this kernel has no such parameter';
  return new SysctlError(name, 'ENOENT', `sysctl ${name} does not exist: ${hint}`);
}

function writeError(name: string, value: string | number, error: unknown): SysctlError {
  const code = errorCode(error);
  const fixes: Record<string, string> = {
    EROFS: `${name.startsWith('/sys/') ? '/sys' : '/proc/sys'} is mounted read-only: set ${name}=${value} on the node, or run the container privileged`,
    EACCES: `no permission: run as root with CAP_NET_ADMIN, or set ${name}=${value} on the node`,
    EPERM: `no permission: run as root with CAP_NET_ADMIN, or set ${name}=${value} on the node`,
    EINVAL: `the kernel refuses the value ${value}`,
  };
  const fix = (code !== undefined && fixes[code]) || errorMessage(error);
  return new SysctlError(name, code, `cannot set sysctl ${name}=${value}: ${fix}`, error);
}

function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
