import { createHash } from 'node:crypto';

/** One sheet for all pages. Colours have a contrast of 4.5 or more on their ground, in light and dark. */
export const STYLE = `
:root{color-scheme:light dark;--ground:#f4f6f8;--card:#fff;--text:#1a1d21;--muted:#56606b;--line:#d8dee5;--link:#1a56b0;--ok:#0a6b2d;--warn:#8a4b00;--bad:#b3261e;--ok-ground:#e3f4e8;--warn-ground:#fdf0dc;--bad-ground:#fde8e6;--bar:#3b7ad9;--row:#f7f9fb}
@media(prefers-color-scheme:dark){:root{--ground:#121518;--card:#1b1f24;--text:#e6e9ec;--muted:#a4adb7;--line:#333a42;--link:#8ab8ff;--ok:#6bd697;--warn:#f2b760;--bad:#ff9189;--ok-ground:#14301f;--warn-ground:#38290f;--bad-ground:#3f1a18;--bar:#6ea3f2;--row:#20252b}}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--text);background:var(--ground);overflow-wrap:anywhere}
header,main,footer{max-width:76rem;margin:0 auto;padding:0 1rem}
a{color:var(--link);text-underline-offset:.15em}
a:focus-visible,input:focus-visible,select:focus-visible,button:focus-visible,summary:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:3px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem;background:var(--card);padding:.5rem 1rem;z-index:1}
header{display:flex;flex-wrap:wrap;align-items:center;gap:.25rem 1rem;padding-top:1.25rem}
.brand{flex-basis:100%;margin:0;color:var(--muted);font-size:.875rem}
h1{font-size:1.5rem;line-height:1.25;margin:0}
h2{font-size:1.125rem;margin:0 0 .5rem}
h3{font-size:.8125rem;font-weight:600;color:var(--muted);margin:0 0 .25rem}
.pill{display:inline-block;margin:0;padding:.1rem .7rem;border-radius:1rem;font-weight:600;font-size:.875rem}
.ok{color:var(--ok)}.warn{color:var(--warn)}.bad{color:var(--bad)}.muted{color:var(--muted)}
.pill.ok{background:var(--ok-ground)}.pill.bad{background:var(--bad-ground)}.pill.warn{background:var(--warn-ground)}
section,.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:1rem;margin:1rem 0}
section.trouble{border-left:5px solid var(--bad)}section.attention{border-left:5px solid var(--warn)}
section ul{margin:0;padding-left:1.2rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:1rem;margin:1rem 0}
.cards .card{margin:0}.card p{margin:.25rem 0}
.big{font-size:1.375rem;font-weight:600;line-height:1.2}
dl{display:grid;grid-template-columns:1fr auto;gap:.1rem .75rem;margin:0}dt{color:var(--muted)}dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}
.paths{grid-template-columns:minmax(8rem,max-content) 1fr;gap:.35rem 1.5rem}.paths dd{text-align:left}
.spark{display:block;width:100%;max-width:30rem;height:32px;margin-top:.5rem}.spark .some{fill:var(--bar)}.spark .none{fill:var(--line)}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem 1rem .35rem 0;vertical-align:top}th:last-child,td:last-child{padding-right:0}
thead th{font-size:.8125rem;color:var(--muted);font-weight:600;border-bottom:1px solid var(--line);overflow-wrap:normal}
tbody{border-bottom:1px solid var(--line)}tbody:last-child{border-bottom:0}tbody th{font-weight:600;min-width:9rem}
td,.n{overflow-wrap:break-word}td:last-child:not(.n){min-width:9rem}
.n{text-align:right;font-variant-numeric:tabular-nums}
code{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
table code{white-space:nowrap}
h3{margin-top:1rem}
form{display:flex;flex-wrap:wrap;gap:.5rem;align-items:end}
label{display:block;font-size:.8125rem;color:var(--muted)}
.search{flex:1 1 18rem;max-width:32rem}
input,select,button{font:inherit;color:inherit;background:var(--card);border:1px solid var(--muted);border-radius:5px;padding:.4rem .6rem;min-height:2.5rem}
input{width:100%}button{cursor:pointer;font-weight:600}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem .5rem;margin:.75rem 0;padding:0}
nav li a,nav li span{display:block;padding:.25rem .75rem;border:1px solid var(--line);border-radius:1rem;text-decoration:none}
nav li [aria-current]{background:var(--text);color:var(--card);border-color:var(--text)}
.pager{display:flex;flex-wrap:wrap;align-items:center;justify-content:space-between;gap:.25rem 1rem;margin:.75rem 0 0}.pager p,.pager ul{margin:0}
.pager li span{color:var(--muted);border-color:transparent}
ol.changes{list-style:none;margin:0;padding:0}ol.changes li{display:grid;grid-template-columns:6rem 1fr;gap:.75rem;padding:.15rem 0}
footer{color:var(--muted);font-size:.875rem;padding-bottom:2rem}footer ul{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0;margin:.25rem 0}
@media(max-width:66rem){
thead{display:none}
table,tbody,th{display:block;width:auto}table code{white-space:normal}
tbody{padding:.6rem 0}tbody th{flex-basis:100%;padding:0 0 .15rem}
tbody tr{display:flex;flex-wrap:wrap;gap:0 1.1rem}
tbody tr+tr{margin-top:.5rem}
td,td.n,td:last-child{display:flex;gap:.4rem;padding:.05rem 0;text-align:left;min-width:0}
td>span{min-width:0;overflow-wrap:anywhere}
td::before{content:attr(data-label);color:var(--muted);white-space:nowrap}td.blank{display:none}
ol.changes li{grid-template-columns:1fr;gap:0;padding:.35rem 0}
nav li a,nav li span{padding:.45rem .9rem}}
@media(max-width:40rem){.search{max-width:none}section,.card{padding:.85rem}}
`;

/**
 * No script, no frame, nothing from elsewhere, and of styles this sheet alone: by its hash, so that markup that slipped
 * in could not even draw.
 */
export const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
  'img-src data:',
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ');
