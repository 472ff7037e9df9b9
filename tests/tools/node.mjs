// The suite imports `globSync` from `fs`, which Node 20 does not have yet, and uses it in none of the
// commands that are run here. With this it loads on Node 20 as well.
import * as fs from 'node:fs';
import { register } from 'node:module';

if (!fs.globSync) {
  const shim = `export * from 'node:fs'; export { default } from 'node:fs'; export const globSync = () => [];`;
  const url = `data:text/javascript,${encodeURIComponent(shim)}`;
  const hook = `export const resolve = (name, from, next) =>
    name === 'fs' && from.parentURL?.includes('/conformance/')
      ? { url: ${JSON.stringify(url)}, shortCircuit: true }
      : next(name, from);`;
  register(`data:text/javascript,${encodeURIComponent(hook)}`);
}
