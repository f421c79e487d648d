/** A node:test reporter that writes only the run's counts, as one line of JSON: {"pass":12,"fail":0,...}. */
export default async function* counts(source) {
  const found = {};
  for await (const { type, data } of source) {
    const match = type === 'test:diagnostic' && /^(tests|pass|fail|cancelled|skipped|todo) (\d+)$/.exec(data.message);
    if (match) found[match[1]] = Number(match[2]);
  }
  yield `${JSON.stringify(found)}\n`;
}
