#!/usr/bin/env node
/**
 * Makes the templates of deploy/helm/kube-proxy-ipvs from deploy/base, so that both say the same: the manifests of the
 * base with some places replaced by values. Run it after a change of deploy/base; a test holds that its output is
 * committed.
 *
 *   node scripts/helm-chart.mjs           writes the templates
 *   node scripts/helm-chart.mjs --check   exit code 1 when one differs
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const NOTE = '# Made from deploy/base by scripts/helm-chart.mjs: change it there.\n';
const IMAGE = `image: '{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}'`;

/** What is replaced in each manifest; each text must be there exactly as often as it says. */
const EDITS = {
  'serviceaccount.yaml': [['namespace: kube-system', 'namespace: {{ .Release.Namespace }}', 1]],
  'rbac.yaml': [['namespace: kube-system', 'namespace: {{ .Release.Namespace }}', 1]],
  'daemonset.yaml': [
    ['namespace: kube-system', 'namespace: {{ .Release.Namespace }}', 1],
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
    ['      initContainers:\n', '      {{- if .Values.prepareNode }}\n      initContainers:\n', 1],
    ['      containers:\n', '      {{- end }}\n      containers:\n', 1],
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
  ],
  'configmap.yaml': [],
};

let differs = false;
for (const [file, edits] of Object.entries(EDITS)) {
  const source = readFileSync(join(root, 'deploy/base', file), 'utf8');
  const made = NOTE + (file === 'configmap.yaml' ? configMap() : edits.reduce(replaceExactly(file), source));
  const path = join(root, 'deploy/helm/kube-proxy-ipvs/templates', file);
  if (existsSync(path) && readFileSync(path, 'utf8') === made) continue;
  differs = true;
  if (process.argv.includes('--check')) {
    console.log(`${file}: differs from deploy/base; run node scripts/helm-chart.mjs`);
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
