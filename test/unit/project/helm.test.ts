/** The Helm chart says what deploy/base and deploy/components say: rendered it makes the same objects. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { loadConfigText } from '../../../src/config/load.js';
import { renderTemplate } from '../../support/helm-template.js';
import { schemaErrors } from '../../support/json-schema.js';

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

/** The patch of deploy/components/NAME on the DaemonSet of the base, merged as Kubernetes merges such patches. */
function baseWith(component: string): Tree {
  const { patches } = parse(readFileSync(`deploy/components/${component}/kustomization.yaml`, 'utf8')) as {
    patches: [{ patch: string }];
  };
  const daemonSetOfBase = base().find(({ kind }) => kind === 'DaemonSet')!;
  return merged(daemonSetOfBase, parse(patches[0].patch)) as Tree;
}

/** A strategic merge: null removes, lists with a merge key (containers, mounts) are merged by it, others replaced. */
function merged(into: unknown, patch: unknown): unknown {
  if (Array.isArray(patch)) {
    const key = ['mountPath', 'name'].find((name) => patch.every((item) => Object.hasOwn(Object(item) as Tree, name)));
    if (key === undefined || !Array.isArray(into)) return patch as unknown;
    const [old, fresh] = [into, patch].map((items) => new Map((items as Tree[]).map((item) => [item[key], item])));
    return [...new Map([...fresh!, ...old!]).keys()].map((name) =>
      fresh!.has(name) ? merged(old!.get(name), fresh!.get(name)) : old!.get(name),
    );
  }
  if (typeof patch !== 'object' || patch === null) return patch;
  const result: Tree = { ...(into as Tree | undefined) };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = merged(result[name], value);
  }
  return result;
}

/** Without what only the chart says, and mounts in one order: a merge says nothing of it. */
function comparable(object: Tree): unknown {
  return JSON.parse(JSON.stringify(object), (key, value: unknown) => {
    if (key === 'imagePullPolicy') return undefined;
    if (key !== 'volumeMounts') return value;
    return (value as Tree[]).sort((a, b) => (String(a['mountPath']) < String(b['mountPath']) ? -1 : 1));
  });
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

  test('switches the right to create Events as the component does', () => {
    const names = (all: readonly Tree[]): unknown[] => all.map(({ metadata }) => (metadata as Tree)['name']);
    assert.equal(names(render({})).includes('kube-proxy-ipvs-events'), false);
    const added = render({ rbac: { events: true } }).filter(
      (object) => names([object])[0] === 'kube-proxy-ipvs-events',
    );
    assert.deepEqual(added, objects(readFileSync('deploy/components/events/rbac.yaml', 'utf8')));
    assert.equal(added.length, 2);
  });

  test('checks before a migration, and moves node by node, as the components do', () => {
    const values: Readonly<Record<string, Tree>> = {
      check: { check: true },
      'by-node': { nodeSelector: { 'service-proxy': 'kube-proxy-ipvs' } },
    };
    for (const [component, value] of Object.entries(values)) {
      const ours = comparable(daemonSet(value));
      assert.deepEqual(ours, comparable(baseWith(component)), component);
      assert.notDeepEqual(ours, comparable(daemonSet({})), component);
    }
    assert.deepEqual(
      readdirSync('deploy/components').sort(),
      [...Object.keys(values), 'events'].sort(),
      'a component without a value of the chart',
    );
  });

  test('says beside each value of a component whose it is', () => {
    const text = readFileSync(join(CHART, 'values.yaml'), 'utf8');
    for (const component of readdirSync('deploy/components'))
      assert.ok(text.includes(`deploy/components/${component}`));
  });

  test('has a schema that takes its defaults and refuses what is wrong', () => {
    const schema = JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8')) as Tree;
    assert.deepEqual(schemaErrors(schema, defaults), []);
    const volume = { configMap: { name: 'kube-proxy' } };
    assert.deepEqual(
      schemaErrors(schema, {
        ...defaults,
        ...{ rbac: { events: true }, check: true, maxUnavailable: 1, existingConfig: { volume } },
      }),
      [],
    );
    const wrong: readonly [Tree, RegExp][] = [
      [{ rbac: { events: 'true' } }, /^\.rbac\.events: not of type boolean$/],
      [{ rbac: { event: true } }, /^\.rbac\.event: unknown$/],
      [{ check: 'yes' }, /^\.check: not of type boolean$/],
      [{ events: true }, /^\.events: unknown$/],
      [{ image: { tag: 'x' } }, /^\.image\.repository: missing$/],
      [{ image: { repository: 'r', digest: 'sha256:1' } }, /^\.image\.digest: not as/],
      [{ config: { ...(defaults['config'] as Tree), mode: 'iptables' } }, /^\.config\.mode: none of/],
      [{ apiServer: '10.0.0.1' }, /^\.apiServer: not as/],
      [{ maxUnavailable: 'ten' }, /^\.maxUnavailable: not as/],
      [{ nodeSelector: { a: 1 } }, /^\.nodeSelector\.a: not of type string$/],
      [{ tolerations: ['x'] }, /^\.tolerations\[0\]: not of type object$/],
    ];
    for (const [values, message] of wrong) {
      const errors = schemaErrors(schema, { ...defaults, ...values });
      assert.equal(errors.length, 1, errors.join());
      assert.match(errors[0]!, message);
    }
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
