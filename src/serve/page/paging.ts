import { type Html, html } from './html.js';
import { counted, grouped } from './text.js';

export interface Paging {
  readonly total: number;
  /** From 1. */
  readonly page: number;
  readonly limit: number;
}

/** How many pages there are: at least one, if an empty one. */
export function pageCount({ total, limit }: Pick<Paging, 'total' | 'limit'>): number {
  return Math.max(1, Math.ceil(total / limit));
}

/** `1` for what is no page number; one beyond the last stays what it is, to be told of. */
export function askedPage(text: string | null): number {
  return text !== null && /^[0-9]{1,15}$/.test(text) ? Math.max(1, Number(text)) : 1;
}

/** Where on the list one is, and the way to its ends and neighbours; those that lead nowhere are no links. */
export function pager(what: string, paging: Paging, urlOf: (page: number) => string): Html {
  const { total, page, limit } = paging;
  const last = pageCount(paging);
  const first = (page - 1) * limit + 1;
  const shown =
    last === 1
      ? counted(total, what)
      : html`${grouped(first)} to ${grouped(Math.min(total, page * limit))} of ${counted(total, what)}, page
        ${grouped(page)} of ${grouped(last)}`;
  if (last === 1) return html`<div class="pager"><p class="muted">${shown}</p></div>`;
  const step = (name: string, to: number, rel?: string): Html => {
    if (to === page || to < 1 || to > last) return html`<li><span aria-disabled="true">${name}</span></li>`;
    return html`<li><a href="${urlOf(to)}" ${rel === undefined ? undefined : html` rel="${rel}"`}>${name}</a></li>`;
  };
  return html`<nav class="pager" aria-label="Pages">
    <p class="muted">${shown}</p>
    <ul>
      ${[step('First', 1), step('Previous', page - 1, 'prev'), step('Next', page + 1, 'next'), step('Last', last)]}
    </ul>
  </nav>`;
}

/** Said when somebody asked for a page that is not there. */
export function beyondText(asked: number, paging: Paging): Html | undefined {
  const last = pageCount(paging);
  if (asked <= last) return undefined;
  return html`<p class="warn" role="status">
    There is no page ${grouped(asked)}: this is the last one, page ${grouped(last)}.
  </p>`;
}
