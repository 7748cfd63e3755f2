// Rows of an Almanac lookup table, by docs/lookup.md (formats 1 and 2); Node 18 or later.
// plain.ts stands in for a Redis client: use the one that you have.
import { Socket } from "net";
import { Plain } from "./plain";

type Row = Record<string, number | bigint | string | null>; // an int64 is a bigint
type Column = { name: string; type: string; values: string[] };
type Head = { raw: Buffer; version: number; layout?: string; buckets: number; columns: Column[] };
const crcOf = (crc: number, byte: number) =>
  [...Array(8)].reduce((c) => (c >>> 1) ^ (c & 1 ? 0xedb88320 : 0), crc ^ byte);
/** Looks up over one connection, one request after the other. After an error, make a new one. */
export class Almanac {
  private seen: Record<string, Head> = {};
  readonly redis: Plain; // AUTH goes this way too
  constructor(socket: Socket) { this.redis = new Plain(socket); }
  /** The rows in the order of the ids, all of one version; null where the version has none. */
  async lookUp(table: string, ids: string[]): Promise<(Row | null)[]> {
    for (let attempt = 0; attempt < 5; attempt++) {
      const head = this.seen[table], key = `almanac:${table}:${head?.version}`;
      const command = (id: string) => head.layout === "string" ? ["GET", `${key}:id:${id}`]
        : ["HGET", `${key}:${(~Buffer.from(id).reduce(crcOf, -1) >>> 0) % head.buckets}`, id];
      const asked = head ? ids.map(command) : [];
      const rows = await this.redis.send([...asked, ["GET", `almanac:{${table}}:head`]]);
      const raw = rows.pop();
      if (!raw) throw new Error(`${table}: nothing is published`);
      if (head && raw.equals(head.raw)) return rows.map((row) => row && decode(head.columns, row));
      const { format = 1, ...moved } = JSON.parse(raw.toString());
      if (!(format <= 2)) throw new Error(`${table}: a newer format than this reader knows`);
      this.seen[table] = { ...moved, raw };
    }
    throw new Error(`${table}: the head moved five times`);
  }
}
function decode(columns: Column[], row: Buffer): Row {
  let at = 1;
  const take = (size: number) => row.subarray(at, (at += size));
  const sized = (power: number) => take(2 ** power).readUIntBE(0, 2 ** power); // throws but for 0, 1 and 2
  const entries = columns.map(({ name, type, values }) => {
    const tag = take(1)[0];
    if (type === "enum") return [name, values[tag < 0x80 ? tag : sized(tag - 0xcc)]];
    if (type === "float64" && tag === 0xcb) return [name, take(8).readDoubleBE()];
    if (type === "float32" && tag === 0xca) return [name, take(4).readFloatBE()];
    if (type === "int64" && tag === 0xd3) return [name, take(8).readBigInt64BE()];
    if (type !== "string" || tag === 0xc0) return [name, tag === 0xc0 ? null : undefined];
    return [name, String(take(tag >= 0xa0 && tag < 0xc0 ? tag - 0xa0 : sized(tag - 0xd9)))];
  });
  const fits = row[0] === (0x90 | columns.length) && at === row.length;
  if (fits && entries.every(([, value]) => value !== undefined)) return Object.fromEntries(entries);
  throw new Error("a damaged row");
}
