#!/usr/bin/env node
/**
 * Makes the templates of deploy/helm/kube-proxy-ipvs from deploy/base and deploy/components, so that both say the same:
 * the manifests with some places replaced by values, and a value that switches each component. Run it after a change
 * there; a test holds that its output is committed.
 *
 *   node scripts/helm-chart.mjs           writes the templates
 *   node scripts/helm-chart.mjs --check   exit code 1 when one differs
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

const root = fileURLToPath(new URL('../', import.meta.url));
const NAMESPACE = ['namespace: kube-system', 'namespace: {{ .Release.Namespace }}', 1];
const IMAGE = `image: '{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}'`;

/** Each template's source and what is replaced in it; each text must be there exactly as often as it says. */
const TEMPLATES = {
  'serviceaccount.yaml': ['deploy/base/serviceaccount.yaml', [NAMESPACE]],
  'rbac.yaml': ['deploy/base/rbac.yaml', [NAMESPACE]],
  'events-rbac.yaml': ['deploy/components/events/rbac.yaml', [NAMESPACE], 'rbac.events'],
  'daemonset.yaml': ['deploy/base/daemonset.yaml', [...daemonSetEdits(), ...checkEdits()]],
  'configmap.yaml': ['deploy/base/configmap.yaml', []],
};
let differs = false;
for (const [file, [from, edits, flag]] of Object.entries(TEMPLATES)) {
  const source = readFileSync(join(root, from), 'utf8');
  const edited = file === 'configmap.yaml' ? configMap() : edits.reduce(replaceExactly(from), source);
  const note = `# Made from ${from} by scripts/helm-chart.mjs: change it there.\n`;
  const made = note + (flag === undefined ? edited : `{{- if .Values.${flag} }}\n${edited}{{- end }}\n`);
  const path = join(root, 'deploy/helm/kube-proxy-ipvs/templates', file);
  if (existsSync(path) && readFileSync(path, 'utf8') === made) continue;
  differs = true;
  if (process.argv.includes('--check')) {
    console.log(`${file}: differs from ${from}; run node scripts/helm-chart.mjs`);
    continue;
  }
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, made);
  console.log(`wrote deploy/helm/kube-proxy-ipvs/templates/${file}`);
}
process.exitCode = differs && process.argv.includes('--check') ? 1 : 0;

function replaceExactly(file) {
  return (text, [from, to, times]) => {
    const found = text.split(from).length - 1;
    if (found !== times) throw new Error(`${file}: ${JSON.stringify(from)} is there ${found} times, not ${times}`);
    return text.replaceAll(from, () => to);
  };
}

/** The configuration is values, not text to edit; the kubeconfig is that of the base with the server as a value. */
function configMap() {
  const source = readFileSync(join(root, 'deploy/base/configmap.yaml'), 'utf8');
  const kubeconfig = source.slice(source.indexOf('  kubeconfig.conf: |'));
  const server = 'server: https://api-server.example.com:6443';
  return `{{- if not .Values.existingConfig.volume }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: kube-proxy-ipvs
  namespace: {{ .Release.Namespace }}
data:
  config.conf: |
    {{- toYaml .Values.config | nindent 4 }}
${replaceExactly('configmap.yaml')(kubeconfig, [server, 'server: {{ .Values.apiServer }}', 1])}{{- end }}
`;
}

/** The places of the DaemonSet that are values. */
function daemonSetEdits() {
  return [
    NAMESPACE,
    ['image: kube-proxy-ipvs\n', `${IMAGE}\n          imagePullPolicy: {{ .Values.image.pullPolicy }}\n`, 2],
    ['maxUnavailable: 10%', 'maxUnavailable: {{ .Values.maxUnavailable }}', 1],
    [
      '        kubernetes.io/os: linux\n',
      '        kubernetes.io/os: linux\n        {{- with .Values.nodeSelector }}\n        {{- toYaml . | nindent 8 }}\n        {{- end }}\n',
      1,
    ],
    [
      '      tolerations:\n        - operator: Exists\n',
      '      tolerations:\n        {{- toYaml .Values.tolerations | nindent 8 }}\n      {{- with .Values.affinity }}\n      affinity:\n        {{- toYaml . | nindent 8 }}\n      {{- end }}\n      {{- with .Values.imagePullSecrets }}\n      imagePullSecrets:\n        {{- toYaml . | nindent 8 }}\n      {{- end }}\n',
      1,
    ],
    [
      '      initContainers:\n',
      '      {{- if not .Values.check }}\n      {{- if .Values.prepareNode }}\n      initContainers:\n',
      1,
    ],
    ['      containers:\n', '      {{- end }}\n      {{- end }}\n      containers:\n', 1],
    [
      '            requests: { cpu: 50m, memory: 100Mi }\n',
      '            {{- toYaml .Values.resources | nindent 12 }}\n',
      1,
    ],
    [
      '        - name: config\n          configMap: { name: kube-proxy-ipvs }\n',
      '        - name: config\n          {{- if .Values.existingConfig.volume }}\n          {{- toYaml .Values.existingConfig.volume | nindent 10 }}\n          {{- else }}\n          configMap: { name: kube-proxy-ipvs }\n          {{- end }}\n',
      1,
    ],
  ];
}

/**
 * deploy/components/check as a switch: its patch takes the init container, ports and probes away, which stand together
 * in the base, has a command of its own and adds a mount. Throws when the patch does anything else.
 */
function checkEdits() {
  const [{ patch }] = parse(readFileSync(join(root, 'deploy/components/check/kustomization.yaml'), 'utf8')).patches;
  const { initContainers, containers, ...rest } = parse(patch).spec.template.spec;
  const [{ name, command, volumeMounts, ...removed }, ...more] = containers;
  const expected = { ports: null, startupProbe: null, livenessProbe: null, readinessProbe: null };
  if (
    initContainers !== null ||
    JSON.stringify({ ...rest, ...removed }) !== JSON.stringify(expected) ||
    more.length > 0
  )
    throw new Error('deploy/components/check changes something that has no place in the chart yet');
  const base = parse(readFileSync(join(root, 'deploy/base/daemonset.yaml'), 'utf8')).spec.template.spec.containers[0];
  if (base.name !== name) throw new Error(`deploy/components/check patches ${name}, not ${base.name}`);
  const list = (words) => words.map((word) => `            - ${word}\n`).join('');
  const mounts = volumeMounts.map(
    ({ name: volume, mountPath, readOnly }) =>
      `            - { name: ${volume}, mountPath: ${mountPath}${readOnly === true ? ', readOnly: true' : ''} }\n`,
  );
  const whenNotChecking = '          {{- if not .Values.check }}\n          ports:\n';
  const access = '            - { name: api-access,';
  return [
    [list(base.command), whether('check', list(command), list(base.command), 12), 1],
    ['          ports:\n', whenNotChecking, 1],
    ['          resources:\n', '          {{- end }}\n          resources:\n', 1],
    [access, whether('check', mounts.join(''), '', 12) + access, 1],
  ];
}

/** One text or the other, by a value; an action stands as deep as the lines beside it. */
function whether(flag, then, otherwise, depth) {
  const indent = ' '.repeat(depth);
  const other = otherwise === '' ? '' : `${indent}{{- else }}\n${otherwise}`;
  return `${indent}{{- if .Values.${flag} }}\n${then}${other}${indent}{{- end }}\n`;
}
