// Rows of an Almanac lookup table, by docs/lookup.md (formats 1 and 2); Java 17 or later.
import java.io.*;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.regex.*;
import java.util.zip.CRC32;
import static java.nio.charset.StandardCharsets.*;

/** Looks up over the streams of a socket with a timeout. After an IOException, make a new one; others are refusals. */
public final class Almanac {
    private record Head(byte[] raw, Map<?, ?> json) {}
    private static final Pattern TOKEN = Pattern.compile("[\\[\\]{}]|\"(?:[^\"\\\\]|\\\\.)*\"|[^\\s\\[\\]{}:,\"]+");
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
            if (raw == null) throw new NoSuchElementException(table + ": nothing is published");
            if (head != null && Arrays.equals(raw, head.raw)) {
                List<Map<String, Object>> found = new ArrayList<>();
                for (byte[] row : rows) found.add(row == null ? null : decode((List<?>) head.json.get("columns"), row));
                return found;
            }
            Iterator<String> tokens = TOKEN.matcher(new String(raw, UTF_8)).results().map(MatchResult::group).iterator();
            head = new Head(raw, (Map<?, ?>) json(tokens, tokens.next()));
            Object format = head.json.get("format");
            if (format != null && !List.of("1", "2").contains(format)) throw new IllegalStateException("a newer format");
            seen.put(table, head);
        }
        throw new IllegalStateException(table + ": the head moved five times");
    }
    /** The bulk strings that commands, sent in one write, are answered with; AUTH (null) can go this way too. */
    public synchronized List<byte[]> send(List<List<String>> commands) throws IOException {
        ByteArrayOutputStream wire = new ByteArrayOutputStream();
        for (List<String> parts : commands) {
            wire.writeBytes(("*" + parts.size() + "\r\n").getBytes(UTF_8));
            for (String part : parts) wire.writeBytes(("$" + part.getBytes(UTF_8).length + "\r\n" + part + "\r\n").getBytes(UTF_8));
        }
        wire.writeTo(out);
        List<byte[]> replies = new ArrayList<>();
        while (replies.size() < commands.size()) {
            StringBuilder line = new StringBuilder();
            while (line.indexOf("\r\n") < 0) line.append((char) in.readByte());
            if (line.charAt(0) == '-') throw new IOException(line.toString());
            int size = line.charAt(0) == '$' ? Integer.parseInt(line.substring(1).trim()) : -1;
            replies.add(size < 0 ? null : Arrays.copyOf(in.readNBytes(size + 2), size));
        }
        return replies;
    }
    private static List<String> command(String table, Map<?, ?> head, String id) {
        String version = "almanac:" + table + ":" + head.get("version");
        if ("string".equals(head.get("layout"))) return List.of("GET", version + ":id:" + id);
        CRC32 crc = new CRC32();
        crc.update(id.getBytes(UTF_8));
        return List.of("HGET", version + ":" + crc.getValue() % Long.parseLong((String) head.get("buckets")), id);
    }
    private static Object json(Iterator<String> in, String token) { // numbers as text; colons and commas are no tokens
        if (token.startsWith("\"")) return token.substring(1, token.length() - 1).translateEscapes();
        if (!token.matches("[\\[{]")) return token;
        List<Object> items = new ArrayList<>();
        for (String next = in.next(); !next.matches("[\\]}]"); next = in.next()) items.add(json(in, next));
        if (token.equals("[")) return items;
        Map<Object, Object> pairs = new HashMap<>();
        for (int i = 0; i < items.size(); i += 2) pairs.put(items.get(i), items.get(i + 1));
        return pairs;
    }
    private static Map<String, Object> decode(List<?> columns, byte[] bytes) {
        ByteBuffer row = ByteBuffer.wrap(bytes);
        boolean fits = row.get() == (byte) (0x90 | columns.size());
        Map<String, Object> values = new LinkedHashMap<>();
        for (Object column : columns) values.put((String) ((Map<?, ?>) column).get("name"), value((Map<?, ?>) column, row));
        if (!fits || row.hasRemaining()) throw new IllegalStateException("a damaged row");
        return values;
    }
    private static Object value(Map<?, ?> column, ByteBuffer row) {
        String type = (String) column.get("type");
        int tag = row.get() & 255;
        if (type.equals("enum")) return ((List<?>) column.get("values")).get(tag < 0x80 ? tag : sized(row, tag - 0xcc));
        if (tag == 0xc0) return null;
        if (type.equals("float64") && tag == 0xcb) return row.getDouble();
        if (type.equals("float32") && tag == 0xca) return row.getFloat();
        if (type.equals("int64") && tag == 0xd3) return row.getLong();
        if (!type.equals("string")) throw new IllegalStateException("a damaged row");
        byte[] text = new byte[Math.min(row.capacity(), tag >= 0xa0 && tag < 0xc0 ? tag - 0xa0 : sized(row, tag - 0xd9))];
        row.get(text);
        return new String(text, UTF_8);
    }
    private static int sized(ByteBuffer row, int power) {
        if (power < 0 || power > 2) throw new IllegalStateException("a damaged row");
        return power == 0 ? row.get() & 255 : power == 1 ? row.getShort() & 65535 : row.getInt();
    }
}
