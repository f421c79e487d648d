/** A chain as iptables-save prints it. */
export interface SavedChain {
  /** `ACCEPT` or `DROP` for built-in chains, `-` for the others. */
  readonly policy: string;
  /** Rules in order, each as printed after `-A CHAIN `. */
  readonly rules: string[];
}

/** Table name -> chain name -> chain, in the order of the text. */
export type SavedRules = Map<string, Map<string, SavedChain>>;

/** Parses the text of iptables-save. Tolerant: comments, counters, CRs and lines of unknown kinds are passed over. */
export function parseSavedRules(text: string): SavedRules {
  const tables: SavedRules = new Map();
  let table: Map<string, SavedChain> | undefined;
  for (const raw of text.split('\n')) {
    const line = raw.replace(/^\[\d+:\d+\] /, '').trim();
    if (line.startsWith('*')) {
      const name = line.slice(1);
      table = tables.get(name) ?? new Map<string, SavedChain>();
      tables.set(name, table);
    } else if (table === undefined) continue;
    else if (line.startsWith(':')) {
      const [name, policy] = line.slice(1).split(' ');
      if (name) chainOf(table, name, policy ?? '-');
    } else if (line.startsWith('-A ')) {
      const end = line.indexOf(' ', 3);
      if (end > 0) chainOf(table, line.slice(3, end), '-').rules.push(line.slice(end + 1));
      else chainOf(table, line.slice(3), '-').rules.push('');
    }
  }
  return tables;
}

function chainOf(table: Map<string, SavedChain>, name: string, policy: string): SavedChain {
  let chain = table.get(name);
  if (chain === undefined) table.set(name, (chain = { policy, rules: [] }));
  return chain;
}

/** Splits a rule into words as iptables-restore does: double quotes group, a backslash keeps the next character. */
export function ruleWords(rule: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let isQuoted = false;
  for (let i = 0; i < rule.length; i++) {
    const char = rule[i]!;
    if (char === '\\' && isQuoted && i + 1 < rule.length) word = (word ?? '') + rule[++i]!;
    else if (char === '"') {
      isQuoted = !isQuoted;
      word ??= '';
    } else if (!isQuoted && (char === ' ' || char === '\t')) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + char;
  }
  if (word !== undefined) words.push(word);
  return words;
}

/** The chain or target that a rule leads to by -j or -g; undefined for a rule without one. */
export function ruleTarget(rule: string): string | undefined {
  const words = ruleWords(rule);
  for (let i = 0; i + 1 < words.length; i++) {
    if (words[i] === '--comment') i++;
    else if (words[i] === '-j' || words[i] === '-g' || words[i] === '--jump' || words[i] === '--goto')
      return words[i + 1];
  }
  return undefined;
}

/** The text of `-m comment`; empty for a rule without one. */
export function ruleComment(rule: string): string {
  const words = ruleWords(rule);
  return words[words.indexOf('--comment') + 1 || words.length] ?? '';
}
