// Rows of an Almanac lookup table, by docs/lookup.md (formats 1 and 2); Java 17 or later.
// Plain.java stands in for a Redis client, a JSON and a MessagePack library: use those that you have.
import java.io.*;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.zip.CRC32;
import static java.nio.charset.StandardCharsets.UTF_8;

/** Looks up over the streams of a socket with a timeout; after an IOException, make a new one. */
public final class Almanac {
    private record Head(byte[] raw, Map<?, ?> json) {}
    private final Map<String, Head> seen = new HashMap<>();
    final Plain redis; // AUTH goes this way too
    public Almanac(InputStream in, OutputStream out) { redis = new Plain(in, out); }
    /** The rows in the order of the ids, all of one version; null where the version has none. */
    public synchronized List<Map<String, Object>> lookUp(String table, List<String> ids) throws IOException {
        for (int attempt = 0; attempt < 5; attempt++) {
            Head head = seen.get(table);
            List<List<String>> commands = new ArrayList<>();
            if (head != null) for (String id : ids) commands.add(command(table, head.json, id));
            commands.add(List.of("GET", "almanac:{" + table + "}:head"));
            List<byte[]> rows = redis.send(commands);
            byte[] raw = rows.remove(rows.size() - 1);
            if (raw == null) throw new IllegalStateException(table + ": nothing is published");
            if (head != null && Arrays.equals(raw, head.raw)) {
                List<?> columns = (List<?>) head.json.get("columns");
                return rows.stream().map(row -> row == null ? null : decode(columns, row)).toList();
            }
            Map<?, ?> json = (Map<?, ?>) Plain.json(new String(raw, UTF_8));
            if (json.get("format") instanceof String format && !format.matches("[12]"))
                throw new IllegalStateException(table + ": a newer format than this reader knows");
            seen.put(table, new Head(raw, json));
        }
        throw new IllegalStateException(table + ": the head moved five times");
    }
    private static List<String> command(String table, Map<?, ?> head, String id) {
        String version = "almanac:" + table + ":" + head.get("version");
        if ("string".equals(head.get("layout"))) return List.of("GET", version + ":id:" + id);
        CRC32 crc = new CRC32();
        crc.update(id.getBytes(UTF_8));
        long buckets = Long.parseLong((String) head.get("buckets"));
        return List.of("HGET", version + ":" + crc.getValue() % buckets, id);
    }
    private static Map<String, Object> decode(List<?> columns, byte[] bytes) {
        ByteBuffer row = ByteBuffer.wrap(bytes);
        boolean fits = row.get() == (byte) (0x90 | columns.size());
        Map<String, Object> values = new LinkedHashMap<>();
        for (Object each : columns) {
            Map<?, ?> column = (Map<?, ?>) each;
            Object value = Plain.value((String) column.get("type"), row);
            if (column.get("type").equals("enum")) value = ((List<?>) column.get("values")).get((int) value);
            values.put((String) column.get("name"), value);
        }
        if (!fits || row.hasRemaining()) throw new IllegalStateException("a damaged row");
        return values;
    }
}
