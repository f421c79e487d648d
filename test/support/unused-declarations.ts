/**
 * Finds what the sources declare for others and nobody uses: exports that no other file imports, and members of classes
 * and interfaces that nothing reads. Tests do not count as users.
 */
import ts from 'typescript';

export interface UnusedOptions {
  /** Files whose declarations are judged; users are sought in these too. */
  readonly files: readonly string[];
  /** Files that only count as users. */
  readonly users?: readonly string[];
}

/** `file: name` or `file: Class.member`, sorted; file names as given. */
export function unusedDeclarations({ files, users = [] }: UnusedOptions, options: ts.CompilerOptions): string[] {
  const program = ts.createProgram([...files, ...users], { ...options, noEmit: true, skipLibCheck: true });
  const uses = new Uses(program);
  for (const name of [...files, ...users]) uses.visit(program.getSourceFile(name)!);
  return files.flatMap((name) => unusedIn(name, program.getSourceFile(name)!, uses)).sort();
}

/** Which declarations are read, and by which names members are read anywhere. */
class Uses {
  readonly #checker: ts.TypeChecker;
  /** Declarations that something refers to from outside of themselves. */
  readonly declarations = new Set<ts.Node>();
  /** Names of members of interfaces that are read: a class may stand behind them without saying so. */
  readonly interfaceMembers = new Set<string>();

  constructor(program: ts.Program) {
    this.#checker = program.getTypeChecker();
  }

  visit(node: ts.Node): void {
    if (ts.isIdentifier(node) || ts.isPrivateIdentifier(node)) this.#visitIdentifier(node);
    else if (ts.isStringLiteralLike(node) && ts.isElementAccessExpression(node.parent)) this.#note(node, node);
    ts.forEachChild(node, (child) => this.visit(child));
  }

  #visitIdentifier(node: ts.Identifier | ts.PrivateIdentifier): void {
    const { parent } = node;
    if (ts.isBindingElement(parent) && (parent.propertyName ?? parent.name) === node) {
      const type = this.#checker.getTypeAtLocation(parent.parent);
      this.#noteSymbol(type.getProperty(node.text), node);
    }
    if (ts.isShorthandPropertyAssignment(parent)) {
      this.#noteSymbol(this.#checker.getShorthandAssignmentValueSymbol(parent), node);
      return;
    }
    if ('name' in parent && parent.name === node && !ts.isPropertyAccessExpression(parent)) return; // declares it
    if (isImportName(node) || isOnlyWritten(node)) return;
    this.#note(node, node);
  }

  #note(at: ts.Node, user: ts.Node): void {
    this.#noteSymbol(this.#checker.getSymbolAtLocation(at), user);
  }

  #noteSymbol(symbol: ts.Symbol | undefined, user: ts.Node): void {
    if (symbol === undefined) return;
    const target = symbol.flags & ts.SymbolFlags.Alias ? this.#checker.getAliasedSymbol(symbol) : symbol;
    for (const declaration of target.declarations ?? []) {
      if (isInside(user, declaration)) continue;
      this.declarations.add(declaration);
      if (ts.isPropertySignature(declaration) || ts.isMethodSignature(declaration)) {
        this.interfaceMembers.add(target.name);
      }
    }
  }
}

function unusedIn(file: string, source: ts.SourceFile, uses: Uses): string[] {
  const found: string[] = [];
  for (const statement of source.statements) {
    const isExported = ts.canHaveModifiers(statement) && hasModifier(statement, ts.SyntaxKind.ExportKeyword);
    for (const [name, declaration] of declared(statement)) {
      if (isExported && !uses.declarations.has(declaration)) found.push(`${file}: ${name}`);
    }
    if (ts.isClassDeclaration(statement) || ts.isInterfaceDeclaration(statement)) {
      for (const member of statement.members) {
        if (isUnusedMember(member, uses)) found.push(`${file}: ${statement.name?.text}.${member.name!.getText()}`);
      }
    }
  }
  return found;
}

function declared(statement: ts.Statement): [string, ts.Node][] {
  if (ts.isVariableStatement(statement)) {
    return statement.declarationList.declarations.map((one) => [one.name.getText(), one]);
  }
  const named =
    ts.isFunctionDeclaration(statement) ||
    ts.isClassDeclaration(statement) ||
    ts.isInterfaceDeclaration(statement) ||
    ts.isTypeAliasDeclaration(statement);
  return named && statement.name !== undefined ? [[statement.name.text, statement]] : [];
}

function isUnusedMember(member: ts.ClassElement | ts.TypeElement, uses: Uses): boolean {
  const { name } = member;
  if (name === undefined || ts.isComputedPropertyName(name) || uses.declarations.has(member)) return false;
  if (ts.isConstructorDeclaration(member) || isOverride(member)) return false;
  return !uses.interfaceMembers.has(name.getText());
}

function isOverride(member: ts.Node): boolean {
  return ts.canHaveModifiers(member) && hasModifier(member, ts.SyntaxKind.OverrideKeyword);
}

function hasModifier(node: ts.HasModifiers, kind: ts.SyntaxKind): boolean {
  return ts.getModifiers(node)?.some((modifier) => modifier.kind === kind) === true;
}

function isImportName(node: ts.Node): boolean {
  return ts.isImportSpecifier(node.parent) || ts.isExportSpecifier(node.parent) || ts.isImportClause(node.parent);
}

/** The member's name in `a.b = c`, `a.b += c` or `a.b++` as statements: nobody learns the value there. */
function isOnlyWritten(node: ts.Node): boolean {
  const access = node.parent;
  if (!ts.isPropertyAccessExpression(access) || access.name !== node) return false;
  const { parent } = access;
  const isStatement = ts.isExpressionStatement(parent.parent);
  if (ts.isBinaryExpression(parent) && parent.left === access) {
    const { kind } = parent.operatorToken;
    return kind === ts.SyntaxKind.EqualsToken || (isAssignment(kind) && isStatement);
  }
  const isIncrement = ts.isPostfixUnaryExpression(parent) || ts.isPrefixUnaryExpression(parent);
  return isIncrement && isStatement && /\+\+|--/.test(parent.getText());
}

function isAssignment(kind: ts.SyntaxKind): boolean {
  return kind >= ts.SyntaxKind.FirstAssignment && kind <= ts.SyntaxKind.LastAssignment;
}

function isInside(node: ts.Node, container: ts.Node): boolean {
  return node.getSourceFile() === container.getSourceFile() && node.pos >= container.pos && node.end <= container.end;
}
