/** The Helm chart says what deploy/base says: rendered with its defaults it makes the same objects. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { loadConfigText } from '../../../src/config/load.js';
import { renderTemplate } from '../../support/helm-template.js';

type Tree = Record<string, unknown>;
const CHART = 'deploy/helm/kube-proxy-ipvs';
const chart = parse(readFileSync(join(CHART, 'Chart.yaml'), 'utf8')) as Tree;
const defaults = parse(readFileSync(join(CHART, 'values.yaml'), 'utf8')) as Tree;

function objects(text: string): Tree[] {
  return parseAllDocuments(text)
    .map((document) => {
      assert.deepEqual(document.errors, []);
      return document.toJS() as Tree | null;
    })
    .filter((object) => object !== null);
}

function render(values: Tree): Tree[] {
  const Chart = { AppVersion: chart['appVersion'], Name: chart['name'] };
  const root = { Values: { ...defaults, ...values }, Chart, Release: { Namespace: 'kube-system' } };
  return readdirSync(join(CHART, 'templates'))
    .sort()
    .flatMap((file) => objects(renderTemplate(readFileSync(join(CHART, 'templates', file), 'utf8'), root)));
}

function base(): Tree[] {
  const { images } = parse(readFileSync('deploy/base/kustomization.yaml', 'utf8')) as {
    images: [{ newName: string; newTag: string }];
  };
  const image = `${images[0].newName}:${images[0].newTag}`;
  return readdirSync('deploy/base')
    .filter((file) => file !== 'kustomization.yaml')
    .sort()
    .flatMap((file) =>
      objects(readFileSync(join('deploy/base', file), 'utf8').replaceAll('image: kube-proxy-ipvs', `image: ${image}`)),
    );
}

function daemonSet(values: Tree): { spec: { template: { spec: Tree } } } {
  return render(values).find(({ kind }) => kind === 'DaemonSet') as unknown as { spec: { template: { spec: Tree } } };
}

/** The configuration inside the ConfigMap as data, not as text: comments and order are the base's own. */
function withParsedConfig(all: readonly Tree[]): Tree[] {
  return all.map((object) => {
    if (object['kind'] !== 'ConfigMap') return object;
    const data = object['data'] as Record<string, string>;
    return {
      ...object,
      data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, parse(text) as Tree])),
    };
  });
}

describe('the Helm chart', () => {
  test('is made from deploy/base', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/helm-chart.mjs', '--check'], {
      encoding: 'utf8',
    });
    assert.equal(status, 0, stdout + stderr);
  });

  test('with its defaults makes the objects of deploy/base', () => {
    const withoutPolicy = JSON.parse(
      JSON.stringify(render({}), (key, value: unknown) => (key === 'imagePullPolicy' ? undefined : value)),
    ) as Tree[];
    assert.deepEqual(withParsedConfig(withoutPolicy), withParsedConfig(base()));
  });

  test("has a configuration that our own loader takes, the same as the base's", () => {
    const text = (all: readonly Tree[]): string =>
      (all.find(({ kind }) => kind === 'ConfigMap')!['data'] as Record<string, string>)['config.conf']!;
    const [ours, theirs] = [loadConfigText(text(render({})), 'chart'), loadConfigText(text(base()), 'base')];
    assert.deepEqual(ours.warnings, []);
    assert.deepEqual(ours.config, theirs.config);
  });

  test('takes another configuration, selectors and digests, and leaves out what is switched off', () => {
    const volume = { configMap: { name: 'kube-proxy' } };
    const all = render({ existingConfig: { volume }, prepareNode: false });
    assert.equal(
      all.some(({ kind }) => kind === 'ConfigMap'),
      false,
    );
    const spec = daemonSet({
      existingConfig: { volume },
      prepareNode: false,
      nodeSelector: { 'service-proxy': 'kube-proxy-ipvs' },
      affinity: { nodeAffinity: {} },
      image: { repository: 'r/k', tag: '', digest: `sha256:${'0'.repeat(64)}`, pullPolicy: 'Always' },
    }).spec.template.spec;
    assert.equal(spec['initContainers'], undefined);
    assert.deepEqual((spec['volumes'] as Tree[])[0], { name: 'config', ...volume });
    assert.deepEqual(spec['nodeSelector'], { 'kubernetes.io/os': 'linux', 'service-proxy': 'kube-proxy-ipvs' });
    assert.deepEqual(spec['affinity'], { nodeAffinity: {} });
    const [container] = spec['containers'] as Tree[];
    assert.equal(container!['image'], `r/k:0.1.0@sha256:${'0'.repeat(64)}`);
    assert.equal(container!['imagePullPolicy'], 'Always');
  });

  test('has a schema that names every value and no other', () => {
    const schema = JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8')) as { properties: Tree };
    const { global, ...named } = schema.properties;
    assert.notEqual(global, undefined, 'Helm adds it for subcharts');
    assert.deepEqual(Object.keys(named).sort(), Object.keys(defaults).sort());
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    assert.deepEqual([chart['version'], chart['appVersion']], [version, version]);
  });
});

describe('the renderer of these tests', () => {
  const root = { Values: { a: 'x', list: [1], none: {}, no: false }, Chart: {}, Release: {} };
  test('does what Helm documents', () => {
    const cases: [string, string][] = [
      ['{{ .Values.a }}', 'x'],
      ['a  {{- .Values.a -}}  b', 'axb'],
      ['{{ if .Values.no }}1{{ else }}2{{ end }}', '2'],
      ['{{ with .Values.a }}[{{ . }}]{{ end }}', '[x]'],
      ['{{ with .Values.none }}1{{ end }}', ''],
      ['k:{{ toYaml .Values.list | nindent 2 }}', 'k:\n  - 1'],
      ['{{ .Values.missing | default "d" | quote }}', '"d"'],
    ];
    for (const [template, expected] of cases) assert.equal(renderTemplate(template, root), expected, template);
  });

  test('refuses what it does not know', () => {
    for (const template of [
      '{{ include "x" . }}',
      '{{ range .Values.list }}{{ end }}',
      '{{ if .Values.a }}',
      '{{ end }}',
      '{{ .Values.missing }}',
    ])
      assert.throws(() => renderTemplate(template, root), Error, template);
  });
});
