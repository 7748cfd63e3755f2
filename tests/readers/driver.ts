// Reads lines of a JSON array of ids, looks them up in one table, and writes a line of JSON for each.
import { connect } from "net";
import { createInterface } from "readline";
import { Almanac } from "./almanac";

async function main(): Promise<void> {
  const reader = new Almanac(connect(Number(process.argv[2]), "127.0.0.1"));
  for await (const line of createInterface({ input: process.stdin })) {
    let said: string;
    try {
      const rows = await reader.lookUp(process.argv[3], JSON.parse(line));
      // JSON has no bigint: one is written in digits, which Python reads whole.
      const text = (value: unknown) => (typeof value === "bigint" ? String(value) : JSON.stringify(value));
      const row = (values: object) => `{${Object.entries(values).map(([k, v]) => `"${k}":${text(v)}`).join(",")}}`;
      said = `{"rows":[${rows.map((values) => (values ? row(values) : "null")).join(",")}]}`;
    } catch (error) {
      said = JSON.stringify({ refused: String(error) });
    }
    process.stdout.write(`${said}\n`);
  }
  process.exit();
}
main();
