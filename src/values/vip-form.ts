/**
 * How the node takes packets for VIPs in: `addresses` on kube-ipvs0, as kube-proxy does, or `routes`, one local route
 * for each, which the kernel adds and removes without going through all the others.
 */
export type VipForm = 'addresses' | 'routes';
export const VIP_FORMS: readonly VipForm[] = ['addresses', 'routes'];

/** The link that a VIP's address is on, or that its route names. */
export const VIP_LINKS: Readonly<Record<VipForm, string>> = { addresses: 'kube-ipvs0', routes: 'lo' };
