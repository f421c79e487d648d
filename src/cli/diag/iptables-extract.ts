/** Of all the rules of a node those that a question about Services needs, so that a bundle stays small. Pure. */

const BUILT_IN = new Set(['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']);
const OURS = /^KUBE-/;

/**
 * Of an output of iptables-save: every `KUBE-*` chain, the built-in chains, and each chain with a rule that leads to a
 * `KUBE-*` chain, whole, because the order of rules matters. What was left out is counted at the end.
 */
export function rulesThatTouchOurs(saved: string): string {
  const lines = saved.split('\n');
  const kept = new Set<string>();
  let table = '';
  for (const line of lines) {
    if (line.startsWith('*')) table = line;
    const { chain, target } = parts(line);
    if (chain !== '' && (BUILT_IN.has(chain) || OURS.test(chain) || OURS.test(target))) kept.add(`${table} ${chain}`);
  }
  const leftOut = new Set<string>();
  let rules = 0;
  const text = lines.filter((line) => {
    if (line.startsWith('*')) table = line;
    const { chain, isRule } = parts(line);
    if (chain === '' || kept.has(`${table} ${chain}`)) return true;
    leftOut.add(`${table} ${chain}`);
    if (isRule) rules++;
    return false;
  });
  return `${text.join('\n').trimEnd()}\n# left out: ${leftOut.size} chains of others with ${rules} rules\n`;
}

function parts(line: string): { chain: string; target: string; isRule: boolean } {
  const [, declared] = /^:(\S+)/.exec(line) ?? [];
  if (declared !== undefined) return { chain: declared, target: '', isRule: false };
  const [, chain = ''] = /^-A (\S+)/.exec(line) ?? [];
  const [, target = ''] = / -[jg] (\S+)/.exec(line) ?? [];
  return { chain, target, isRule: chain !== '' };
}
