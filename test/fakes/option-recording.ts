/**
 * Reads of socket options as recordings: `>` option and the head that says what is wanted, `<` errno and the bytes, in
 * hex.
 */
import { type OpenOptionSocket } from '../../src/kernel/option-socket.js';
import assert from 'node:assert/strict';
import { type Recording } from './netlink-recording.js';

/** Longer than the head of any option's structure. */
const HEAD = 24;

function question(option: number, bytes: Buffer, length: number): string {
  return `${option} ${length} ${bytes.toString('hex', 0, Math.min(HEAD, length))}`;
}

/** Hands every read to a socket of `open` and writes it down. */
export function recordingOptionSocket(open: OpenOptionSocket): {
  open: OpenOptionSocket;
  datagrams: ['>' | '<', string][];
} {
  const datagrams: ['>' | '<', string][] = [];
  const recording: OpenOptionSocket = () => {
    const socket = open();
    return {
      buffer(size) {
        const inner = socket.buffer(size);
        inner.bytes.fill(0); // memory of this process is nobody's business
        const get = (option: number, length: number): number => {
          datagrams.push(['>', question(option, inner.bytes, length)]);
          const errno = inner.get(option, length);
          datagrams.push(['<', `${errno} ${inner.bytes.toString('hex', 0, length)}`]);
          return errno;
        };
        return { bytes: inner.bytes, get };
      },
      close: () => socket.close(),
    };
  };
  return { open: recording, datagrams };
}

/** Answers as recorded, and demands that exactly the recorded questions are asked. */
export function replayOptionSocket({ datagrams }: Recording): { open: OpenOptionSocket; finished: () => boolean } {
  let next = 0;
  const open: OpenOptionSocket = () => ({
    buffer(size) {
      const bytes = Buffer.alloc(size);
      const get = (option: number, length: number): number => {
        const [expected, answer] = [datagrams[next], datagrams[next + 1]];
        next += 2;
        assert.deepEqual(['>', question(option, bytes, length)], expected);
        const [errno, hex] = answer![1].split(' ') as [string, string];
        bytes.write(hex, 'hex');
        return Number(errno);
      };
      return { bytes, get };
    },
    close: () => undefined,
  });
  return { open, finished: () => next === datagrams.length };
}
