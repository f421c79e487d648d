/**
 * Expressions of nf_tables rules as attributes: NFTA_EXPR_NAME and a nested NFTA_EXPR_DATA with the fields that the
 * layouts below name. What the kernel adds when it is asked (counters, defaults, the upper end of a range that is one
 * value) is left out when reading, so that what is written and what is read back can be compared.
 */
import { AttributeReader } from '../../netlink/attribute-reader.js';
import { type MessageWriter, NLA_F_NESTED } from '../../netlink/attribute-writer.js';
import { NetlinkProtocolError } from '../../netlink/errors.js';
import { type NftExpression } from '../../values/nftables.js';

// enum nft_expr_attributes, nft_data_attributes, nft_verdict_attributes, nft_immediate_attributes
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
export const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;
const NFTA_VERDICT_CHAIN = 2;
const NFTA_IMMEDIATE_DREG = 1;
const NFTA_IMMEDIATE_DATA = 2;
const NFT_REG_VERDICT = 0;
const NFT_REG_1 = 1;
const NFT_REG32_00 = 8;
/** NF_NAT_RANGE_MAP_IPS and PROTO_SPECIFIED: what the registers say already. */
const IMPLIED_NAT_FLAGS = 3;

/** `flags`: a number that is not written when it is 0, and 0 when it is not there. `ignored`: read over. */
type FieldKind = 'u8' | 'u32' | 'flags' | 'register' | 'data' | 'text' | 'ignored';

interface Field {
  readonly attribute: number;
  readonly name: string;
  readonly kind: FieldKind;
}

const field = (attribute: number, name: string, kind: FieldKind): Field => ({ attribute, name, kind });
const ignored = (attribute: number): Field => ({ attribute, name: '', kind: 'ignored' });

/** In the order in which `nft` writes them. */
const LAYOUTS: ReadonlyMap<string, readonly Field[]> = new Map(
  Object.entries({
    payload: [
      field(1, 'register', 'register'),
      field(2, 'base', 'u32'),
      field(3, 'offset', 'u32'),
      field(4, 'length', 'u32'),
    ],
    meta: [field(2, 'key', 'u32'), field(1, 'register', 'register'), field(3, 'source', 'register')],
    ct: [field(2, 'key', 'u32'), field(1, 'register', 'register')],
    fib: [field(3, 'flags', 'u32'), field(2, 'result', 'u32'), field(1, 'register', 'register')],
    cmp: [field(1, 'source', 'register'), field(2, 'operator', 'u32'), field(3, 'data', 'data')],
    bitwise: [
      field(1, 'source', 'register'),
      field(2, 'register', 'register'),
      field(6, 'operation', 'flags'),
      field(3, 'length', 'u32'),
      field(4, 'mask', 'data'),
      field(5, 'xor', 'data'),
    ],
    lookup: [field(2, 'source', 'register'), field(1, 'set', 'text'), field(5, 'flags', 'flags')],
    immediate: [field(NFTA_IMMEDIATE_DREG, 'register', 'register'), field(NFTA_IMMEDIATE_DATA, 'data', 'data')],
    counter: [ignored(1), ignored(2)],
    reject: [field(1, 'type', 'u32'), field(2, 'code', 'u8')],
    nat: [
      field(1, 'type', 'u32'),
      field(2, 'family', 'u32'),
      field(3, 'address', 'register'),
      field(4, 'lastAddress', 'register'),
      field(5, 'port', 'register'),
      field(6, 'lastPort', 'register'),
      field(7, 'flags', 'flags'),
    ],
    masq: [field(1, 'flags', 'flags')],
  }),
);

type Fields = Record<string, number | string | undefined>;

/** Writes one expression as a list element of `attribute`. Throws NetlinkProtocolError for one of no known name. */
export function writeExpression(writer: MessageWriter, attribute: number, expression: NftExpression): void {
  const element = writer.beginNested(attribute | NLA_F_NESTED);
  if (expression.name === 'verdict') writeVerdict(writer, expression);
  else {
    const layout = LAYOUTS.get(expression.name);
    if (layout === undefined) throw new NetlinkProtocolError(`no nf_tables expression ${expression.name}`);
    writer.string(NFTA_EXPR_NAME, expression.name);
    const data = writer.beginNested(NFTA_EXPR_DATA | NLA_F_NESTED);
    for (const one of layout) writeField(writer, one, (expression as unknown as Fields)[one.name]);
    writer.endNested(data);
  }
  writer.endNested(element);
}

function writeField(writer: MessageWriter, { attribute, kind }: Field, value: number | string | undefined): void {
  if (value === undefined || kind === 'ignored' || (kind === 'flags' && value === 0)) return;
  if (kind === 'text') writer.string(attribute, value as string);
  else if (kind === 'data') writeData(writer, attribute, value as string);
  else if (kind === 'register') writer.u32be(attribute, registerNumber(value as number));
  else if (kind === 'u8') writer.u8(attribute, value as number);
  else writer.u32be(attribute, value as number);
}

