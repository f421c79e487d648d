/**
 * A tar archive of text files, as POSIX ustar has it. Made here because the image has a read-only root and no `tar`
 * that `kubectl cp` could use: one stream on standard output is what comes out of a container, and forty lines are
 * less than a dependency.
 */

export interface TarFile {
  /** At most 100 characters of ASCII, with its folder. */
  readonly path: string;
  readonly text: string;
}

const BLOCK = 512;

/** The whole archive; readable by its owner alone once unpacked. Every byte of it is UTF-8. */
export function tarArchive(files: readonly TarFile[], modified: Date): Buffer {
  const blocks = files.flatMap(({ path, text }) => {
    const content = Buffer.from(text, 'utf8');
    return [header(path, content.length, modified), content, Buffer.alloc(-content.length & (BLOCK - 1))];
  });
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)]);
}

/** Throws RangeError for a path that has no room. */
function header(path: string, size: number, modified: Date): Buffer {
  if (!/^[\x21-\x7e]{1,100}$/.test(path)) throw new RangeError(`not a path for this archive: ${path}`);
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, length: number, offset: number): void =>
    void block.write(value.toString(8).padStart(length - 1, '0'), offset, 'latin1');
  block.write(path, 0, 'latin1');
  octal(0o600, 8, 100);
  octal(0, 8, 108);
  octal(0, 8, 116);
  octal(size, 12, 124);
  octal(Math.floor(modified.getTime() / 1000), 12, 136);
  block.fill(' ', 148, 156);
  block.write('0', 156, 'latin1');
  block.write('ustar\0' + '00', 257, 'latin1');
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
