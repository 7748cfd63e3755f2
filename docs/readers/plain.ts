// What almanac.ts needs of a Redis client, with Node alone.
import { once } from "events";
import { Socket } from "net";

export class Plain {
  private received: Buffer = Buffer.alloc(0);
  constructor(private socket: Socket) { socket.on("error", () => socket.destroy()); }
  /** The bulk strings that answer commands sent in one write; AUTH (null) can go this way too. */
  async send(commands: string[][]): Promise<(Buffer | null)[]> {
    const bulk = (text: string) => `$${Buffer.byteLength(text)}\r\n${text}\r\n`, replies = [];
    this.socket.write(commands.map((parts) => `*${parts.length}\r\n${parts.map(bulk).join("")}`).join(""));
    while (replies.length < commands.length) {
      const line = String(await this.take(() => this.received.indexOf("\r\n") + 2));
      if (line[0] === "-") throw this.socket.destroy() && new Error(line);
      const size = line[0] === "$" ? parseInt(line.slice(1)) : -1;
      replies.push(size < 0 ? null : (await this.take(() => size + 2)).subarray(0, size));
    }
    return replies;
  }
  private async take(size: () => number): Promise<Buffer> {
    while (!size() || this.received.length < size()) {
      const more: Buffer | null = this.socket.read();
      if (more) this.received = Buffer.concat([this.received, more]);
      else await once(this.socket, "readable", { signal: AbortSignal.timeout(1000) });
    }
    const taken = this.received.subarray(0, size());
    this.received = this.received.subarray(taken.length);
    return taken;
  }
}
