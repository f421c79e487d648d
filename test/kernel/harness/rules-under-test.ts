/** Where the daemon under test keeps its rules: `TEST_RULES=nftables` runs the same tests with the other backend. */
export function rulesUnderTest(): { readonly rules?: string } {
  const { TEST_RULES: rules } = process.env;
  return rules === undefined || rules === '' ? {} : { rules };
}

/** As the daemon calls it in its log. */
export function rulesBackend(): 'iptables' | 'nftables' {
  return isNftables() ? 'nftables' : 'iptables';
}

export function isNftables(): boolean {
  return rulesUnderTest().rules === 'nftables';
}
