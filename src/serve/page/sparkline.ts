import { type Html, html } from './html.js';

const HEIGHT = 32;
const STEP = 4;
const BAR = 3;
/** The least that is seen of a value above zero. */
const LEAST = 2;

export interface SparklineOptions {
  /** What a screen reader says: the drawing in words. */
  readonly label: string;
  /** For values over several powers of ten. */
  readonly isLogarithmic?: boolean;
}

/** Small bars, the newest on the right. Drawn with attributes alone, so that no style has to be let through. */
export function sparkline(values: readonly number[], { label, isLogarithmic = false }: SparklineOptions): Html {
  const largest = Math.max(0, ...values);
  const smallest = Math.min(...values.filter((value) => value > 0), largest);
  const share = (value: number): number => {
    if (value <= 0) return 0;
    if (!isLogarithmic) return value / largest;
    return largest === smallest ? 1 : Math.log(value / smallest) / Math.log(largest / smallest);
  };
  const bars = values.map((value, i) => {
    const height = value <= 0 ? 1 : Math.max(LEAST, Math.round(share(value) * HEIGHT));
    const kind = value <= 0 ? 'none' : 'some';
    return html`<rect class="${kind}" x="${i * STEP}" y="${HEIGHT - height}" width="${BAR}" height="${height}" />`;
  });
  const width = Math.max(1, values.length) * STEP;
  return html`<svg
    class="spark"
    role="img"
    aria-label="${label}"
    viewBox="0 0 ${width} ${HEIGHT}"
    preserveAspectRatio="none"
  >
    ${bars}
  </svg>`;
}
