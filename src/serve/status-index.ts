/** What `/` shows: the paths that this server has, each a link. They are our own constants, so nothing is escaped. */
export function indexHtml(paths: readonly string[]): string {
  const links = paths.map((path) => `<li><a href="${path}">${path}</a></li>`).join('\n');
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>kube-proxy-ipvs</title>' +
    '<meta name="viewport" content="width=device-width,initial-scale=1"></head><body>' +
    `<h1>kube-proxy-ipvs</h1><ul>\n${links}\n</ul></body></html>\n`
  );
}
