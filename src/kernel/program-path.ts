import { realpathSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Where a program of PATH really is, links followed: what it is can be seen without starting it. Undefined: there is
 * none.
 */
export function programPath(command: string, path = process.env['PATH'] ?? ''): string | undefined {
  for (const directory of path.split(':')) {
    try {
      return realpathSync(join(directory, command));
    } catch {
      // not in this one
    }
  }
  return undefined;
}
