/** What `seccompProfile: RuntimeDefault` means with containerd: its default profile, as a filter to run under. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './agent.js';
import { shell } from './kernel-state.js';

const HEADER = '/usr/include/x86_64-linux-gnu/asm/unistd_64.h';

/** linux/bpf_common.h, linux/seccomp.h, linux/audit.h */
const [LOAD, IF_EQUAL, IF_ANY_BIT, IF_AT_LEAST, RETURN] = [0x20, 0x15, 0x45, 0x35, 0x06] as const;
const ALLOW = 0x7fff0000;
const REFUSE = 0x00050000;
const ARCH_X86_64 = 0xc000003e;
const X32_BIT = 0x40000000;
/** struct seccomp_data: the number, the architecture, and the lower half of the first argument. */
const [NUMBER, ARCH, ARGUMENT] = [0, 4, 16] as const;
const [EPERM, ENOSYS] = [1, 38] as const;
const [AF_ALG, AF_VSOCK] = [38, 40] as const;
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET */
const NEW_NAMESPACES = 0x7e020000;
const PERSONALITIES = [0, 0x8, 0x20000, 0x20008, 0xffffffff] as const;

/** code, jump if true, jump if false, operand */
type Instruction = readonly [number, number, number, number];

export class ContainerdProfile {
  readonly #numbers = new Map(
    [...readFileSync(HEADER, 'utf8').matchAll(/^#define __NR_(\w+) (\d+)$/gm)].map(([, name, n]) => [name!, Number(n)]),
  );

  /** The words to put before a program's, so that it runs under the profile; needs no_new_privs. */
  prepare(directory: string): string[] {
    mkdirSync(directory, { recursive: true });
    const [loader, filter] = [join(directory, 'seccomp-exec'), join(directory, 'containerd.filter')];
    // Static: it runs in a container's root, too.
    execFileSync('gcc', ['-static', '-O1', '-o', loader, `${ROOT}test/kernel/harness/seccomp-exec.c`]);
    const bytes = this.#instructions().map(([code, yes, no, operand]) => {
      const buffer = Buffer.alloc(8);
      buffer.writeUInt16LE(code, 0);
      buffer.writeUInt8(yes, 2);
      buffer.writeUInt8(no, 3);
      buffer.writeUInt32LE(operand, 4);
      return buffer;
    });
    writeFileSync(filter, Buffer.concat(bytes));
    return [loader, filter];
  }

  /** Which calls the kernel has logged as refused since it booted, by name, and by which program. */
  async refused(): Promise<Map<string, Set<string>>> {
    const names = new Map([...this.#numbers].map(([name, number]) => [number, name]));
    const refused = new Map<string, Set<string>>();
    for (const [, program = '', number] of (await shell('dmesg')).matchAll(
      /audit: type=1326 .* comm="([^"]*)" .* syscall=(\d+) /g,
    )) {
      const name = names.get(Number(number)) ?? `number ${number}`;
      refused.set(name, (refused.get(name) ?? new Set()).add(program));
    }
    return refused;
  }

  #instructions(): Instruction[] {
    const allowed = readFileSync(`${ROOT}test/fixtures/seccomp/containerd-allowed.txt`, 'utf8').split('\n');
    const known = allowed.flatMap((name) => this.#numbers.get(name) ?? []); // older headers know fewer
    return [
      [LOAD, 0, 0, ARCH],
      [IF_EQUAL, 1, 0, ARCH_X86_64],
      refuse(EPERM),
      [LOAD, 0, 0, NUMBER],
      [IF_AT_LEAST, 0, 1, X32_BIT],
      refuse(EPERM),
      ...known.flatMap((number): Instruction[] => [
        [IF_EQUAL, 0, 1, number],
        [RETURN, 0, 0, ALLOW],
      ]),
      ...this.#where('clone3', [refuse(ENOSYS)]),
      ...this.#where('clone', [
        [LOAD, 0, 0, ARGUMENT],
        [IF_ANY_BIT, 1, 0, NEW_NAMESPACES],
        [RETURN, 0, 0, ALLOW],
        refuse(EPERM),
      ]),
      ...this.#where('socket', [
        [LOAD, 0, 0, ARGUMENT],
        [IF_EQUAL, 2, 0, AF_ALG],
        [IF_EQUAL, 1, 0, AF_VSOCK],
        [RETURN, 0, 0, ALLOW],
        refuse(EPERM),
      ]),
      ...this.#where('personality', [
        [LOAD, 0, 0, ARGUMENT],
        ...PERSONALITIES.flatMap((value): Instruction[] => [
          [IF_EQUAL, 0, 1, value],
          [RETURN, 0, 0, ALLOW],
        ]),
        refuse(EPERM),
      ]),
      refuse(EPERM),
    ];
  }

  /** These instructions, which end with a verdict, for one call. */
  #where(name: string, body: readonly Instruction[]): Instruction[] {
    return [[IF_EQUAL, 0, body.length, this.#numbers.get(name)!], ...body];
  }
}

function refuse(errno: number): Instruction {
  return [RETURN, 0, 0, REFUSE | errno];
}
