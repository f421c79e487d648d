/**
 * As much of Helm's template language as the chart uses, written from its documentation: actions with trim markers, if,
 * else, with, end; pipelines of paths, strings, numbers and default, quote, toYaml, indent, nindent, not, eq. Anything
 * else throws, so that a template which this cannot judge does not pass for a good one.
 */
import { stringify } from 'yaml';

type Value = unknown;
interface Scope {
  readonly dot: Value;
  readonly root: Readonly<Record<string, Value>>;
}
type Node =
  | { readonly text: string }
  | { readonly pipeline: string }
  | { readonly block: 'if' | 'with'; readonly pipeline: string; readonly then: Node[]; readonly otherwise: Node[] };

/** Renders one template; `root` has Values, Chart and Release. Throws on what it does not know. */
export function renderTemplate(template: string, root: Readonly<Record<string, Value>>): string {
  const { nodes, rest } = parseNodes(tokens(template), 0);
  if (rest !== undefined) throw new Error('{{ end }} without a block');
  return render(nodes, { dot: root, root });
}

/** Text and actions in turn; a dash in an action eats the white space beside it. */
function tokens(template: string): string[] {
  const parts = template.split(/(\{\{-?\s*[\s\S]*?\s*-?\}\})/);
  for (let i = 1; i < parts.length; i += 2) {
    if (parts[i]!.startsWith('{{-')) parts[i - 1] = parts[i - 1]!.trimEnd();
    if (parts[i]!.endsWith('-}}')) parts[i + 1] = parts[i + 1]!.trimStart();
    parts[i] = `{{${parts[i]!.replace(/^\{\{-?\s*|\s*-?\}\}$/g, '')}`;
  }
  return parts;
}

function parseNodes(
  parts: readonly string[],
  start: number,
): { nodes: Node[]; next: number; rest: string | undefined } {
  const nodes: Node[] = [];
  for (let i = start; i < parts.length; i++) {
    const part = parts[i]!;
    if (i % 2 === 0) {
      if (part !== '') nodes.push({ text: part });
      continue;
    }
    const action = part.slice(2);
    if (action === 'end' || action === 'else') return { nodes, next: i + 1, rest: action };
    const [, block, pipeline] = /^(if|with)\s+([\s\S]+)$/.exec(action) ?? [];
    if (block === undefined) {
      nodes.push({ pipeline: action });
      continue;
    }
    const then = parseNodes(parts, i + 1);
    const otherwise = then.rest === 'else' ? parseNodes(parts, then.next) : undefined;
    const closed = otherwise ?? then;
    if (closed.rest !== 'end') throw new Error(`{{ ${action} }} is not closed`);
    nodes.push({
      block: block as 'if' | 'with',
      pipeline: pipeline!,
      then: then.nodes,
      otherwise: otherwise?.nodes ?? [],
    });
    i = closed.next - 1;
  }
  return { nodes, next: parts.length, rest: undefined };
}

function render(nodes: readonly Node[], scope: Scope): string {
  return nodes
    .map((node) => {
      if ('text' in node) return node.text;
      const value = evaluate(node.pipeline, scope);
      if (!('block' in node)) return shown(value);
      if (!isTrue(value)) return render(node.otherwise, scope);
      return render(node.then, node.block === 'with' ? { ...scope, dot: value } : scope);
    })
    .join('');
}

function evaluate(pipeline: string, scope: Scope): Value {
  let piped: Value[] = [];
  for (const command of pipeline.split('|')) {
    const words = command.trim().match(/"[^"]*"|'[^']*'|\S+/g) ?? [];
    piped = [call(words, piped, scope)];
  }
  return piped[0];
}

function call(words: readonly string[], piped: readonly Value[], scope: Scope): Value {
  const [name = '', ...rest] = words;
  const args = [...rest.map((word) => operand(word, scope)), ...piped];
  switch (name) {
    case 'default':
      return isTrue(args[1]) ? args[1] : args[0];
    case 'quote':
      return JSON.stringify(shown(args[0]));
    case 'toYaml':
      return stringify(args[0], { lineWidth: 0 }).trimEnd();
    case 'indent':
    case 'nindent':
      return `${name === 'nindent' ? '\n' : ''}${shown(args[1]).replace(/^/gm, ' '.repeat(Number(args[0])))}`;
    case 'not':
      return !isTrue(args[0]);
    case 'eq':
      return args[0] === args[1];
    default:
      if (args.length > 0) throw new Error(`unknown function ${name}`);
      return operand(name, scope);
  }
}

function operand(word: string, { dot, root }: Scope): Value {
  if (word === '.') return dot;
  if (/^["']/.test(word)) return word.slice(1, -1);
  if (/^\d+$/.test(word)) return Number(word);
  if (!/^\$?(\.\w+)+$/.test(word)) throw new Error(`unknown word ${word}`);
  const from = word.startsWith('$') ? root : dot;
  return word
    .replace(/^\$?\./, '')
    .split('.')
    .reduce<Value>((value, key) => (value as Record<string, Value> | null | undefined)?.[key], from);
}

/** Go's truth: false, 0, nil and what is empty are not true. */
function isTrue(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

function shown(value: Value): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (value === undefined || value === null) throw new Error('a value that is not there was printed');
  throw new Error('an object was printed without toYaml');
}
