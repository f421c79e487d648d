/** What a process writes into a file when it gets a signal. */
import { readFileSync, rmSync } from 'node:fs';
import { waitUntil } from '../kernel/harness/wait.js';

/** Sends the signal by `send` and resolves with the JSON that comes into the file, once all of it is there. */
export async function writtenAfter<Content>(what: string, file: string, send: () => void): Promise<Content> {
  rmSync(file, { force: true });
  send();
  return waitUntil(what, () => {
    try {
      return JSON.parse(readFileSync(file, 'utf8')) as Content;
    } catch {
      return undefined; // none, or half of it
    }
  });
}
