import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.Socket;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

import static java.nio.charset.StandardCharsets.UTF_8;

/** Reads lines of ids (separated by tabs), looks them up in one table, and writes a line of JSON for each. */
final class Driver {
    public static void main(String[] arguments) throws IOException {
        Socket socket = new Socket("127.0.0.1", Integer.parseInt(arguments[0]));
        socket.setSoTimeout(1000);
        Almanac reader = new Almanac(socket.getInputStream(), socket.getOutputStream());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        PrintStream out = new PrintStream(System.out, true, UTF_8);
        for (String line; (line = lines.readLine()) != null;) {
            try {
                List<Map<String, Object>> rows = reader.lookUp(arguments[1], List.of(line.split("\t")));
                out.println("{\"rows\":[" + rows.stream().map(Driver::row).collect(Collectors.joining(",")) + "]}");
            } catch (IOException | RuntimeException error) {
                out.println("{\"refused\":" + text(error.toString()) + "}");
            }
        }
    }

    private static String row(Map<String, Object> row) {
        if (row == null) return "null";
        return row.entrySet().stream().map(each -> text(each.getKey()) + ":" + text(each.getValue()))
            .collect(Collectors.joining(",", "{", "}"));
    }

    private static String text(Object value) {
        if (!(value instanceof String)) return String.valueOf(value);
        return "\"" + ((String) value).replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    }
}
