/**
 * The same list without the spare room that V8 gives an array that grows: one pushed element takes the place of 17. For
 * what is kept by the ten thousand.
 */
export function exact<T>(list: readonly T[]): readonly T[] {
  return list.slice();
}
