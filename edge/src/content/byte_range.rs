//! Which part of a file `Range` asks for (RFC 9110, section 14). One part at a time: more are answered with the whole.

use std::fmt;

/// Bytes `first` to `last`, both included; empty only for an empty file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    first: u64,
    end: u64,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Whole,
    Part(ByteRange),
    /// The part lies behind the end.
    Beyond,
}

impl ByteRange {
    pub(crate) fn whole(length: u64) -> Self {
        Self { first: 0, end: length }
    }

    /// What is not understood is not there.
    pub(crate) fn parse(header: &str, length: u64) -> Wanted {
        let spec = header.split_once('=').filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"));
        let Some((first, last)) = spec.and_then(|(_, spec)| spec.trim().split_once('-')) else { return Wanted::Whole };
        let number = |text: &str| match text {
            "" => Some(None),
            digits if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                Some(Some(digits.parse().unwrap_or(u64::MAX)))
            }
            _ => None,
        };
        match (number(first), number(last)) {
            (Some(Some(first)), Some(last)) if last.is_none_or(|last| first <= last) => {
                if first >= length {
                    return Wanted::Beyond;
                }
                let end = last.map_or(length, |last: u64| last.saturating_add(1).min(length));
                Wanted::Part(Self { first, end })
            }
            (Some(None), Some(Some(0))) => Wanted::Beyond,
            (Some(None), Some(Some(_))) if length == 0 => Wanted::Beyond,
            (Some(None), Some(Some(last))) => Wanted::Part(Self { first: length.saturating_sub(last), end: length }),
            _ => Wanted::Whole,
        }
    }

    pub(crate) fn first(self) -> u64 {
        self.first
    }

    pub(crate) fn len(self) -> u64 {
        self.end - self.first
    }
}

/// As in `Content-Range`.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.end.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_to_the_file() {
        let part = |first, end| Wanted::Part(ByteRange { first, end });
        for (header, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-", part(2, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-30", part(0, 10)),
            ("bytes=5-99999999999999999999999", part(5, 10)),
            ("bytes=10-", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=3-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(ByteRange::parse(header, 10), expected, "{header}");
        }
        assert_eq!(ByteRange::parse("bytes=0-", 0), Wanted::Beyond);
        assert_eq!(ByteRange::parse("bytes=-1", 0), Wanted::Beyond);
    }
}
