#!/usr/bin/env node
/**
 * The picture of the README, from text: `node scripts/diagram.mjs` writes docs/how-it-works.svg. A test holds that the
 * two agree. Boxes are placed by hand on a grid; arrows lead from one box's side to another's.
 */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const WIDTH = 1170;
const HEIGHT = 770;

/** Kinds of boxes: what runs where. */
const STYLE = `
  svg { color-scheme: light dark; }
  text { font-family: ui-sans-serif, system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2933; }
  .background { fill: #ffffff; stroke: #d5dbe1; }
  .heading { font-size: 19px; font-weight: 700; }
  .lead { font-size: 13px; fill: #52606d; }
  .title { font-size: 13.5px; font-weight: 600; }
  .line { font-size: 11.5px; fill: #3e4c59; }
  .code { font-family: ui-monospace, 'DejaVu Sans Mono', monospace; font-size: 11px; fill: #616e7c; }
  .label { font-size: 12px; fill: #3e4c59; }
  .box { stroke-width: 1.4; }
  .pure { fill: #e6f6ec; stroke: #3f9b63; }
  .edge { fill: #eaf2fd; stroke: #3f7fcf; }
  .kernel { fill: #fff3dd; stroke: #cf8a1d; }
  .outside { fill: #f3f4f6; stroke: #7b8794; }
  .arrow { fill: none; stroke: #52606d; stroke-width: 1.7; }
  .change { stroke: #2f6fbf; }
  .verify { stroke: #b5531c; stroke-dasharray: 6 4; }
  .room { fill: none; stroke: #9aa5b1; stroke-dasharray: 3 4; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .background { fill: #0d1117; stroke: #30363d; }
    .lead, .line, .label { fill: #b3bcc6; }
    .code { fill: #8b949e; }
    .pure { fill: #12261a; }
    .edge { fill: #111f33; }
    .kernel { fill: #2b2110; }
    .outside { fill: #1b2128; }
    .arrow { stroke: #9aa5b1; }
    .change { stroke: #6aa6f0; }
    .verify { stroke: #e5905a; }
  }`;

/** id: [kind, x, y, width, height, title, lines of text; a line in backquotes is code] */
const BOXES = {
  api: ['outside', 30, 120, 140, 92, 'API server', ['Services', 'EndpointSlices', 'Nodes']],
  reflector: ['edge', 206, 120, 150, 92, 'reflector', ['lists, watches', 'bookmarks, 410', '`src/kube`']],
  model: ['pure', 392, 120, 150, 92, 'compact model', ['parsed, checked', 'marks Services dirty', '`src/model`']],
  desired: ['pure', 578, 120, 150, 92, 'desired state', ['servers, addresses,', 'set entries, rules', '`src/desired`']],
  plan: ['pure', 764, 120, 150, 92, 'plan', ['desired x applied', 'messages in order', '`src/plan`']],
  netlink: [
    'edge',
    950,
    120,
    190,
    92,
    'netlink batches',
    ['one ACK per batch', 'failures retried alone', '`src/kernel, src/netlink`'],
  ],
  kernel: [
    'kernel',
    950,
    266,
    190,
    112,
    'kernel',
    ['IPVS table', 'addresses on kube-ipvs0', 'KUBE-* sets', 'KUBE-* rules, sysctls'],
  ],
  observed: ['edge', 764, 276, 150, 92, 'observed', ['the whole state, read', 'back every syncPeriod']],
  compare: ['edge', 578, 276, 150, 92, 'compare', ['with desired: missing,', 'extra, changed', '`src/reconcile`']],
  drift: ['edge', 392, 276, 150, 92, 'drift', ['counted and logged;', 'foreign entries stay']],

  outside: ['outside', 30, 500, 140, 92, 'from elsewhere', ['pod of this node,', 'another node,', 'outside client']],
  self: ['outside', 30, 660, 140, 74, 'from the node', ['kubelet, host', 'network pods']],
  prerouting: [
    'kernel',
    206,
    500,
    150,
    92,
    'nat PREROUTING',
    ['marks what is', 'to be masqueraded', '`KUBE-SERVICES`'],
  ],
  local: ['kernel', 392, 500, 150, 92, 'routing', ['the VIP is bound to', 'kube-ipvs0, so the', 'packet is taken in']],
  input: [
    'kernel',
    578,
    500,
    150,
    92,
    'filter INPUT',
    ['source ranges,', 'ports of no Service,', 'no endpoints: refused'],
  ],
  output: ['kernel', 392, 660, 150, 74, 'OUTPUT', ['mangle and nat: checks', 'and marks, before IPVS']],
  ipvs: ['kernel', 764, 500, 150, 92, 'IPVS', ['virtual server picks', 'a real server,', 'replaces destination']],
  postrouting: [
    'kernel',
    950,
    500,
    190,
    92,
    'nat POSTROUTING',
    ['masquerades what is', 'marked; a pod reaching', 'itself, too'],
  ],
  backend: ['outside', 950, 660, 190, 74, 'backend pod', ['here or on another node;', 'answers come back by IPVS']],
};

