//! Numbers and booleans as Java's own parsers read them: they differ in bases, signs and in what they do with a leading zero.
//!
//! Where Java takes a default because it cannot read a value, these say `None`, and the caller refuses the start. Java also
//! takes decimal digits of other scripts; these do not.

/// `Long.parseLong`, and `Integer.parseInt` within 32 bits: decimal, with one sign at most. Leading zeros say nothing.
pub(super) fn parse_long(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Rust's own parser agrees with Java's on everything but the empty text, and both refuse that.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `Long.decode`, which stands behind `Long.getLong` and, within 32 bits, behind `Integer.getInteger`: hexadecimal after `0x`,
/// `0X` or `#`, octal after another leading zero, else decimal; a sign comes first.
pub(super) fn decode_long(text: &str) -> Option<i64> {
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let (digits, radix) = match unsigned {
        hex if hex.starts_with("0x") || hex.starts_with("0X") => (&hex[2..], 16),
        hex if hex.starts_with('#') => (&hex[1..], 16),
        octal if octal.starts_with('0') && octal.len() > 1 => (&octal[1..], 8),
        decimal => (decimal, 10),
    };
    // A second sign is refused, which Rust's parser would take.
    let is_number = digits.bytes().all(|byte| (byte as char).is_digit(radix));
    is_number.then(|| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()).flatten()
}

/// `Boolean.parseBoolean`: `true` in any case, and everything else is false.
pub(super) fn parse_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the three parsers of OpenJDK 17 print for each text; `-` stands for a NumberFormatException.
    const ORACLE: &str = include_str!("java_numbers.txt");

    /// `tickTime=002000` was refused and `0x7d0` accepted, the opposite of what Java's parser for that key does. A table of
    /// Java's own answers is compared, since each base, sign and prefix has an odd case of its own.
    #[test]
    fn number_read_unlike_java() {
        let mut rows = 0;
        for row in ORACLE.lines() {
            let [text, parsed, decoded, boolean] = row.split('|').collect::<Vec<_>>().try_into().unwrap();
            let shown = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
            assert_eq!(shown(parse_long(text)), parsed, "parseLong({text:?})");
            assert_eq!(shown(decode_long(text)), decoded, "decode({text:?})");
            assert_eq!(parse_boolean(text).to_string(), boolean, "parseBoolean({text:?})");
            rows += 1;
        }
        assert!(rows > 1_900, "{rows} rows");
    }
}
