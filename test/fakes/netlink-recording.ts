/** Conversations with the kernel as files: what was sent and received, datagram by datagram, in hex. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { type NetlinkSocket, type OpenNetlinkSocket } from '../../src/netlink/socket.js';

export interface Recording {
  readonly description: string;
  readonly kernel: string;
  /** `>` was sent, `<` was received. */
  readonly datagrams: readonly (readonly ['>' | '<', string])[];
  /** What the command-line tool printed about the same state, for comparison. */
  readonly text: readonly string[];
}

/** Hands everything to a socket of `open` and writes it down. */
export function recordingSocket(open: OpenNetlinkSocket): {
  open: OpenNetlinkSocket;
  datagrams: ['>' | '<', string][];
} {
  const datagrams: ['>' | '<', string][] = [];
  const hex = (bytes: Uint8Array, length: number): string => Buffer.from(bytes.subarray(0, length)).toString('hex');
  return {
    datagrams,
    open: (protocol, groups) => {
      const socket = open(protocol, groups);
      return {
        send(bytes, length) {
          datagrams.push(['>', hex(bytes, length)]);
          return socket.send(bytes, length);
        },
        receive(bytes) {
          const length = socket.receive(bytes);
          datagrams.push(['<', hex(bytes, length)]);
          return length;
        },
        waitReadable: () => socket.waitReadable(),
        attachFilter: (program) => socket.attachFilter(program),
        close: () => socket.close(),
      };
    },
  };
}

export function writeRecording(path: string, recording: Recording): void {
  writeFileSync(path, `${JSON.stringify(recording, undefined, 1)}\n`);
}

/** Answers as recorded, and demands that exactly the recorded bytes are sent. */
export class Replay {
  readonly recording: Recording;
  #next = 0;

  constructor(path: string) {
    this.recording = JSON.parse(readFileSync(path, 'utf8')) as Recording;
  }

  /** True when the whole recording was gone through. */
  get finished(): boolean {
    return this.#next === this.recording.datagrams.length;
  }

  readonly open: OpenNetlinkSocket = (): NetlinkSocket => ({
    send: (bytes, length) => {
      const [direction, expected] = this.recording.datagrams[this.#next++] ?? ['<', ''];
      const sent = Buffer.from(bytes.subarray(0, length)).toString('hex');
      assert.equal(direction, '>', `datagram ${this.#next} is sent, but the recording has none to send here`);
      assert.equal(sent, expected, `datagram ${this.#next} differs from the recorded one`);
      return length;
    },
    receive: (bytes) => {
      const [direction, answer] = this.recording.datagrams[this.#next] ?? ['>', ''];
      if (direction !== '<') throw Object.assign(new Error('nothing to receive'), { code: 'EAGAIN' });
      this.#next++;
      const datagram = Buffer.from(answer, 'hex');
      bytes.set(datagram);
      return datagram.length;
    },
    waitReadable: () => Promise.reject(new Error('a request socket')),
    attachFilter: () => assert.fail('a request socket'),
    close: () => undefined,
  });
}
