import { type Writable } from 'node:stream';

/** Standard output or error as a command writes it. */
export interface Output {
  readonly write: (text: string) => void;
  /** Resolves once everything written has left the process, or nobody reads it any more. */
  readonly drained: () => Promise<void>;
}

/**
 * Node writes to a pipe later than it is asked to, so an exit right after a write loses all that did not fit into the
 * pipe (64 KiB): whoever ends the process awaits `drained` first. A reader that has gone (`plan | head`) is no error:
 * `onClosed` is called, and what is written from then on is dropped.
 */
export function pipeSafe(stream: Writable, onClosed: () => void): Output {
  let isClosed = false;
  stream.on('error', () => {
    if (isClosed) return;
    isClosed = true;
    onClosed();
  });
  return {
    write: (text) => void (isClosed || stream.write(text)),
    drained: () =>
      new Promise((resolve) => {
        if (isClosed) resolve();
        else stream.write('', () => resolve());
      }),
  };
}
