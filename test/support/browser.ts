/**
 * A real Chromium, driven through chromedriver by the WebDriver protocol: JSON over HTTP, so that no package is needed.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Keeps it from the network, from the machine's settings, and from what a container does not let it do. */
const ARGUMENTS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-dev-shm-usage'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync', '--hide-scrollbars'],
];
const START_MS = 60_000;
/** WebDriver's name for a reference to an element. */
const ELEMENT = 'element-6066-11e4-a52e-4f735466cecf';

/** Installs the browser where it is missing; what went wrong if it cannot be had. */
export function browserProblem(): string | undefined {
  const { status, stderr } = spawnSync('sh', ['scripts/packages.sh', 'browser'], { encoding: 'utf8' });
  return status === 0 ? undefined : stderr.trim();
}

export interface LogEntry {
  readonly level: string;
  readonly message: string;
}

export class Browser {
  #session = '';
  #base = '';

  private constructor(
    readonly driver: ChildProcess,
    readonly profile: string,
  ) {}

  static async start(): Promise<Browser> {
    const driver = spawn('chromedriver', ['--port=0'], { stdio: ['ignore', 'pipe', 'inherit'] });
    const browser = new Browser(driver, mkdtempSync(join(tmpdir(), 'chromium-')));
    try {
      browser.#base = `http://127.0.0.1:${await listeningPort(driver)}`;
      const options = { args: [...ARGUMENTS, `--user-data-dir=${browser.profile}`], binary: '/usr/bin/chromium' };
      const alwaysMatch = { 'goog:chromeOptions': options, 'goog:loggingPrefs': { browser: 'ALL' } };
      const made = (await browser.#ask('POST', '/session', { capabilities: { alwaysMatch } })) as { sessionId: string };
      browser.#session = `/session/${made.sessionId}`;
      return browser;
    } catch (error) {
      await browser.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    if (this.#session !== '') await this.#ask('DELETE', this.#session).catch(() => undefined);
    const gone = new Promise((resolve) => this.driver.once('exit', resolve));
    if (this.driver.kill()) await gone;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }

  async open(url: string): Promise<void> {
    await this.#ask('POST', `${this.#session}/url`, { url });
  }

  async url(): Promise<string> {
    return (await this.#ask('GET', `${this.#session}/url`)) as string;
  }

  /** The value of a JavaScript expression in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const body = { script: `return (${expression});`, args: [] };
    return (await this.#ask('POST', `${this.#session}/execute/sync`, body)) as T;
  }

  /** The first element of a CSS selector; a selector that finds nothing is an error. */
  async click(selector: string): Promise<void> {
    await this.#ask('POST', `${await this.#element('css selector', selector)}/click`, {});
  }

  async clickLink(text: string): Promise<void> {
    await this.#ask('POST', `${await this.#element('link text', text)}/click`, {});
  }

  /** Types into an element what is not there yet; `\uE007` is Enter. */
  async type(selector: string, text: string): Promise<void> {
    await this.#ask('POST', `${await this.#element('css selector', selector)}/value`, { text });
  }

  /** Presses keys wherever the focus is. */
  async press(key: string): Promise<void> {
    const actions = ['keyDown', 'keyUp'].map((type) => ({ type, value: key }));
    await this.#ask('POST', `${this.#session}/actions`, { actions: [{ type: 'key', id: 'keyboard', actions }] });
  }

  /** A window, or a phone's screen, of this size in CSS pixels, in light or dark. */
  async screen(width: number, height: number, scheme: 'light' | 'dark' = 'light'): Promise<void> {
    const size = { width, height, deviceScaleFactor: 1, mobile: width < 600 };
    await this.#devtools('Emulation.setDeviceMetricsOverride', size);
    const features = [{ name: 'prefers-color-scheme', value: scheme }];
    await this.#devtools('Emulation.setEmulatedMedia', { features });
  }

  /** Whether scripts of pages may run. */
  async allowScripts(isAllowed: boolean): Promise<void> {
    await this.#devtools('Emulation.setScriptExecutionDisabled', { value: !isAllowed });
  }

  /** The page from the top as a PNG, down to `height` pixels. */
  async picture(height: number): Promise<Buffer> {
    const width = await this.evaluate<number>('innerWidth');
    const clip = { x: 0, y: 0, width, height, scale: 1 };
    const { data } = (await this.#devtools('Page.captureScreenshot', { captureBeyondViewport: true, clip })) as {
      data: string;
    };
    return Buffer.from(data, 'base64');
  }

  /** What the browser's console got since it was last asked, policy violations included. */
  async log(): Promise<readonly LogEntry[]> {
    return (await this.#ask('POST', `${this.#session}/se/log`, { type: 'browser' })) as LogEntry[];
  }

  async #devtools(cmd: string, params: object): Promise<unknown> {
    return this.#ask('POST', `${this.#session}/goog/cdp/execute`, { cmd, params });
  }

  async #element(using: string, value: string): Promise<string> {
    const found = (await this.#ask('POST', `${this.#session}/element`, { using, value })) as Record<string, string>;
    return `${this.#session}/element/${found[ELEMENT]}`;
  }

  async #ask(method: string, path: string, body?: object): Promise<unknown> {
    const response = await fetch(`${this.#base}${path}`, {
      method,
      ...(body !== undefined && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    const { value } = (await response.json()) as { value: unknown };
    if (!response.ok) throw new Error(`${method} ${path}: ${JSON.stringify(value).slice(0, 500)}`);
    return value;
  }
}

function listeningPort(driver: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = '';
    const timer = setTimeout(() => reject(new Error(`chromedriver does not start: ${text}`)), START_MS);
    driver.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      const port = /started successfully on port (\d+)/.exec(text)?.[1];
      if (port === undefined) return;
      clearTimeout(timer);
      resolve(Number(port));
    });
    driver.once('error', reject);
    driver.once('exit', (code) => reject(new Error(`chromedriver ended with ${code}: ${text}`)));
  });
}
