/** Markup in which nothing that is put in can become markup: every value is escaped unless it is Html itself. */

export class Html {
  constructor(readonly text: string) {}
}

export type HtmlValue = Html | string | number | undefined | readonly HtmlValue[];

/** ``html`<td>${name}</td>` ``: undefined is nothing, a list is its items one after the other. */
export function html(parts: TemplateStringsArray, ...values: readonly HtmlValue[]): Html {
  const fixed = withoutIndentation(parts);
  let text = fixed[0]!;
  values.forEach((value, i) => (text += markup(value) + fixed[i + 1]!));
  return new Html(text);
}

const known = new WeakMap<TemplateStringsArray, readonly string[]>();

/** A line break stands for a blank, as in HTML; how deep the source is indented is nobody's business. */
function withoutIndentation(parts: TemplateStringsArray): readonly string[] {
  const found = known.get(parts) ?? parts.map((part) => part.replace(/\s*\n\s*/g, '\n'));
  known.set(parts, found);
  return found;
}

function markup(value: HtmlValue): string {
  if (value === undefined) return '';
  if (value instanceof Html) return value.text;
  if (typeof value === 'object') return value.map(markup).join('');
  return escape(String(value));
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ESCAPES[character]!);
}
