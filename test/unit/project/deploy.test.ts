import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { parse, parseAllDocuments } from 'yaml';
import { runCommandLine } from '../../../src/cli/command-line.js';
import { type CommandHandlers } from '../../../src/cli/options.js';
import { loadConfigText } from '../../../src/config/load.js';
import { Metrics } from '../../../src/serve/metrics.js';

/** A YAML document, addressed loosely: what is absent fails the assertion that reads it. */
interface Tree {
  readonly [key: string]: Tree;
}

function filesUnder(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((path) => statSync(path).isFile());
}

function read(path: string): Tree {
  return parse(readFileSync(path, 'utf8')) as Tree;
}

function list(tree: Tree): readonly Tree[] {
  assert.ok(Array.isArray(tree));
  return tree;
}

function text(tree: Tree | undefined): string {
  assert.equal(typeof tree, 'string');
  return tree as unknown as string;
}

const daemonSet = read('deploy/base/daemonset.yaml');
const pod = daemonSet.spec!.template!.spec!;
const [container, init] = [list(pod.containers!)[0]!, list(pod.initContainers!)[0]!];

describe('deploy', () => {
  it('has only YAML and JSON that parse', () => {
    const files = filesUnder('deploy').filter((name) => !name.includes('/templates/')); // helm.test.ts renders those
    assert.ok(files.length >= 10);
    for (const path of files.filter((name) => /\.ya?ml$/.test(name))) {
      for (const document of parseAllDocuments(readFileSync(path, 'utf8'))) {
        assert.deepEqual([...document.errors, ...document.warnings], [], path);
      }
    }
    for (const path of files.filter((name) => name.endsWith('.json'))) JSON.parse(readFileSync(path, 'utf8'));
  });

  it('has kustomizations whose resources and files exist, and patches that name what the base has', () => {
    const names = new Set<string>();
    for (const path of filesUnder('deploy/base').filter((name) => !name.endsWith('kustomization.yaml'))) {
      for (const document of parseAllDocuments(readFileSync(path, 'utf8'))) {
        const { kind, metadata } = document.toJS() as Tree;
        names.add(`${text(kind)}/${text(metadata!.name)}`);
      }
    }
    for (const path of filesUnder('deploy').filter((name) => name.endsWith('kustomization.yaml'))) {
      const directory = join(path, '..');
      const kustomization = read(path);
      const { resources = [], components = [] } = kustomization as unknown as {
        resources?: Tree[];
        components?: Tree[];
      };
      assert.ok(resources.length > 0 || text(kustomization.kind) === 'Component', path);
      for (const resource of [...resources, ...components])
        assert.ok(existsSync(join(directory, text(resource))), path);
      for (const { files } of (kustomization.configMapGenerator ?? []) as unknown as Tree[]) {
        for (const file of list(files!)) assert.ok(existsSync(join(directory, text(file))), path);
      }
      for (const { patch } of (kustomization.patches ?? []) as unknown as Tree[]) {
        const target = parse(text(patch)) as Tree;
        assert.ok(names.has(`${text(target.kind)}/${text(target.metadata!.name)}`), path);
      }
    }
    const inBase = list(read('deploy/base/kustomization.yaml').resources!).map(text);
    assert.deepEqual(
      inBase.sort(),
      readdirSync('deploy/base')
        .filter((name) => name !== 'kustomization.yaml')
        .sort(),
    );
  });

  it('grants exactly what the code asks the API server for', () => {
    const granted = parseAllDocuments(readFileSync('deploy/base/rbac.yaml', 'utf8'))
      .map((document) => document.toJS() as Tree)
      .filter(({ kind }) => text(kind) === 'ClusterRole')
      .flatMap(({ rules }) => list(rules!))
      .flatMap(({ apiGroups, resources, verbs }) => {
        assert.deepEqual(list(verbs!).map(text).sort(), ['list', 'watch']);
        return list(apiGroups!).flatMap((group) => list(resources!).map((name) => `${text(group)}/${text(name)}`));
      });
    const asked = new Set<string>();
    for (const path of filesUnder('src').filter((name) => name.endsWith('.ts'))) {
      const paths = readFileSync(path, 'utf8').matchAll(
        /['"`]\/apis?\/(?:([a-z0-9.]+\.[a-z0-9.]+)\/)?v1\/(?:namespaces\/\$\{[a-z]+\}\/)?([a-z]+)/g,
      );
      for (const [, group = '', resource] of paths) asked.add(`${group}/${resource}`);
    }
    // Asked for with kubeProxyIpvs.events alone, and granted by a component.
    assert.ok(asked.delete('events.k8s.io/events'));
    assert.deepEqual(granted.sort(), [...asked].sort());
  });

  it('grants the right to create Events, and no other, in a component of its own', () => {
    const [role, binding] = parseAllDocuments(readFileSync('deploy/components/events/rbac.yaml', 'utf8')).map(
      (document) => document.toJS() as Tree,
    );
    assert.deepEqual(role!.rules, [{ apiGroups: ['events.k8s.io'], resources: ['events'], verbs: ['create'] }]);
    assert.deepEqual(
      [binding!.roleRef!.name, list(binding!.subjects!)[0]!.name],
      [role!.metadata!.name, daemonSet.spec!.template!.spec!.serviceAccountName],
    );
    const events = /`kubeProxyIpvs\.events`/.exec(readFileSync('docs/configuration.md', 'utf8'));
    assert.ok(events !== null);
  });

  it('has a check before a migration that starts `migrate`, loads nothing and listens nowhere', async () => {
    const patches = read('deploy/components/check/kustomization.yaml').patches as unknown as Tree[];
    const { initContainers, containers } = (parse(text(patches[0]!.patch)) as Tree).spec!.template!.spec!;
    const [only] = list(containers!);
    assert.deepEqual(
      [initContainers, only!.ports, only!.livenessProbe, only!.readinessProbe, only!.startupProbe],
      [null, null, null, null, null],
    );
    assert.equal(only!.name, container.name);
    const args = list(only!.command!).map(text);
    const called: string[] = [];
    const handlers = new Proxy({} as CommandHandlers, {
      get: (_target, name) => () => (called.push(String(name)), Promise.resolve(0)),
    });
    const silent = { out: () => undefined, err: (message: string) => assert.fail(message) };
    assert.equal(await runCommandLine(args.slice(1), handlers, '1', silent), 0);
    assert.deepEqual(called, ['migrate']);
    for (const overlay of ['kubeadm-check', 'eks-check'])
      assert.deepEqual(read(`deploy/overlays/${overlay}/kustomization.yaml`).components, ['../../components/check']);
  });

  it('ships a configuration that our own loader takes without a warning', () => {
    const { data } = read('deploy/base/configmap.yaml');
    const { config, warnings } = loadConfigText(text(data!['config.conf']), 'configmap.yaml');
    assert.deepEqual(warnings, []);
    const mounts = list(container.volumeMounts!);
    const directory = text(mounts.find(({ name }) => text(name) === 'config')!.mountPath);
    assert.equal(config.kubeconfig, join(directory, 'kubeconfig.conf'));
    const kubeconfig = parse(text(data!['kubeconfig.conf'])) as Tree;
    assert.equal(
      text(list(kubeconfig.users!)[0]!.user!.tokenFile),
      '/var/run/secrets/kubernetes.io/serviceaccount/token',
    );
    for (const probe of [container.livenessProbe!, container.readinessProbe!]) {
      assert.equal(probe.httpGet!.port, config.healthzBindAddress?.port);
    }
    assert.deepEqual(
      [container.livenessProbe!, container.readinessProbe!].map(({ httpGet }) => text(httpGet!.path)),
      ['/livez', '/readyz'],
    );
  });

  it('starts the containers with arguments that our command line takes', async () => {
    const started: string[] = [];
    const handler = (name: string) => async (): Promise<number> => (started.push(name), 0);
    const handlers = {
      run: handler('run'),
      cleanup: handler('cleanup'),
      status: handler('status'),
      services: handler('services'),
      backends: handler('backends'),
      connections: handler('connections'),
      table: handler('table'),
      verify: handler('verify'),
      plan: handler('plan'),
      explain: handler('explain'),
      events: handler('events'),
      migrate: handler('migrate'),
      diag: handler('diag'),
      preflight: async ({ fix }: { fix: boolean }) => (started.push(`preflight fix=${fix}`), 0),
      configCheck: handler('config check'),
      configPrint: handler('config print'),
    };
    const silent = { out: () => undefined, err: (message: string) => assert.fail(message) };
    for (const { command } of [init, container]) {
      const [program, ...args] = list(command!).map(text);
      assert.equal(program, 'kube-proxy-ipvs');
      assert.equal(await runCommandLine(args, handlers, '1', silent), 0);
    }
    assert.deepEqual(started, ['preflight fix=true', 'run']);
  });

  it('gives the daemon time to start before liveness is asked for', () => {
    const { httpGet, periodSeconds, failureThreshold } = container.startupProbe!;
    assert.deepEqual(httpGet, container.livenessProbe!.httpGet);
    assert.ok(Number(periodSeconds) * Number(failureThreshold) >= 120);
  });

  it('mounts the token in the container that talks to the API server alone, and modules where they are loaded', () => {
    const mounts = ({ volumeMounts }: Tree): string[] => list(volumeMounts!).map(({ name }) => text(name));
    assert.equal(pod.automountServiceAccountToken, false);
    assert.deepEqual(mounts(init).sort(), ['config', 'lib-modules', 'xtables-lock']);
    assert.deepEqual(mounts(container).sort(), ['api-access', 'config', 'xtables-lock']);
    const access = list(pod.volumes!).find(({ name }) => text(name) === 'api-access')!;
    const paths = list(access.projected!.sources!).flatMap(({ serviceAccountToken, configMap, downwardAPI }) =>
      serviceAccountToken
        ? [serviceAccountToken.path]
        : list((configMap ?? downwardAPI)!.items!).map(({ path }) => path),
    );
    assert.deepEqual(paths, ['token', 'ca.crt', 'namespace']);
  });

  it("carries labels that no selector of kube-proxy's own DaemonSet matches", () => {
    const labels = daemonSet.spec!.template!.metadata!.labels!;
    assert.notEqual(labels['k8s-app'], 'kube-proxy');
    for (const [name, value] of Object.entries(daemonSet.spec!.selector!.matchLabels!))
      assert.equal(labels[name], value);
  });

  it('moves node by node with a selector and its exact opposite for kube-proxy', () => {
    const component = read('deploy/components/by-node/kustomization.yaml');
    const patched = parse(text(list(component.patches!)[0]!.patch)) as Tree;
    const [[key, value]] = Object.entries(patched.spec!.template!.spec!.nodeSelector!) as [[string, unknown]];
    for (const file of ['kube-proxy-patch.yaml', 'kube-proxy-patch-eks.yaml']) {
      const { spec } = read(`deploy/components/by-node/${file}`);
      const { nodeSelectorTerms } =
        spec!.template!.spec!.affinity!.nodeAffinity!.requiredDuringSchedulingIgnoredDuringExecution!;
      assert.equal(list(nodeSelectorTerms!).length, 1, 'terms are alternatives: a second one would let kube-proxy in');
      const expressions = list(list(nodeSelectorTerms!)[0]!.matchExpressions!);
      assert.deepEqual(expressions.at(-1), { key, operator: 'NotIn', values: [value] }, file);
    }
  });

  it('keeps off Fargate nodes on EKS, where a pod of a DaemonSet would stay pending', () => {
    const patches = list(read('deploy/overlays/eks/kustomization.yaml').patches!).map(({ patch }) => text(patch));
    const found = patches.some((patch) => /compute-type\n\s+operator: NotIn\n\s+values: \[fargate, auto\]/.test(patch));
    assert.ok(found);
  });

  it('runs the daemon with NET_ADMIN and NET_RAW alone', () => {
    const { capabilities, privileged, readOnlyRootFilesystem } = container.securityContext!;
    assert.deepEqual(capabilities, { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] });
    assert.equal(privileged, undefined);
    assert.equal(readOnlyRootFilesystem, true);
    assert.deepEqual(
      [pod.hostNetwork, pod.priorityClassName, pod.tolerations],
      [true, 'system-node-critical', [{ operator: 'Exists' }]],
    );
    const volumes = new Set(list(pod.volumes!).map(({ name }) => text(name)));
    for (const { volumeMounts } of [init, container]) {
      for (const { name } of list(volumeMounts!)) assert.ok(volumes.has(text(name)));
    }
  });
});

