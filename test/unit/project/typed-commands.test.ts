/** Every command of the program is typed by a test in the test kernel, on the shipped bundle. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';
import { runCommandLine } from '../../../src/cli/command-line.js';
import { type CommandHandlers } from '../../../src/cli/options.js';

const TESTS = join(import.meta.dirname, '../../../../test/kernel');
/** Calls that type what their first argument begins with, or their arguments are word by word. */
const TYPING = new Set(['type', 'rows', 'eventsWith', 'command']);

/** As the completion of a shell has them: `plan`, `config check`. */
async function commandsOfTheProgram(): Promise<string[]> {
  let script = '';
  const output = { out: (text: string) => void (script += text), err: (text: string) => assert.fail(text) };
  assert.equal(await runCommandLine(['completion', 'bash'], {} as CommandHandlers, '1', output), 0);
  const [, paths = ''] = /^ {4}('run'.*)\) path=/m.exec(script) ?? [];
  return paths.split('|').map((quoted) => quoted.slice(1, -1));
}

/** What the kernel tests type after the program's name. */
function typedLines(): string[] {
  const names = readdirSync(TESTS, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  return names.flatMap((name) => {
    const text = readFileSync(join(TESTS, name), 'utf8');
    const found = [...text.matchAll(/\$\{PROGRAM\} ([a-z][^`"\n]*)/g)].map(([, words]) => words!);
    const visit = (node: ts.Node): void => {
      const line = lineOf(node);
      if (line !== undefined) found.push(line);
      ts.forEachChild(node, visit);
    };
    visit(ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true));
    return found;
  });
}

/** `type('plan --json')`, `rig.command('config', 'check', file)`, `['kube-proxy-ipvs', 'status']`. */
function lineOf(node: ts.Node): string | undefined {
  if (ts.isArrayLiteralExpression(node)) {
    const [program, ...words] = texts(node.elements);
    return program === 'kube-proxy-ipvs' ? words.join(' ') : undefined;
  }
  if (!ts.isCallExpression(node)) return undefined;
  const { expression } = node;
  const called = ts.isPropertyAccessExpression(expression) ? expression.name.text : expression.getText();
  return TYPING.has(called) ? texts(node.arguments).join(' ') : undefined;
}

/** The literal words; of a template what stands before its first hole. */
function texts(nodes: readonly ts.Expression[]): string[] {
  return nodes.map((node) => {
    if (ts.isStringLiteralLike(node)) return node.text;
    return ts.isTemplateExpression(node) ? node.head.text : '';
  });
}

test('every command is typed in the test kernel', async () => {
  const lines = typedLines();
  assert.ok(lines.length > 30);
  const commands = await commandsOfTheProgram();
  assert.ok(commands.length >= 15 && commands.includes('config check'), commands.join(', '));
  // `config` alone does nothing; the daemon is run by its options in every other test there.
  const expected = commands.filter((name) => name !== 'config' && name !== 'run');
  const missing = expected.filter((name) => !lines.some((line) => line === name || line.startsWith(`${name} `)));
  assert.deepEqual(missing, [], 'typed by no test of test/kernel');
});
