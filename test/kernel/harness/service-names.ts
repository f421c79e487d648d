/** Puts Service names beside the lines of `ipvsadm -Ln`, from the manifests alone (none of the product's code). */
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';

interface ServiceObject {
  readonly kind?: string;
  readonly metadata: { readonly namespace?: string; readonly name: string };
  readonly spec: {
    readonly clusterIPs?: readonly string[];
    readonly externalIPs?: readonly string[];
    readonly ports?: readonly { name?: string; protocol?: string; port: number; nodePort?: number }[];
  };
  readonly status?: { readonly loadBalancer?: { readonly ingress?: readonly { ip?: string }[] } };
}

/** `TCP 10.96.0.20:80` -> `shop/web:http` for every address and port of every Service in the directory's YAML files. */
export async function serviceNames(
  directory: string,
  nodeAddresses: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const names = new Map<string, string>();
  for (const file of (await readdir(directory)).filter((name) => name.endsWith('.yaml'))) {
    for (const document of parseAllDocuments(await readFile(join(directory, file), 'utf8'))) {
      const object = document.toJS() as ServiceObject | null;
      if (object?.kind === 'Service') addNames(names, object, nodeAddresses);
    }
  }
  return names;
}

function addNames(names: Map<string, string>, service: ServiceObject, nodeAddresses: readonly string[]): void {
  const { clusterIPs = [], externalIPs = [], ports = [] } = service.spec;
  const ingress = service.status?.loadBalancer?.ingress ?? [];
  for (const { name, protocol = 'TCP', port, nodePort } of ports) {
    const label = `${service.metadata.namespace ?? 'default'}/${service.metadata.name}${name === undefined ? '' : `:${name}`}`;
    const add = (address: string, number: number, kind: string): void => {
      const host = address.includes(':') ? `[${address}]` : address;
      names.set(`${protocol} ${host}:${number}`, `${label}${kind}`);
    };
    for (const address of clusterIPs) add(address, port, '');
    for (const address of externalIPs) add(address, port, ' (external IP)');
    for (const { ip } of ingress) if (ip !== undefined) add(ip, port, ' (load balancer)');
    if (nodePort !== undefined) for (const address of nodeAddresses) add(address, nodePort, ' (node port)');
  }
}

/** The table's lines with the names at the end; with a filter only virtual servers whose name begins so. */
export function annotateTable(table: string, names: ReadonlyMap<string, string>, filter = ''): string[] {
  const lines: string[] = [];
  let isShown = filter === '';
  for (const line of table.trimEnd().split('\n')) {
    const server = /^(TCP|UDP|SCTP) +(\S+)/.exec(line);
    if (server === null) {
      if (isShown) lines.push(line);
      continue;
    }
    const name = names.get(`${server[1]} ${server[2]}`) ?? '?';
    isShown = name.startsWith(filter);
    if (isShown) lines.push(`${line.trimEnd().padEnd(72)} # ${name}`);
  }
  return lines;
}
