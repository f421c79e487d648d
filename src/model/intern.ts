/**
 * One shared copy of strings that repeat in every object (port names, zones): thousands of slices, a few dozen distinct
 * values.
 */
export class Interner {
  readonly #known = new Map<string, string>();

  constructor(readonly limit = 10_000) {}

  /**
   * The first equal string seen. Past `limit` distinct values nothing more is remembered, so hostile input cannot grow
   * it.
   */
  intern(text: string): string {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    if (this.#known.size < this.limit) this.#known.set(text, text);
    return text;
  }
}
