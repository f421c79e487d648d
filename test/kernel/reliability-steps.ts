import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';

/**
 * Tests of which each stands on the state that the one before left. After a failure the others fail at once, instead of
 * each waiting for what cannot come.
 */
export function steps(): (name: string, body: (context: TestContext) => Promise<void>) => void {
  let failed: string | undefined;
  return (name, body) =>
    void test(name, async (context) => {
      assert.equal(failed, undefined, 'not run, because an earlier step failed');
      try {
        await body(context);
      } catch (error) {
        failed = name;
        throw error;
      }
    });
}
