import { type FSWatcher, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface ConfigWatchOptions {
  /** Called with each new content; what it says decides whether the file is watched any further. */
  readonly onChange: (content: string) => 'stop' | 'go on';
  /** The content that is in use; read now when absent. */
  readonly initialContent?: string;
  /** How long events may pile up before the file is read again, in milliseconds. */
  readonly settleMs?: number;
  /** How often the file is read without any event, for file systems that report none, in milliseconds. */
  readonly pollMs?: number;
}

export interface ConfigWatch {
  close(): void;
}

/**
 * Watches a configuration file's content. The directory is watched rather than the file, because the kubelet updates a
 * ConfigMap volume by renaming the `..data` symbolic link and editors replace the file; touching it without a change
 * of content, or a moment without the file, is no change. kube-proxy exits on a change so that it starts anew with the
 * new configuration; the caller decides. Never keeps the process alive.
 */
export async function watchConfig(path: string, options: ConfigWatchOptions): Promise<ConfigWatch> {
  let known = options.initialContent ?? (await readFile(path, 'utf8'));
  let closed = false;
  let settle: NodeJS.Timeout | undefined;
  let watcher: FSWatcher | undefined;

  const close = (): void => {
    closed = true;
    watcher?.close();
    clearTimeout(settle);
    clearInterval(poll);
  };
  const compare = async (): Promise<void> => {
    const content = await readFile(path, 'utf8').catch(() => undefined);
    if (closed || content === undefined || content === known) return;
    known = content;
    if (options.onChange(content) === 'stop') close();
  };
  const schedule = (): void => {
    clearTimeout(settle);
    if (!closed) settle = setTimeout(() => void compare(), options.settleMs ?? 200).unref();
  };

  const poll = setInterval(() => void compare(), options.pollMs ?? 60_000).unref();
  try {
    watcher = watch(dirname(path), { persistent: false }, schedule);
    // Without inotify (instance limit reached, unusual file system) the poll remains.
    watcher.on('error', () => watcher?.close());
  } catch {
    watcher = undefined;
  }
  schedule();
  return { close };
}
