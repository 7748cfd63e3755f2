// What docs/readers/almanac.ts and the driver use of Node, where @types/node is not installed.
interface Buffer extends Uint8Array {
  equals(other: Uint8Array): boolean;
  subarray(start?: number, end?: number): Buffer;
  indexOf(text: string | number, from?: number): number;
  toString(encoding?: string, start?: number, end?: number): string;
  readUIntBE(at: number, size: number): number;
  readDoubleBE(at?: number): number;
  readFloatBE(at?: number): number;
  readBigInt64BE(at?: number): bigint;
}
declare const Buffer: {
  alloc(size: number): Buffer;
  from(text: string): Buffer;
  concat(parts: Uint8Array[]): Buffer;
  byteLength(text: string): number;
};
declare const AbortSignal: { timeout(milliseconds: number): unknown };
declare const process: { argv: string[]; stdin: unknown; stdout: { write(text: string): void }; exit(): never };
declare module "events" {
  export function once(emitter: unknown, event: string, options?: { signal: unknown }): Promise<unknown[]>;
}
declare module "net" {
  export interface Socket {
    on(event: string, listener: () => void): this;
    read(): Buffer | null;
    write(text: string): boolean;
    destroy(): this;
  }
  export function connect(port: number, host: string): Socket;
}
declare module "readline" {
  export function createInterface(options: { input: unknown }): AsyncIterable<string>;
}
