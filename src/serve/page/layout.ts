import { Html, type HtmlValue, html } from './html.js';
import { STYLE } from './style.js';

/** Put together here, since a policy by hash knows every blank of it. */
const SHEET = new Html(`<style>${STYLE}</style>`);

export interface Layout {
  readonly title: string;
  /** In the page's head bar, behind the program's name. */
  readonly header: HtmlValue;
  readonly main: HtmlValue;
  readonly footer?: HtmlValue;
  /** Where `skip to ...` leads: an id on the page, and what is there. */
  readonly skipTo?: { readonly id: string; readonly what: string };
}

/** A whole document; the icon is empty, or browsers would ask for one. */
export function layout({ title, header, main, footer, skipTo }: Layout): string {
  const skip = skipTo === undefined ? undefined : html`<a class="skip" href="#${skipTo.id}">Skip to ${skipTo.what}</a>`;
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <title>${title}</title>
        <meta name="viewport" content="width=device-width,initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <link rel="icon" href="data:," />
        ${SHEET}
      </head>
      <body>
        ${skip}
        <header>${header}</header>
        <main>${main}</main>
        <footer>${footer}</footer>
      </body>
    </html> `.text;
}

export interface Column {
  readonly name: HtmlValue;
  /** Said before the cell where the table is a list (narrow screens). */
  readonly label: string;
  readonly isNumber?: boolean;
  readonly sorted?: 'ascending' | 'descending' | undefined;
}

/** One group of rows with a common header cell, which spans them. */
export interface RowGroup {
  readonly header: HtmlValue;
  readonly rows: readonly (readonly HtmlValue[])[];
}

/**
 * A table that becomes a list on narrow screens. Roles are written out: with another display browsers forget them.
 * `columns` begins with the one of the header cells.
 */
export function table(caption: string, columns: readonly Column[], groups: readonly RowGroup[]): Html {
  const head = columns.map(({ name, isNumber, sorted }) => {
    const classes = isNumber === true ? html` class="n"` : undefined;
    const order = sorted === undefined ? undefined : html` aria-sort="${sorted}"`;
    return html`<th role="columnheader" scope="col" ${classes}${order}>${name}</th>`;
  });
  return html`<table role="table" aria-label="${caption}">
    <thead role="rowgroup">
      <tr role="row">
        ${head}
      </tr>
    </thead>
    ${groups.map((group) => rowGroup(columns.slice(1), group))}
  </table>`;
}

function rowGroup(columns: readonly Column[], { header, rows }: RowGroup): Html {
  const span = rows.length > 1 ? html` rowspan="${rows.length}"` : undefined;
  const lines = rows.map((cells, i) => {
    const first = i === 0 ? html`<th role="rowheader" scope="rowgroup" ${span}>${header}</th>` : undefined;
    const rest = cells.map((cell, at) => {
      const { label, isNumber } = columns[at]!;
      const classes = `${isNumber === true ? 'n' : ''}${isEmpty(cell) ? ' blank' : ''}`;
      return html`<td role="cell" data-label="${label}" class="${classes}"><span>${cell}</span></td>`;
    });
    return html`<tr role="row">
      ${first}${rest}
    </tr> `;
  });
  return html`<tbody role="rowgroup">
    ${lines}
  </tbody> `;
}

function isEmpty(cell: HtmlValue): boolean {
  return cell === undefined || cell === '';
}