describe('monitoring', () => {
  const metrics = new Metrics({ version: '1.0.0' });
  metrics.close();
  const known = new Set(metrics.names());

  /** The metric names in a PromQL expression. */
  function namesIn(expression: string): string[] {
    return [...expression.matchAll(/\b((?:kubeproxy|rest_client|process|kubernetes)_[a-z0-9_]+)/g)].map(
      ([, name]) => name!,
    );
  }

  function assertKnown(expressions: readonly string[], source: string): void {
    for (const expression of expressions) {
      const names = namesIn(expression);
      assert.ok(names.length > 0, `${source}: no metric in ${expression}`);
      for (const name of names) {
        assert.ok(known.has(name) || known.has(name.replace(/_(bucket|sum|count)$/, '')), `${source}: unknown ${name}`);
      }
    }
  }

  it('alerts on metrics that exist, each with a severity and a summary', () => {
    const rules = list(list(read('deploy/monitoring/prometheus-rules.yaml').spec!.groups!)[0]!.rules!);
    const recorded = new Set(rules.flatMap(({ record }) => (record === undefined ? [] : [text(record)])));
    const expressions = rules.map(({ expr }) => text(expr));
    for (const name of expressions.flatMap((expr) => expr.match(/\bkubeproxy_ipvs:\w+/g) ?? []))
      assert.ok(recorded.has(name), `nothing records ${name}`);
    // Without up, which is Prometheus' own, and what is recorded.
    const ownNames = expressions.filter((expr) => !expr.startsWith('up{') && !/^\s*kubeproxy_ipvs:/.test(expr));
    assertKnown(
      ownNames
        .map((expr) => expr.replaceAll(/\bkubeproxy_ipvs:\w+/g, ''))
        .filter((expr) => expr.includes('kubeproxy_')),
      'alerts',
    );
    const alerts = rules.filter(({ alert }) => alert !== undefined);
    const names = alerts.map(({ alert }) => text(alert));
    assert.ok(names.length > 0);
    assert.equal(new Set(names).size, names.length);
    for (const { labels, annotations } of alerts) {
      assert.match(text(labels!.severity), /^(critical|warning|info)$/);
      assert.ok(text(annotations!.summary).length > 10);
    }
  });
});