/** A nested value, as registers and keys of sets are given. */
export function writeData(writer: MessageWriter, attribute: number, value: string): void {
  const nested = writer.beginNested(attribute | NLA_F_NESTED);
  writer.packed(NFTA_DATA_VALUE, value);
  writer.endNested(nested);
}

/** A verdict is an immediate value of the verdict's register. */
function writeVerdict(writer: MessageWriter, verdict: NftExpression & { readonly name: 'verdict' }): void {
  writer.string(NFTA_EXPR_NAME, 'immediate');
  const data = writer.beginNested(NFTA_EXPR_DATA | NLA_F_NESTED);
  writer.u32be(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
  const value = writer.beginNested(NFTA_IMMEDIATE_DATA | NLA_F_NESTED);
  const nested = writer.beginNested(NFTA_DATA_VERDICT | NLA_F_NESTED);
  writer.u32be(NFTA_VERDICT_CODE, verdict.code);
  if (verdict.chain !== undefined) writer.string(NFTA_VERDICT_CHAIN, verdict.chain);
  writer.endNested(nested);
  writer.endNested(value);
  writer.endNested(data);
}

/** NFT_REG_1 to 4 are of 16 bytes, NFT_REG32_00 to 15 the same in words; the kernel says the former where it can. */
function registerNumber(word: number): number {
  return word % 4 === 0 ? NFT_REG_1 + word / 4 : NFT_REG32_00 + word;
}

function registerWord(number: number): number {
  return number >= NFT_REG32_00 ? number - NFT_REG32_00 : (number - NFT_REG_1) * 4;
}

/** Reads expressions out of list elements. */
export class ExpressionReader {
  readonly #element = new AttributeReader();
  readonly #data = new AttributeReader();
  readonly #value = new AttributeReader();
  readonly #verdict = new AttributeReader();

  /** The expression in the list element at which `list` stands. Throws NetlinkProtocolError when it is malformed. */
  read(list: AttributeReader): NftExpression {
    const element = this.#element.enter(list);
    let name = '';
    let found: NftExpression | undefined;
    while (element.next()) {
      if (element.type === NFTA_EXPR_NAME) name = element.string();
      else if (element.type === NFTA_EXPR_DATA) found = this.#fields(name, element);
    }
    return found ?? { name: 'foreign', text: name };
  }

  #fields(name: string, element: AttributeReader): NftExpression {
    const layout = LAYOUTS.get(name);
    const fields: Fields = {};
    const data = this.#data.enter(element);
    while (layout !== undefined && data.next()) {
      const one = layout.find(({ attribute }) => attribute === data.type);
      if (one === undefined) return foreign(name, element);
      if (name === 'immediate' && one.kind === 'data') {
        const verdict = this.#verdictOf(data);
        if (verdict !== undefined) return verdict;
      }
      const value = this.#field(one, data);
      if (value !== undefined) fields[one.name] = value;
    }
    if (layout === undefined) return foreign(name, element);
    return { name, ...(name === 'nat' ? normalNat(fields) : fields) } as unknown as NftExpression;
  }

  #field({ kind }: Field, data: AttributeReader): number | string | undefined {
    if (kind === 'ignored') return undefined;
    if (kind === 'text') return data.string();
    if (kind === 'u8') return data.u8();
    if (kind === 'data') return this.dataValue(data);
    const value = data.u32be();
    if (kind === 'register') return registerWord(value);
    return kind === 'flags' && value === 0 ? undefined : value;
  }

  /** The nested value at which `outer` stands. */
  dataValue(outer: AttributeReader): string {
    const value = this.#value.enter(outer);
    while (value.next())
      if (value.type === NFTA_DATA_VALUE) return value.buffer.toString('latin1', value.start, value.end);
    return '';
  }

  #verdictOf(outer: AttributeReader): NftExpression | undefined {
    const value = this.#value.enter(outer);
    while (value.next()) {
      if (value.type !== NFTA_DATA_VERDICT) continue;
      const verdict = this.#verdict.enter(value);
      let code = 0;
      let chain: string | undefined;
      while (verdict.next()) {
        if (verdict.type === NFTA_VERDICT_CODE) code = verdict.u32be() | 0;
        else if (verdict.type === NFTA_VERDICT_CHAIN) chain = verdict.string();
      }
      return chain === undefined ? { name: 'verdict', code } : { name: 'verdict', code, chain };
    }
    return undefined;
  }
}

function foreign(name: string, { buffer, start, end }: AttributeReader): NftExpression {
  return { name: 'foreign', text: `${name} ${buffer.toString('hex', start, end)}` };
}

/** The kernel names the last address or port also where it is the first. */
function normalNat({ lastAddress, lastPort, flags, ...nat }: Fields): Fields {
  if (lastAddress !== nat.address) nat.lastAddress = lastAddress;
  if (lastPort !== nat.port) nat.lastPort = lastPort;
  const rest = (flags as number | undefined) ?? 0;
  return (rest & ~IMPLIED_NAT_FLAGS) === 0 ? nat : { ...nat, flags: rest };
}