/** [kind, from, side, to, side, offset?]; sides: right, left, top, bottom; the offset moves the start to the right. */
const ARROWS = [
  ['change', 'api', 'right', 'reflector', 'left'],
  ['change', 'reflector', 'right', 'model', 'left'],
  ['change', 'model', 'right', 'desired', 'left'],
  ['change', 'desired', 'right', 'plan', 'left'],
  ['change', 'plan', 'right', 'netlink', 'left'],
  ['change', 'netlink', 'bottom', 'kernel', 'top'],
  ['verify', 'kernel', 'left', 'observed', 'right'],
  ['verify', 'observed', 'left', 'compare', 'right'],
  ['verify', 'compare', 'left', 'drift', 'right'],
  ['verify', 'desired', 'bottom', 'compare', 'top'],
  ['verify', 'compare', 'top', 'plan', 'bottom', 45],
  ['', 'outside', 'right', 'prerouting', 'left'],
  ['', 'prerouting', 'right', 'local', 'left'],
  ['', 'local', 'right', 'input', 'left'],
  ['', 'input', 'right', 'ipvs', 'left'],
  ['', 'self', 'right', 'output', 'left'],
  ['', 'output', 'right', 'ipvs', 'bottom'],
  ['', 'ipvs', 'right', 'postrouting', 'left'],
  ['', 'postrouting', 'bottom', 'backend', 'top'],
];

/** [class, x, y, text] */
const TEXTS = [
  ['heading', 30, 50, 'Two loops'],
  [
    'lead',
    30,
    74,
    'A change costs the messages it needs, whatever the size of the cluster. A verification reads everything back; changes do not wait for it.',
  ],
  ['label', 848, 240, 'repair goes'],
  ['label', 848, 256, 'the way of'],
  ['label', 848, 272, 'a change'],
  ['heading', 30, 440, 'A packet’s way'],
  [
    'lead',
    30,
    464,
    'Rules are constant in number: all facts about Services are in the KUBE-* sets that they look into.',
  ],
];

/** [class of the line, x, y, text]; the legend on the left of the second row. */
const LEGEND = [
  ['change', 30, 268, 'change'],
  ['verify', 30, 294, 'verification'],
];
const KINDS = [
  ['pure', 30, 322, 'pure: no I/O, no clock'],
  ['edge', 30, 346, 'I/O'],
  ['kernel', 206, 322, 'kernel'],
  ['outside', 206, 346, 'not ours'],
];

export function render() {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="title">
<!-- Written by scripts/diagram.mjs. -->
<title id="title">How kube-proxy-ipvs works: the loops of change and verification, and the way of a packet</title>
<style>${STYLE}
</style>
<defs>
  <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
    <path d="M0 0 L10 5 L0 10 z" fill="#6b7785"/>
  </marker>
</defs>
<rect class="background" x="1" y="1" width="${WIDTH - 2}" height="${HEIGHT - 2}" rx="12"/>
<path class="room" d="M30 405 H${WIDTH - 30}"/>
${[
  ...TEXTS.map(([kind, x, y, text]) => textElement(kind, x, y, text)),
  ...ARROWS.map(arrow),
  ...Object.values(BOXES).map(box),
  ...LEGEND.flatMap(([kind, x, y, text]) => [
    `<path class="arrow ${kind}" d="M${x} ${y - 4} H${x + 40}" marker-end="url(#head)"/>`,
    textElement('label', x + 50, y, text),
  ]),
  ...KINDS.flatMap(([kind, x, y, text]) => [
    `<rect class="box ${kind}" x="${x}" y="${y - 12}" width="22" height="15" rx="3"/>`,
    textElement('label', x + 30, y, text),
  ]),
].join('\n')}
</svg>
`;
}

function box([kind, x, y, width, height, title, lines]) {
  const top = y + (height - 18 * (lines.length + 1)) / 2 + 14;
  const middle = x + width / 2;
  return [
    `<rect class="box ${kind}" x="${x}" y="${y}" width="${width}" height="${height}" rx="8"/>`,
    textElement('title', middle, top, title, 'middle'),
    ...lines.map((line, i) =>
      textElement(
        line.startsWith('`') ? 'code' : 'line',
        middle,
        top + 18 * (i + 1),
        line.replaceAll('`', ''),
        'middle',
      ),
    ),
  ].join('\n');
}

function arrow([kind, from, fromSide, to, toSide, offset = 0]) {
  const [x1, y1] = side(BOXES[from], fromSide);
  const [x2, y2] = side(BOXES[to], toSide);
  const path = route(x1 + offset, y1, x2, y2, fromSide, toSide);
  return `<path class="arrow ${kind}" d="${path}" marker-end="url(#head)"/>`;
}

/** Straight where the two face each other, with right angles elsewhere. */
function route(x1, y1, x2, y2, fromSide, toSide) {
  if (x1 === x2 || y1 === y2) return `M${x1} ${y1} L${x2} ${y2}`;
  if (fromSide === 'right' && toSide === 'bottom') return `M${x1} ${y1} H${x2} V${y2}`;
  const middle = (y1 + y2) / 2;
  return `M${x1} ${y1} V${middle} H${x2} V${y2}`;
}

function side([, x, y, width, height], name) {
  if (name === 'left') return [x, y + height / 2];
  if (name === 'right') return [x + width, y + height / 2];
  return [x + width / 2, name === 'top' ? y : y + height];
}

function textElement(kind, x, y, text, anchor) {
  const escaped = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<text class="${kind}" x="${x}" y="${y}"${anchor === undefined ? '' : ` text-anchor="${anchor}"`}>${escaped}</text>`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('../docs/how-it-works.svg', import.meta.url), render());
}
