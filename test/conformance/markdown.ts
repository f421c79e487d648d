/**
 * The table of docs/conformance.md: `node build/test/conformance/markdown.js --write docs/conformance.md` replaces what
 * stands between the two marker lines.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { PHASES } from '../kernel/traffic-cases.js';
import { SECTIONS } from './cases.js';
import { type ConformanceCase, type Section, type Verdict } from './verdicts.js';

const BEGIN = '<!-- conformance table: written by test/conformance/markdown.ts -->';
const END = '<!-- end of the conformance table -->';

/**
 * What cilium/cilium's .github/workflows/k8s-kind-network-e2e.yaml of v1.20 (commit 006fd5fe) skips, as far as it
 * concerns cases listed here; the particular before the general.
 */
const CILIUM_SKIPS: readonly RegExp[] = [
  /rejected/,
  /externalTrafficPolicy/,
  /SCTPConnectivity/,
  /invalid conntrack state bug/,
  /fallback to local terminating endpoints when there are no ready endpoints with internalTrafficPolicy=Local/,
  /Granular Checks: Services should update endpoints/,
  /ExternalIP/,
  /LoadBalancer/,
  /KubeProxy|kube-proxy/,
  /IPv6DualStack/,
  /Disruptive|Serial/,
];

const WORDS: Readonly<Record<Verdict, string>> = {
  packets: 'with packets',
  part: 'in part',
  state: 'as state',
  none: 'nothing',
  other: 'not a proxy’s',
};

/** The whole text between the markers: a summary, and a table for each section. */
export function conformanceMarkdown(): string {
  return [summary(), ...SECTIONS.map(sectionMarkdown)].join('\n\n');
}

/** The text of a file with its table brought up to date; undefined when it has no place for one. */
export function withConformance(text: string): string | undefined {
  const begin = text.indexOf(BEGIN);
  const end = text.indexOf(END);
  if (begin < 0 || end < begin) return undefined;
  return `${text.slice(0, begin + BEGIN.length)}\n\n${conformanceMarkdown()}\n\n${text.slice(end)}`;
}

/** The references to tests that lead nowhere, with the case that makes them. */
export function brokenReferences(sourceOf: (file: string) => string | undefined): string[] {
  const features = new Set(PHASES.flatMap(({ rows }) => rows.map(({ feature }) => feature)));
  return SECTIONS.flatMap(({ cases }) =>
    cases.flatMap(({ name, tests }) =>
      tests
        .filter((test) => {
          const [file, title] = split(test);
          if (file === 'traffic') return !features.has(title);
          const source = sourceOf(path(file));
          return source === undefined || !['`', "'", '"'].some((quote) => source.includes(`${quote}${title}`));
        })
        .map((test) => `${test} (${name})`),
    ),
  );
}

/** The expression by which Cilium's kube-proxy-free run skips this case. */
export function ciliumSkip(section: Section, { name }: ConformanceCase): string | undefined {
  return CILIUM_SKIPS.find((skip) => skip.test(`${section.group} ${name}`))?.source;
}

function summary(): string {
  const cases = SECTIONS.flatMap((section) => section.cases.map((one) => ({ section, one })));
  const ours = cases.filter(({ one }) => one.verdict !== 'other');
  const count = (verdict: Verdict): number => cases.filter(({ one }) => one.verdict === verdict).length;
  const skipped = ours.filter(({ section, one }) => ciliumSkip(section, one) !== undefined).length;
  return [
    `${cases.length} cases, of which ${ours.length} concern a service proxy: ${count('packets')} shown with packets,`,
    `${count('part')} in part, ${count('state')} as state, ${count('none')} not at all.`,
    `Cilium’s run without kube-proxy skips ${skipped} of the ${ours.length}.`,
  ].join('\n');
}

function sectionMarkdown(section: Section): string {
  const { file, group, cases } = section;
  return [
    `### [sig-network] ${group} (${file})`,
    '',
    '| case | here | shown by | Cilium |',
    '| --- | --- | --- | --- |',
    ...cases.map((one) => caseMarkdown(section, one)),
  ].join('\n');
}

function caseMarkdown(section: Section, one: ConformanceCase): string {
  const { name, isConformance, verdict, tests, note } = one;
  const skip = ciliumSkip(section, one);
  const here = `${WORDS[verdict]}${note === undefined ? '' : `: ${note}`}`;
  const cells = [
    `${isConformance ? '**C** ' : ''}${name.replaceAll('[', '\\[').replaceAll(']', '\\]')}`,
    here,
    tests
      .map((test) => split(test))
      .map(([file, title]) => `\`${file}\`${title === '' ? '' : `: ${title.trim()}`}`)
      .join('; '),
    skip === undefined ? '' : `skipped: \`${skip.replaceAll('|', ', ')}\``,
  ];
  return `| ${cells.join(' | ')} |`;
}

function split(test: string): [file: string, title: string] {
  const at = test.indexOf(': ');
  return [test.slice(0, at), test.slice(at + 2)];
}

function path(file: string): string {
  return file.includes('/') ? `test/${file}.test.ts` : `test/kernel/${file}.test.ts`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = process.argv[2] === '--write' ? process.argv[3] : undefined;
  if (file === undefined) console.log(conformanceMarkdown());
  else {
    const text = withConformance(readFileSync(file, 'utf8'));
    if (text === undefined) throw new Error(`${file} has no line ${BEGIN} followed by ${END}`);
    writeFileSync(file, text);
  }
}
