/** Runs a classic BPF program (struct sock_filter[]: u16 code, u8 jt, u8 jf, u32 k) over a datagram; false drops it. */
export function passesFilter(program: Buffer, datagram: Buffer): boolean {
  let accumulator = 0;
  for (let at = 0; at + 8 <= program.length;) {
    const code = program.readUInt16LE(at);
    const k = program.readUInt32LE(at + 4);
    let skip = 0;
    if (code === 0x30 || code === 0x28 || code === 0x20) {
      const size = code === 0x30 ? 1 : code === 0x28 ? 2 : 4;
      if (k + size > datagram.length) return false; // an out-of-range load ends the program with "drop"
      accumulator = datagram.readUIntBE(k, size);
    } else if (code === 0x15) skip = accumulator === k ? program[at + 2]! : program[at + 3]!;
    else if (code === 0x45) skip = (accumulator & k) !== 0 ? program[at + 2]! : program[at + 3]!;
    else if (code === 0x06) return k !== 0;
    else throw new Error(`BPF instruction ${code.toString(16)} is not known here`);
    at += 8 * (1 + skip);
  }
  throw new Error('BPF program without a return');
}
