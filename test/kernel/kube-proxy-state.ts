/** What kube-proxy 1.36 leaves on a node when it ends, as it was recorded (test/fixtures/kube-proxy-1.36). */
import { shell } from './harness/kernel-state.js';
import { FIXTURES, fixtureLines } from './reliability-rig.js';

const RECORDED = `${FIXTURES}kube-proxy-1.36/`;

/** Puts its addresses, sets, IPVS table and rules into the kernel, whose modules are loaded. */
export async function restoreKubeProxyState(): Promise<void> {
  const addresses = fixtureLines('kube-proxy-1.36/kube-ipvs0.txt').map(addAddress);
  await shell(`
    ip link show kube-ipvs0 >/dev/null 2>&1 || ip link add kube-ipvs0 type dummy
    ip -batch - <<'END'\n${addresses.join('\n')}\nEND
    cat ${RECORDED}ipset-create.txt ${RECORDED}ipset-add.txt | ipset restore
    ipvsadm -R < ${RECORDED}ipvs.txt
    $IPTABLES-restore --noflush < ${RECORDED}iptables.txt
    $IP6TABLES-restore --noflush < ${RECORDED}ip6tables.txt`);
}

function addAddress(line: string): string {
  return `addr add ${line.split(' ')[1]} dev kube-ipvs0${line.startsWith('inet6') ? ' nodad' : ''}`;
}
