/** Small faults for compiled code: which there are in a file, and the text with one of them. Used by mutation.mjs. */
import ts from 'typescript';

const SWAPPED = new Map([
  ['<', '<='],
  ['<=', '<'],
  ['>', '>='],
  ['>=', '>'],
  ['===', '!=='],
  ['!==', '==='],
  ['==', '!='],
  ['!=', '=='],
  ['&&', '||'],
  ['||', '&&'],
  ['+', '-'],
  ['-', '+'],
  ['*', '/'],
  ['/', '*'],
  ['+=', '-='],
  ['-=', '+='],
  ['&', '|'],
  ['|', '&'],
  ['<<', '>>'],
  ['>>', '<<'],
  ['>>>', '<<'],
]);

/** Calls that only tell people something, or that a test cannot see by design. */
const TOLD = /^(?:\w+\.|this\.#?)*(?:log|logger)\.(?:trace|debug|info|warn|error)\b/;

/**
 * Every fault of a file, in the order of the text.
 * @param {string} text JavaScript
 * @returns {{ start: number, end: number, before: string, after: string }[]} replace text[start, end) by `after`
 */
export function mutantsOf(text) {
  const source = ts.createSourceFile('file.js', text, ts.ScriptTarget.Latest, true, ts.ScriptKind.JS);
  const found = [];
  const add = (node, after) => {
    const start = node.getStart();
    found.push({ start, end: node.end, before: text.slice(start, node.end), after });
  };
  const visit = (node) => {
    if (ts.isImportDeclaration(node) || ts.isThrowStatement(node)) return;
    if (ts.isExpressionStatement(node) && TOLD.test(node.getText())) return;
    mutate(node, add);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

function mutate(node, add) {
  if (ts.isBinaryExpression(node)) {
    const after = SWAPPED.get(node.operatorToken.getText());
    if (after !== undefined && !isText(node)) add(node.operatorToken, after);
  } else if (node.kind === ts.SyntaxKind.TrueKeyword) add(node, 'false');
  else if (node.kind === ts.SyntaxKind.FalseKeyword) add(node, 'true');
  else if (ts.isNumericLiteral(node) && !isLongTime(node))
    add(node, /^0x/i.test(node.getText()) ? '0' : String(Number(node.text) + 1));
  else if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken) {
    add(node, node.operand.getText());
  } else if (ts.isExpressionStatement(node) && isCall(node.expression)) add(node, ';');
  else if (ts.isReturnStatement(node) && node.expression !== undefined && node.expression.getText() !== 'undefined') {
    add(node, 'return undefined;');
  }
}

/** A sum with a text in it: minus makes NaN of it, which says nothing about the tests. */
function isText(node) {
  return ts.isStringLiteralLike(node.left) || ts.isStringLiteralLike(node.right) || ts.isTemplateExpression(node.right);
}

/** `const WAIT_MS = 10_000`: a thousandth more or less of a time is nobody's business. */
function isLongTime(node) {
  let { parent } = node;
  while (ts.isBinaryExpression(parent)) ({ parent } = parent);
  return Number(node.text) >= 1000 && ts.isVariableDeclaration(parent) && /_MS$/.test(parent.name.getText());
}

function isCall(expression) {
  const call = ts.isAwaitExpression(expression) ? expression.expression : expression;
  return ts.isCallExpression(call) && call.expression.kind !== ts.SyntaxKind.SuperKeyword;
}
