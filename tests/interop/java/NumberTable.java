import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * What Java's parsers make of the texts of a configuration: the table that src/config/java_numbers.txt holds. A row is the text
 * and the results of Long.parseLong, Long.decode and Boolean.parseBoolean; - stands for a NumberFormatException.
 */
public final class NumberTable {
    private static final String ALPHABET = "01789aFx#+- ";
    private static final int WORD_LENGTH_MAX = 3;
    private static final String[] MORE = {
        "true", "TRUE", "True", "false", "yes", "no", "on", "002000", "0x7d0", "0X7D0", "#7d0", "-0x7d0", "0x-7d0", "0x", "#", "07777",
        "08", "2147483647", "2147483648", "-2147483648", "0xffffffff", "9223372036854775807", "9223372036854775808",
        "-9223372036854775808", "0x7fffffffffffffff", "0x8000000000000000", "-0x8000000000000000", "0777777777777777777777",
        "01000000000000000000000", "1_000", "1e3", "1.0", "1L", "0b1", "0o7", "00000000000000000000000001", "+-1", "--1",
    };

    private NumberTable() {}

    /** Prints the table. */
    public static void main(String[] arguments) {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        table().forEach(row -> out.print(row + "\n"));
        out.flush();
    }

    static List<String> table() {
        List<String> rows = new ArrayList<>();
        for (String text : MORE) {
            rows.add(row(text));
        }
        addWords(rows, "");
        return rows;
    }

    private static void addWords(List<String> rows, String word) {
        rows.add(row(word));
        if (word.length() < WORD_LENGTH_MAX) {
            for (char letter : ALPHABET.toCharArray()) {
                addWords(rows, word + letter);
            }
        }
    }

    private static String row(String text) {
        return text + "|" + number(text, false) + "|" + number(text, true) + "|" + Boolean.parseBoolean(text);
    }

    private static String number(String text, boolean decoded) {
        try {
            return Long.toString(decoded ? Long.decode(text) : Long.parseLong(text));
        } catch (NumberFormatException refused) {
            return "-";
        }
    }
}
