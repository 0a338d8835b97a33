//! How one request is written down.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, Version};
use serde::Serialize;

use super::redact::redact;
use crate::config::{AccessLogConfig, AccessLogFormat, WrittenAddress};

/// What is known of a request once it is answered.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'r> {
    /// When it was answered.
    pub(crate) time: SystemTime,
    pub(crate) client: IpAddr,
    pub(crate) method: &'r Method,
    /// Path and query.
    pub(crate) target: &'r str,
    pub(crate) version: Version,
    pub(crate) host: &'r str,
    /// `None` when the client went away before it was answered.
    pub(crate) status: Option<u16>,
    /// Bytes of the body that were sent.
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    pub(crate) class: &'static str,
    /// The shard that answered; empty when the edge did.
    pub(crate) shard: &'r str,
    pub(crate) attempts: u32,
    pub(crate) request_id: &'r str,
    pub(crate) referer: Option<&'r str>,
    pub(crate) user_agent: Option<&'r str>,
}

#[derive(Serialize)]
struct Written<'r> {
    time: String,
    client: IpAddr,
    method: &'r str,
    target: String,
    protocol: &'static str,
    host: &'r str,
    status: Option<u16>,
    bytes: u64,
    duration_ms: f64,
    class: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    shard: &'r str,
    #[serde(skip_serializing_if = "is_one_or_none")]
    attempts: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'r str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references over")]
fn is_one_or_none(attempts: &u32) -> bool {
    *attempts <= 1
}

impl Entry<'_> {
    /// The line, with its end.
    pub(crate) fn written(&self, config: &AccessLogConfig) -> String {
        let client = match config.client_address {
            WrittenAddress::Full => self.client,
            WrittenAddress::Truncated => truncated(self.client),
        };
        match config.format {
            AccessLogFormat::Json => self.json(client),
            AccessLogFormat::Combined => self.combined(client),
        }
    }

    fn json(&self, client: IpAddr) -> String {
        let written = Written {
            time: rfc3339(self.time),
            client,
            method: self.method.as_str(),
            target: redact(self.target),
            protocol: protocol(self.version),
            host: self.host,
            status: self.status,
            bytes: self.bytes,
            duration_ms: (self.took.as_secs_f64() * 1e6).round() / 1e3,
            class: self.class,
            shard: self.shard,
            attempts: self.attempts,
            request_id: self.request_id,
            user_agent: self.user_agent,
        };
        // Text and numbers can always be written; an empty line would be the sign that they cannot.
        let mut line = serde_json::to_string(&written).unwrap_or_default();
        line.push('\n');
        line
    }

    fn combined(&self, client: IpAddr) -> String {
        let mut line = String::with_capacity(256);
        let method = self.method.as_str();
        let protocol = protocol(self.version);
        // Nginx's number for a client that went away.
        let status = self.status.unwrap_or(499);
        // Writing to a String cannot fail, here and below.
        let _ = write!(line, "{client} - - [{}] \"{method} ", common_log_time(self.time));
        quote(&mut line, &redact(self.target));
        let _ = write!(line, " {protocol}\" {status} {} \"", self.bytes);
        quote(&mut line, &self.referer.map_or_else(|| "-".to_owned(), redact));
        line.push_str("\" \"");
        quote(&mut line, self.user_agent.unwrap_or("-"));
        line.push_str("\"\n");
        line
    }
}

/// Nothing that a client sends ends a field or a line early.
fn quote(line: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' || byte == b' ' {
            line.push(char::from(byte));
        } else {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn truncated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

struct Civil {
    year: i64,
    /// From 1.
    month: u8,
    day: u8,
    second_of_day: u64,
    millisecond: u32,
}

fn rfc3339(time: SystemTime) -> String {
    let Civil { year, month, day, second_of_day, millisecond } = civil(time);
    let (hour, minute, second) = clock_time(second_of_day);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

fn common_log_time(time: SystemTime) -> String {
    let Civil { year, month, day, second_of_day, .. } = civil(time);
    let (hour, minute, second) = clock_time(second_of_day);
    let month = MONTHS.get(usize::from(month) - 1).copied().unwrap_or("???");
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

fn clock_time(second_of_day: u64) -> (u64, u64, u64) {
    (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60)
}

/// The Gregorian calendar in UTC. Days are counted from 1 March of the year 0, so that a leap day is a year's last.
fn civil(time: SystemTime) -> Civil {
    const DAYS_BEFORE_1970: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let days = since_epoch.as_secs() / 86_400 + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    Civil {
        year: year as i64,
        month: month as u8,
        day: day as u8,
        second_of_day: since_epoch.as_secs() % 86_400,
        millisecond: since_epoch.subsec_millis(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis)
    }

    fn entry() -> Entry<'static> {
        Entry {
            time: at(1_700_000_000, 7),
            client: "2001:db8:1:2:3::4".parse().unwrap(),
            method: &Method::GET,
            target: "/_matrix/client/v3/sync?access_token=secret&since=1",
            version: Version::HTTP_2,
            host: "example.org",
            status: Some(200),
            bytes: 12,
            took: Duration::from_micros(1_500),
            class: "sync",
            shard: "",
            attempts: 1,
            request_id: "",
            referer: Some("https://app.example/?loginToken=secret"),
            user_agent: Some("a \"b\"\n\u{e9}"),
        }
    }

    fn config(format: AccessLogFormat, client_address: WrittenAddress) -> AccessLogConfig {
        AccessLogConfig { file: None, format, client_address }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(rfc3339(at(0, 0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(at(951_782_400, 5)), "2000-02-29T00:00:00.005Z");
        assert_eq!(rfc3339(at(1_709_251_199, 999)), "2024-02-29T23:59:59.999Z");
        assert_eq!(common_log_time(at(4_107_542_400, 0)), "01/Mar/2100:00:00:00 +0000");
    }

    #[test]
    fn a_line_is_json_without_secrets() {
        let line = entry().written(&config(AccessLogFormat::Json, WrittenAddress::Truncated));
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1 && !line.contains("secret"), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["client"], "2001:db8:1::");
        assert_eq!(value["target"], "/_matrix/client/v3/sync?access_token=hidden&since=1");
        assert_eq!(value["duration_ms"], 1.5);
        assert_eq!(value["user_agent"], "a \"b\"\n\u{e9}");
    }

    #[test]
    fn a_line_is_combined_and_nothing_breaks_out_of_it() {
        let line = entry().written(&config(AccessLogFormat::Combined, WrittenAddress::Full));
        assert_eq!(
            line,
            "2001:db8:1:2:3::4 - - [14/Nov/2023:22:13:20 +0000] \
             \"GET /_matrix/client/v3/sync?access_token=hidden&since=1 HTTP/2.0\" 200 12 \
             \"https://app.example/?loginToken=hidden\" \"a \\x22b\\x22\\x0a\\xc3\\xa9\"\n"
        );
        assert_eq!(truncated("192.0.2.77".parse().unwrap()).to_string(), "192.0.2.0");
    }
}
