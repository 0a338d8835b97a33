//! How times are written on the command line, and read from it.

/// The two largest units of a time.
pub(super) fn short(seconds: u64) -> String {
    let units = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(units.len() - 1);
    let told = units.iter().skip(first).take(2).enumerate().filter(|(place, (count, _))| *place == 0 || *count > 0);
    told.map(|(_, (count, unit))| format!("{count}{unit}")).collect()
}

/// Reads a time such as `1h30m`.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time such as 90s, 15m, 1h30m or 7d");
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (count, unit) = rest.split_at(digits);
        let unit_seconds = match unit.as_bytes().first() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3_600,
            Some(b'd') => 86_400,
            Some(b'w') => 604_800,
            _ => return Err(wrong()),
        };
        let part = count.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_seconds));
        seconds = part.and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
        rest = unit.get(1..).unwrap_or_default();
    }
    if seconds == 0 { Err(wrong()) } else { Ok(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, expected) in [("90s", 90), ("15m", 900), ("1h30m", 5_400), ("7d", 604_800), ("2w", 1_209_600)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for text in ["", "h", "10", "10x", "-1h", "1h ", "0s", "99999999999999999999d", "1é"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (600, "10m"), (5_460, "1h31m"), (604_800, "7d")] {
            assert_eq!(short(seconds), expected);
        }
        assert_eq!(short(90_061), "1d1h");
        assert_eq!(short(3_700), "1h1m");
        assert_eq!(short(273_600), "3d4h");
    }
}
