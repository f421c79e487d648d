/**
 * As much of JSON Schema (draft 7) as a chart's values.schema.json uses, written from its specification. Any other
 * keyword throws, so that a rule which this cannot judge does not pass for one that is kept.
 */
import { isDeepStrictEqual } from 'node:util';

type Schema = Readonly<Record<string, unknown>>;
type Rule = (value: unknown, rule: never, schema: Schema, path: string) => string[];

const RULES: Readonly<Record<string, Rule>> = {
  $schema: () => [],
  type: (value, types: string | readonly string[], _, path) =>
    [types].flat().some((type) => isOfType(value, type)) ? [] : [`${path}: not of type ${[types].flat().join(' or ')}`],
  enum: (value, allowed: readonly unknown[], _, path) =>
    allowed.some((one) => isDeepStrictEqual(one, value)) ? [] : [`${path}: none of ${allowed.join(', ')}`],
  const: (value, wanted: unknown, _, path) => (isDeepStrictEqual(value, wanted) ? [] : [`${path}: not ${wanted}`]),
  minLength: (value, least: number, _, path) =>
    typeof value === 'string' && value.length < least ? [`${path}: shorter than ${least}`] : [],
  pattern: (value, pattern: string, _, path) =>
    typeof value === 'string' && !new RegExp(pattern).test(value) ? [`${path}: not as ${pattern}`] : [],
  items: (value, items: Schema, _, path) =>
    Array.isArray(value) ? value.flatMap((item, index) => schemaErrors(items, item, `${path}[${index}]`)) : [],
  required: (value, names: readonly string[], _, path) =>
    isObject(value) ? names.filter((name) => !(name in value)).map((name) => `${path}.${name}: missing`) : [],
  properties: (value, properties: Readonly<Record<string, Schema>>, _, path) =>
    isObject(value)
      ? Object.entries(properties).flatMap(([name, schema]) =>
          name in value ? schemaErrors(schema, value[name], `${path}.${name}`) : [],
        )
      : [],
  additionalProperties: (value, rule: boolean | Schema, schema, path) => {
    if (!isObject(value) || rule === true) return [];
    const others = Object.keys(value).filter((name) => !(name in ((schema['properties'] as object | undefined) ?? {})));
    return others.flatMap((name) =>
      rule === false ? [`${path}.${name}: unknown`] : schemaErrors(rule, value[name], `${path}.${name}`),
    );
  },
};

/** What in the value breaks the schema, each with its path; empty when it is as the schema says. */
export function schemaErrors(schema: Schema, value: unknown, path = ''): string[] {
  return Object.entries(schema).flatMap(([keyword, rule]) => {
    const judge = RULES[keyword];
    if (judge === undefined) throw new Error(`no idea of the keyword ${keyword}`);
    return judge(value, rule as never, schema, path);
  });
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case 'null':
      return value === null;
    case 'array':
      return Array.isArray(value);
    case 'object':
      return isObject(value);
    case 'integer':
      return Number.isInteger(value);
    case 'string':
    case 'boolean':
    case 'number':
      return typeof value === type;
    default:
      throw new Error(`no idea of the type ${type}`);
  }
}
