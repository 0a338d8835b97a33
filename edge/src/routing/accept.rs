//! Which coding of an answer a client takes, by `Accept-Encoding` (RFC 9110, section 12.5.3).

/// A content coding that the edge knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// In the order in which the edge likes them: zstd costs the least for its size.
    pub(crate) const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// The codings of `offered` that the client takes, best first: by its own weights, and in the order of `offered` where
/// those are equal. A client that likes an answer as it is better than a coding does not get that coding.
pub(crate) fn acceptable(accept_encoding: &str, offered: &[Coding]) -> Vec<Coding> {
    let identity = weight_of("identity", accept_encoding).unwrap_or(0);
    let mut weighed: Vec<(u16, Coding)> = Vec::with_capacity(offered.len());
    for coding in offered {
        let weight = weight_of(coding.as_str(), accept_encoding).or_else(|| weight_of("*", accept_encoding));
        if let Some(weight) = weight.filter(|weight| *weight > 0 && *weight >= identity) {
            weighed.push((weight, *coding));
        }
    }
    // Stable, so equal weights stay in the order of `offered`.
    weighed.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    weighed.into_iter().map(|(_, coding)| coding).collect()
}

/// The weight of a coding in thousandths; `None` when it is not named.
fn weight_of(name: &str, accept_encoding: &str) -> Option<u16> {
    accept_encoding.split(',').find_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next()?;
        let named = coding.eq_ignore_ascii_case(name) || name == "gzip" && coding.eq_ignore_ascii_case("x-gzip");
        if !named {
            return None;
        }
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some(weight.map_or(1_000, thousandths))
    })
}

/// `0.5` is 500; what is no weight is 0, so that nothing is sent that was not clearly asked for.
fn thousandths(weight: &str) -> u16 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits_only = fraction.bytes().all(|digit| digit.is_ascii_digit());
    match whole {
        "1" => 1_000,
        "0" if digits_only && fraction.len() <= 3 => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(accept_encoding: &str) -> Option<Coding> {
        acceptable(accept_encoding, &Coding::ALL).first().copied()
    }

    #[test]
    fn the_clients_weights_decide() {
        assert_eq!(best("gzip, deflate, br, zstd"), Some(Coding::Zstd));
        assert_eq!(best("gzip;q=1.0, br;q=0.9"), Some(Coding::Gzip));
        assert_eq!(best("br;q=0.5, gzip;q=0.5"), Some(Coding::Brotli));
        assert_eq!(best("zstd;q=0, *"), Some(Coding::Brotli));
        assert_eq!(best("x-gzip"), Some(Coding::Gzip));
        assert_eq!(best("GZIP ; Q=0.001"), Some(Coding::Gzip));
    }

    #[test]
    fn what_is_not_asked_for_is_not_sent() {
        for header in
            ["", "identity", "deflate", "gzip;q=0", "*;q=0", "gzip;q=x", "gzip;q=0.0001", "identity, gzip;q=0.5"]
        {
            assert_eq!(best(header), None, "{header}");
        }
    }
}
