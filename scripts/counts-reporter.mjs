import { relative } from 'node:path';

/**
 * A node:test reporter that writes only the run's counts and which tests failed, as one line of JSON:
 * {"pass":12,"fail":1,...,"failures":["build/test/unit/values/cidr.test.js:12 a prefix of 33 bits: Missing..."]}.
 */
export default async function* counts(source) {
  const found = { failures: [] };
  for await (const { type, data } of source) {
    const match = type === 'test:diagnostic' && /^(tests|pass|fail|cancelled|skipped|todo) (\d+)$/.exec(data.message);
    if (match) found[match[1]] = Number(match[2]);
    if (type === 'test:fail' && data.details.error.failureType !== 'subtestsFailed') found.failures.push(failure(data));
  }
  yield `${JSON.stringify(found)}\n`;
}

/** Where, which, and the beginning of why. A file that crashed is a test with the file's name. */
function failure({ name, file, line, details: { error } }) {
  const where = file === undefined ? '' : `${relative(process.cwd(), file)}:${line} `;
  const reason = String(error.cause?.message ?? error.cause ?? error.message)
    .replace(/\s+/g, ' ')
    .slice(0, 200);
  return `${where}${name}: ${reason}`;
}
