/** Line charts as SVG, both axes logarithmic; plain text, so that two runs can be compared by `diff`. */

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  readonly color: string;
  /** A bound rather than a measurement. */
  readonly isDashed?: boolean;
}

export interface Chart {
  readonly title: string;
  readonly note: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly formatY: (value: number) => string;
  readonly series: readonly Series[];
}

const [WIDTH, HEIGHT] = [720, 400];
const [LEFT, RIGHT, TOP, BOTTOM] = [76, 170, 56, 52];

/** The whole file. Series without points are left out; throws RangeError when none is left. */
export function svgChart(chart: Chart): string {
  const series = chart.series.filter(({ points }) => points.length > 0);
  const points = series.flatMap((one) => one.points);
  if (points.length === 0) throw new RangeError(`nothing to draw: ${chart.title}`);
  const x = scaleOf(
    points.map(([value]) => value),
    LEFT,
    WIDTH - RIGHT,
  );
  const y = scaleOf(
    points.map(([, value]) => value),
    HEIGHT - BOTTOM,
    TOP,
  );
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<title>${escape(chart.title)}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    text(LEFT, 24, chart.title, 'font-size="16" font-weight="bold"'),
    text(LEFT, 42, chart.note, 'fill="#555555"'),
    ...y.ticks.flatMap((tick) => grid(LEFT, y.at(tick), WIDTH - RIGHT, y.at(tick), chart.formatY(tick), 'y')),
    ...x.ticks.flatMap((tick) => grid(x.at(tick), TOP, x.at(tick), HEIGHT - BOTTOM, thousands(tick), 'x')),
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, chart.xLabel, 'text-anchor="middle"'),
    `<text transform="translate(16 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">${escape(chart.yLabel)}</text>`,
    ...series.flatMap((one, i) => drawn(one, i, x.at, y.at)),
    '</svg>',
  ];
  return `${lines.join('\n')}\n`;
}

interface Scale {
  readonly at: (value: number) => number;
  readonly ticks: readonly number[];
}

/** From the power of ten below the least value to the one above the greatest. */
function scaleOf(values: readonly number[], from: number, to: number): Scale {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
  const at = (value: number): number => round(from + ((Math.log10(value) - low) / (high - low)) * (to - from));
  return { at, ticks: Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i)) };
}

function grid(x1: number, y1: number, x2: number, y2: number, label: string, axis: 'x' | 'y'): string[] {
  const place =
    axis === 'x' ? text(x1, y2 + 18, label, 'text-anchor="middle"') : text(x1 - 8, y1 + 4, label, 'text-anchor="end"');
  return [`<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="#dddddd"/>`, place];
}

function drawn({ name, points, color, isDashed }: Series, index: number, x: Scale['at'], y: Scale['at']): string[] {
  const path = points.map(([px, py]) => `${x(px)},${y(py)}`).join(' ');
  const dash = isDashed === true ? ' stroke-dasharray="6 4"' : '';
  const legendY = TOP + 14 + index * 20;
  return [
    `<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"${dash}/>`,
    ...points.map(([px, py]) => `<circle cx="${x(px)}" cy="${y(py)}" r="3" fill="${color}"/>`),
    `<line x1="${WIDTH - RIGHT + 12}" y1="${legendY - 4}" x2="${WIDTH - RIGHT + 34}" y2="${legendY - 4}" stroke="${color}" stroke-width="2"${dash}/>`,
    text(WIDTH - RIGHT + 40, legendY, name),
  ];
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${round(x)}" y="${round(y)}"${attributes === '' ? '' : ` ${attributes}`}>${escape(content)}</text>`;
}

function thousands(value: number): string {
  return value.toLocaleString('en-US');
}

function escape(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
