import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.zookeeper.common.PathUtils;

/**
 * What Apache's PathUtils says of paths: the table that src/coordination/tree/path_table.txt holds. First the code points: a row is
 * a run of them, its first and its last, and whether a name may have them at its start, in its middle, at its end and alone. Then
 * all words over a small alphabet: a row for each length, with a digit for each word.
 */
public final class PathTable {
    private static final String ALPHABET = "/.a\0";
    private static final int WORD_UNITS_MAX = 6;

    private PathTable() {}

    /** Prints the table. */
    public static void main(String[] arguments) {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        table().forEach(row -> out.print(row + "\n"));
        out.flush();
    }

    static List<String> table() {
        List<String> rows = new ArrayList<>();
        int first = 0;
        for (int point = 1; point <= Character.MAX_CODE_POINT + 1; point++) {
            if (point > Character.MAX_CODE_POINT || !places(point).equals(places(first))) {
                rows.add(String.format("%x %x %s", first, point - 1, places(first)));
                first = point;
            }
        }
        for (int units = 0; units <= WORD_UNITS_MAX; units++) {
            rows.add(words(units));
        }
        return rows;
    }

    /** One digit for each place: at the start of a name, in its middle, at its end, alone. */
    private static String places(int point) {
        String one = new String(Character.toChars(point));
        return valid("/" + one + "b") + valid("/a" + one + "b") + valid("/a" + one) + valid("/" + one);
    }

    private static String words(int units) {
        StringBuilder row = new StringBuilder("words ").append(units).append(' ');
        int count = (int) Math.pow(ALPHABET.length(), units);
        for (int number = 0; number < count; number++) {
            StringBuilder word = new StringBuilder();
            for (int unit = 0, rest = number; unit < units; unit++, rest /= ALPHABET.length()) {
                word.append(ALPHABET.charAt(rest % ALPHABET.length()));
            }
            row.append(valid(word.toString()));
        }
        return row.toString();
    }

    private static String valid(String path) {
        try {
            PathUtils.validatePath(path);
            return "1";
        } catch (IllegalArgumentException refused) {
            return "0";
        }
    }
}
