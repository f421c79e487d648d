import { type Versioned } from './versioned.js';

/**
 * The body of /configz as kube-proxy 1.36 answers it: the v1alpha1 object under its group's name. The block that only
 * this daemon knows is beside it under a name of its own, so that the object has kube-proxy's fields and no others.
 */
export function configz({ kubeProxyIpvs, ...kubeProxy }: Versioned): Versioned {
  return { 'kubeproxy.config.k8s.io': kubeProxy, kubeProxyIpvs };
}
