/** Every condition and every effect of a rule of ours, in the words that `explain` prints. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRule } from '../../../src/plan/walk/rule-parse.js';
import { ruleInWords } from '../../../src/plan/walk/rule-words.js';

const REST = 'the rest of this chain does not concern it';

for (const [rule, words] of [
  ['-p tcp -j ACCEPT', 'it is TCP: accepted, the table has no more to say'],
  ['! -p tcp -j ACCEPT', 'it is not TCP: accepted, the table has no more to say'],
  ['-s 10.0.0.0/8 -j RETURN', `it comes from 10.0.0.0/8: ${REST}`],
  ['! -s fd00::/8 -j RETURN', `it comes from outside of fd00::/8: ${REST}`],
  ['-d 10.0.0.0/8 -j RETURN', `it goes to 10.0.0.0/8: ${REST}`],
  ['-i lo -j DROP', 'it comes in by lo: dropped without a word'],
  ['-i cali+ -j DROP', 'it comes in by cali...: dropped without a word'],
  ['-m addrtype --src-type LOCAL -j RETURN', `it comes from an address of this node: ${REST}`],
  ['-m addrtype --dst-type LOCAL -j RETURN', `it goes to an address of this node: ${REST}`],
  [
    '-p tcp -m tcp --dport 1 -j REJECT --reject-with tcp-reset',
    'it is TCP, it goes to port 1: refused with a TCP reset',
  ],
  [
    '-m mark --mark 0x4000/0x4000 -j MASQUERADE',
    'it bears the masquerade mark: its source becomes an address of this node',
  ],
  ['-m mark ! --mark 0x4000/0x4000 -j RETURN', `it does not bear the masquerade mark: ${REST}`],
  [
    '-m conntrack --ctstate NEW -j REJECT --reject-with icmp-port-unreachable',
    'it opens a connection: refused with "port unreachable"',
  ],
  ['-m conntrack --ctstate DNAT -j DROP', 'it was sent there by a rule: dropped without a word'],
  ['-m conntrack ! --ctstate DNAT -j DROP', 'it opens a connection: dropped without a word'],
  [
    '-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DNAT --to-destination :1',
    'it is TCP, it opens a connection: sent to port 1, where it is reset at once',
  ],
  ['-p icmp -m icmp --icmp-type 8 -j RETURN', `it is ICMP, it is an echo request: ${REST}`],
  ['-p ipv6-icmp -m icmp6 --icmpv6-type 128 -j RETURN', `it is IPV6-ICMP, it is an echo request: ${REST}`],
  ['-j MARK --set-xmark 0x4000/0x4000', 'marked for masquerading'],
  ['-j MARK --set-xmark 0x4000/0x0', 'the mark is taken off'],
  ['-m set --match-set KUBE-IPVS-IPS dst -j DROP', 'its destination is a VIP: dropped without a word'],
  ['-m set ! --match-set KUBE-6-IPVS-IPS src -j DROP', 'its source is no VIP: dropped without a word'],
  [
    '-m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ',
    'this is the cluster IP and port of a Service: goes on in KUBE-MARK-MASQ',
  ],
  ['-m set ! --match-set KUBE-6-LOOP-BACK dst,dst,src -j RETURN', `the backend is not the client: ${REST}`],
  ['-m set --match-set KUBE-UNHEARD-OF dst,dst -j RETURN', `KUBE-UNHEARD-OF holds it: ${REST}`],
  ['-m set ! --match-set KUBE-UNHEARD-OF dst,dst -j RETURN', `KUBE-UNHEARD-OF lacks it: ${REST}`],
] as const)
  test(rule, () => assert.equal(ruleInWords(parseRule(rule)), words));
