// What Almanac.java needs of a Redis client, of JSON and of MessagePack, with the JDK alone.
import java.io.*;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.regex.*;
import static java.nio.charset.StandardCharsets.UTF_8;

final class Plain {
    private static final Pattern TOKEN =
        Pattern.compile("[\\[\\]{}]|\"([^\"\\\\]|\\\\.)*\"|[^\\s\\[\\]{}:,\"]+");
    private static final Pattern ESCAPE = Pattern.compile("\\\\(?:u([0-9a-fA-F]{4})|.)");
    private final DataInputStream in;
    private final OutputStream out;
    Plain(InputStream in, OutputStream out) { this.in = new DataInputStream(in); this.out = out; }
    /** The bulk strings that answer commands sent in one write; AUTH (null) can go this way too. */
    List<byte[]> send(List<List<String>> commands) throws IOException {
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
    /** Maps, lists and texts; numbers are text too. */
    static Object json(String text) {
        Iterator<String> tokens = TOKEN.matcher(text).results().map(MatchResult::group).iterator();
        return json(tokens.next(), tokens);
    }
    private static Object json(String token, Iterator<String> in) { // : and , are no tokens
        if (token.startsWith("\"")) return unescaped(token.substring(1, token.length() - 1));
        if (!token.matches("[\\[{]")) return token;
        List<Object> items = new ArrayList<>();
        for (String next = in.next(); !next.matches("[\\]}]"); next = in.next()) items.add(json(next, in));
        if (token.equals("[")) return items;
        Map<Object, Object> pairs = new HashMap<>();
        for (int i = 0; i < items.size(); i += 2) pairs.put(items.get(i), items.get(i + 1));
        return pairs;
    }
    private static String unescaped(String text) { // Java has the escapes of JSON, but for the two that stand here
        return ESCAPE.matcher(text).replaceAll(found -> Matcher.quoteReplacement(
            found.group(1) != null ? String.valueOf((char) Integer.parseInt(found.group(1), 16))
                : found.group().equals("\\/") ? "/" : found.group().translateEscapes()));
    }
    /** The next MessagePack value of a row, which must be of the column's type; an enum's is its index. */
    static Object value(String type, ByteBuffer row) {
        int tag = row.get() & 255;
        if (type.equals("enum")) return tag < 0x80 ? tag : sized(row, tag - 0xcc);
        if (tag == 0xc0) return null;
        if (type.equals("float64") && tag == 0xcb) return row.getDouble();
        if (type.equals("float32") && tag == 0xca) return row.getFloat();
        if (type.equals("int64") && tag == 0xd3) return row.getLong();
        if (!type.equals("string")) throw new IllegalStateException("a damaged row");
        int size = tag >= 0xa0 && tag < 0xc0 ? tag - 0xa0 : sized(row, tag - 0xd9);
        byte[] text = new byte[Math.min(size, row.capacity())]; // past it, the rest is refused
        row.get(text);
        return new String(text, UTF_8);
    }
    private static int sized(ByteBuffer row, int power) {
        if (power < 0 || power > 2) throw new IllegalStateException("a damaged row");
        return power == 0 ? row.get() & 255 : power == 1 ? row.getShort() & 65535 : row.getInt();
    }
}
