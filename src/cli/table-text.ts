/** Rows as text for a terminal: columns as wide as their widest cell, nothing ever cut. */

export type Colour = 'red' | 'yellow' | 'green';

export interface ColouredText {
  readonly text: string;
  readonly colour: Colour;
}

export type Cell = string | number | ColouredText;

export interface Table {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
}

export interface TableOptions {
  readonly headers: boolean;
  readonly colours: boolean;
}

const CODES: Readonly<Record<Colour, number>> = { red: 31, yellow: 33, green: 32 };
const GAP = '   ';

/** The table, each row a line; an empty cell is `-`, as nothing would shift the columns for whoever cuts by blanks. */
export function renderTable({ columns, rows }: Table, { headers, colours }: TableOptions): string {
  const lines = headers ? [columns, ...rows] : rows;
  const widths = columns.map((_, i) => lines.reduce((width, line) => Math.max(width, plain(line[i] ?? '').length), 0));
  const text = lines.map((line) =>
    columns
      .map((_, i) => {
        const cell = line[i] ?? '';
        const padding = i === columns.length - 1 ? '' : ' '.repeat(widths[i]! - plain(cell).length);
        return `${painted(cell, colours)}${padding}`;
      })
      .join(GAP),
  );
  return text.map((line) => `${line}\n`).join('');
}

function plain(cell: Cell): string {
  const text = typeof cell === 'object' ? cell.text : String(cell);
  // Names come from the API: none may move a terminal's cursor.
  return text === '' ? '-' : text.replaceAll(/\p{Cc}/gu, '?');
}

function painted(cell: Cell, colours: boolean): string {
  const text = plain(cell);
  return colours && typeof cell === 'object' ? `\x1b[${CODES[cell.colour]}m${text}\x1b[0m` : text;
}