describe('Dockerfile', () => {
  const dockerfile = readFileSync('Dockerfile', 'utf8');

  it('copies only what exists and what .dockerignore lets through', () => {
    const admitted = readFileSync('.dockerignore', 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('!'))
      .map((line) => line.slice(1));
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, sources]) =>
      sources!.split(' '),
    );
    assert.ok(copied.length >= 5);
    for (const path of copied) {
      assert.ok(existsSync(path), path);
      assert.ok(admitted.includes(path), `${path} is not in .dockerignore`);
    }
  });

  it('compiles with the headers of its own Node and ships no package manager', () => {
    const [build, image] = dockerfile.split(/^FROM /m).slice(1);
    assert.match(build!, /^ENV npm_config_nodedir=\/usr\/local$/m);
    assert.ok(build!.indexOf('npm_config_nodedir') < build!.indexOf('npm ci'));
    assert.match(image!, /^COPY --from=build \/usr\/local\/bin\/node \/usr\/local\/bin\/node$/m);
    assert.doesNotMatch(image!, /\bnpm\b/);
    for (const stage of [build!, image!]) assert.match(stage, /^\$\{(NODE|BASE)\}/, 'bases are arguments, for digests');
  });

  it('takes from node_modules exactly the addons that the bundle loads', async () => {
    const { ADDONS } = (await import(pathToFileURL('scripts/bundle-plugins.mjs').href)) as { ADDONS: string[] };
    const taken = [...dockerfile.matchAll(/^COPY --from=build \/src\/node_modules\/(\S+) \.\/node_modules\/(\S+)$/gm)];
    for (const [, from, to] of taken) assert.equal(from, to);
    assert.deepEqual(taken.map(([, from]) => from!).sort(), [...ADDONS].sort());
    for (const addon of ADDONS) assert.ok(existsSync(join('node_modules', addon)), addon);
  });
});
