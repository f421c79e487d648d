#!/usr/bin/env node
/**
 * What the program nft sends for a rule set, and what the kernel then holds, as a fixture for the codec's
 * tests:
 *
 *   node scripts/record-nftables.mjs test/fixtures/netlink/nftables.nft > test/fixtures/netlink/nftables.json
 *
 * Needs root, nft, strace and a kernel with nf_tables; all happens in a network namespace of its own.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { basename, join } from 'node:path';

const [file] = process.argv.slice(2);
if (file === undefined) throw new Error('usage: record-nftables.mjs RULES.nft');
const directory = mkdtempSync(join(tmpdir(), 'record-nftables-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

const trace = (name, words) =>
  `strace -f -e trace=sendmsg,recvmsg -e read=3 -e write=3 -o ${join(directory, name)} nft ${words}`;
const script = `${trace('load', `-f ${file}`)} && ${trace('list', '-n list ruleset')}`;
const run = spawnSync('unshare', ['-n', 'sh', '-c', script], { encoding: 'utf8' });
if (run.status !== 0) throw new Error(run.stderr);

// The kernel's answers to nft's dumps of chains (3), rules (6) and sets (9) of nf_tables (subsystem 0x0a).
const held = datagrams('list').filter(([direction, hex]) => direction === '<' && /^(03|06|09)0a/.test(hex.slice(8)));
const recording = {
  description: `scripts/record-nftables.mjs ${basename(file)}: chains, sets and rules as the kernel holds them then`,
  kernel: release(),
  datagrams: held,
  text: run.stdout.trimEnd().split('\n'),
};
process.stdout.write(`${JSON.stringify(recording, undefined, 1)}\n`);

/**
 * strace prints ` * 44 bytes in buffer 0`, and then lines ` | 00010  00 01 ..  00 01 ..  text |`. What a program reads
 * otherwise has lines without that heading.
 */
function datagrams(name) {
  const found = [];
  let left = 0;
  for (const line of readFileSync(join(directory, name), 'utf8').split('\n')) {
    const [, call] = /^\d+ +(sendmsg|recvmsg)\(/.exec(line) ?? [];
    if (call !== undefined) found.push([call === 'sendmsg' ? '>' : '<', '']);
    const [, length, buffer] = /^ \* (\d+) bytes in buffer (\d+)/.exec(line) ?? [];
    const isNext = buffer !== '0' || found.at(-1)?.[1] === '';
    if (length !== undefined) left = isNext ? Number(length) : 0;
    const [, bytes] = /^ \| [0-9a-f]+ {2}((?:[0-9a-f]{2} {1,2}){1,16})/.exec(line) ?? [];
    if (bytes === undefined || left === 0) continue;
    const hex = bytes.replaceAll(' ', '');
    found.at(-1)[1] += hex;
    left -= hex.length / 2;
  }
  // A datagram that was only looked at (MSG_PEEK) is read again.
  return found.filter(([, hex], i) => hex !== '' && hex !== found[i + 1]?.[1]);
}
