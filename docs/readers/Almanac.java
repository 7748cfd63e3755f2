// Rows of an Almanac lookup table, by docs/lookup.md (formats 1 and 2); Java 17 or later.
import java.io.*;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.regex.*;
import java.util.zip.CRC32;
import static java.nio.charset.StandardCharsets.*;

/** Looks up over the streams of a socket with a timeout; after an IOException, make a new one. */
public final class Almanac {
    static final Pattern TOKEN = Pattern.compile("[\\[\\]{}]|\"([^\"\\\\]|\\\\.)*\"|[^\\s\\[\\]{}:,\"]+");
    private record Head(byte[] raw, Map<?, ?> json) {}
    private final Map<String, Head> seen = new HashMap<>();
    private final DataInputStream in;
    private final OutputStream out;
    public Almanac(InputStream in, OutputStream out) { this.in = new DataInputStream(in); this.out = out; }
    /** The rows in the order of the ids, all of one version; null where the version has none. */
    public synchronized List<Map<String, Object>> lookUp(String table, List<String> ids) throws IOException {
        for (int attempt = 0; attempt < 5; attempt++) {
            Head head = seen.get(table);
            List<List<String>> commands = new ArrayList<>();
            if (head != null) for (String id : ids) commands.add(command(table, head.json, id));
            commands.add(List.of("GET", "almanac:{" + table + "}:head"));
            List<byte[]> rows = send(commands);
            byte[] raw = rows.remove(rows.size() - 1);
            if (raw == null) throw new IllegalStateException(table + ": nothing is published");
            if (head != null && Arrays.equals(raw, head.raw)) {
                List<?> columns = (List<?>) head.json.get("columns");
                return rows.stream().map(row -> row == null ? null : decode(columns, row)).toList();
            }
            var tokens = TOKEN.matcher(new String(raw, UTF_8)).results().map(MatchResult::group).iterator();
            Map<?, ?> json = (Map<?, ?>) json(tokens.next(), tokens);
            if (json.get("format") instanceof String format && !format.matches("[12]"))
                throw new IllegalStateException(table + ": a newer format than this reader knows");
            seen.put(table, new Head(raw, json));
        }
        throw new IllegalStateException(table + ": the head moved five times");
    }
    /** The bulk strings that answer commands sent in one write; AUTH (null) can go this way too. */
    public synchronized List<byte[]> send(List<List<String>> commands) throws IOException {
        StringBuilder wire = new StringBuilder();
        for (List<String> parts : commands) {
            wire.append("*" + parts.size() + "\r\n");
            for (String part : parts) wire.append("$" + part.getBytes(UTF_8).length + "\r\n" + part + "\r\n");
        }
        out.write(wire.toString().getBytes(UTF_8));
        List<byte[]> replies = new ArrayList<>();
        while (replies.size() < commands.size()) {
            StringBuilder line = new StringBuilder();
            while (line.indexOf("\r\n") < 0) line.append((char) in.readByte());
            if (line.charAt(0) == '-') throw new IOException(line.toString());
            int size = line.charAt(0) == '$' ? Integer.parseInt(line.substring(1).trim()) : -1;
            byte[] bytes = new byte[Math.max(size, 0)];
            in.readFully(bytes);
            replies.add(size < 0 ? null : bytes);
            if (size >= 0) in.readShort();
        }
        return replies;
    }
    private static List<String> command(String table, Map<?, ?> head, String id) {
        String version = "almanac:" + table + ":" + head.get("version");
        if ("string".equals(head.get("layout"))) return List.of("GET", version + ":id:" + id);
        CRC32 crc = new CRC32();
        crc.update(id.getBytes(UTF_8));
        long buckets = Long.parseLong((String) head.get("buckets"));
        return List.of("HGET", version + ":" + crc.getValue() % buckets, id);
    }
    private static Object json(String token, Iterator<String> in) { // numbers are text; : and , no tokens
        if (token.startsWith("\"")) return token.substring(1, token.length() - 1).translateEscapes();
        if (!token.matches("[\\[{]")) return token;
        List<Object> items = new ArrayList<>();
        for (String next = in.next(); !next.matches("[\\]}]"); next = in.next()) items.add(json(next, in));
        if (token.equals("[")) return items;
        Map<Object, Object> pairs = new HashMap<>();
        for (int i = 0; i < items.size(); i += 2) pairs.put(items.get(i), items.get(i + 1));
        return pairs;
    }
    private static Map<String, Object> decode(List<?> columns, byte[] bytes) {
        ByteBuffer row = ByteBuffer.wrap(bytes);
        boolean fits = row.get() == (byte) (0x90 | columns.size());
        Map<String, Object> values = new LinkedHashMap<>();
        for (Object each : columns)
            if (each instanceof Map<?, ?> column) values.put((String) column.get("name"), value(column, row));
        if (!fits || row.hasRemaining()) throw new IllegalStateException("a damaged row");
        return values;
    }
    private static Object value(Map<?, ?> column, ByteBuffer row) {
        int tag = row.get() & 255;
        if (column.get("type").equals("enum"))
            return ((List<?>) column.get("values")).get(tag < 0x80 ? tag : sized(row, tag - 0xcc));
        if (tag == 0xc0) return null;
        if (column.get("type").equals("float64") && tag == 0xcb) return row.getDouble();
        if (column.get("type").equals("float32") && tag == 0xca) return row.getFloat();
        if (column.get("type").equals("int64") && tag == 0xd3) return row.getLong();
        if (!column.get("type").equals("string")) throw new IllegalStateException("a damaged row");
        int size = tag >= 0xa0 && tag < 0xc0 ? tag - 0xa0 : sized(row, tag - 0xd9);
        byte[] text = new byte[Math.min(size, row.capacity())]; // a size past the row's is refused below
        row.get(text);
        return new String(text, UTF_8);
    }
    private static int sized(ByteBuffer row, int power) {
        if (power < 0 || power > 2) throw new IllegalStateException("a damaged row");
        return power == 0 ? row.get() & 255 : power == 1 ? row.getShort() & 65535 : row.getInt();
    }
}
