//! Reads the PROXY header, versions 1 and 2, by which a load balancer announces its client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What a PROXY header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// The connection is that of this client.
    Client(SocketAddr),
    /// The connection is the load balancer's own (`LOCAL`, for health checks), or of a client without an address.
    Itself,
}

/// Why bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// More bytes may make them one.
    #[error("the PROXY header is incomplete")]
    Incomplete,
    /// Nothing will.
    #[error("this is no PROXY header")]
    Malformed,
    /// The checksum within is another one.
    #[error("the checksum of the PROXY header is wrong")]
    Checksum,
}

use ProxyHeaderError::{Checksum, Incomplete, Malformed};

/// The longest header of version 1, with its CRLF.
const V1_MOST: usize = 107;
/// What version 2 begins with.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2.
const V2_HEAD: usize = 16;
/// So much may follow it: every address and every extension that is in use, many times over.
const V2_MOST: usize = 2_048;
const V2_CRC32C: u8 = 0x03;

/// Reads the header from a connection, and not a byte more.
///
/// # Errors
/// When the connection fails or ends, or the bytes are no PROXY header.
pub(crate) async fn read(tcp: &mut TcpStream) -> io::Result<Announced> {
    let mut header = vec![0; V2_SIGNATURE.len()];
    tcp.read_exact(&mut header).await?;
    if header == V2_SIGNATURE {
        header.resize(V2_HEAD, 0);
        tcp.read_exact(&mut header[V2_SIGNATURE.len()..]).await?;
        let length = v2_length(&header).map_err(invalid)?;
        header.resize(V2_HEAD + length, 0);
        tcp.read_exact(&mut header[V2_HEAD..]).await?;
    } else {
        while !header.ends_with(b"\n") {
            let mut ahead = [0; V1_MOST];
            let room = V1_MOST.checked_sub(header.len()).filter(|room| *room > 0).ok_or_else(|| invalid(Malformed))?;
            let seen = tcp.peek(&mut ahead[..room]).await?;
            if seen == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = ahead[..seen].iter().position(|byte| *byte == b'\n').map_or(seen, |end| end + 1);
            let start = header.len();
            header.resize(start + line, 0);
            tcp.read_exact(&mut header[start..]).await?;
        }
    }
    parse(&header).map(|(announced, _)| announced).map_err(invalid)
}

fn invalid(error: ProxyHeaderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads a header of either version at the start of `bytes`, and says how long it is.
///
/// # Errors
/// When there is none, or not the whole of it.
pub fn parse(bytes: &[u8]) -> Result<(Announced, usize), ProxyHeaderError> {
    let begins = |signature: &[u8]| {
        let common = signature.len().min(bytes.len());
        bytes[..common] == signature[..common]
    };
    if begins(&V2_SIGNATURE) {
        return parse_v2(bytes);
    }
    if !begins(b"PROXY ") {
        return Err(Malformed);
    }
    let window = &bytes[..bytes.len().min(V1_MOST)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return Err(if bytes.len() < V1_MOST { Incomplete } else { Malformed });
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    Ok((parse_v1(line)?, end + 1))
}

/// One line without its end, with exactly one space between its words.
fn parse_v1(line: &str) -> Result<Announced, ProxyHeaderError> {
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(Malformed);
    let family = word()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Ok(Announced::Itself);
    }
    let (source, destination, port, own_port) = (word()?, word()?, word()?, word()?);
    let address = |text: &str| match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| Malformed),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| Malformed),
        _ => Err(Malformed),
    };
    let port_of = |text: &str| {
        let decimal = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| decimal).ok_or(Malformed)
    };
    let client = SocketAddr::new(address(source)?, port_of(port)?);
    address(destination)?;
    port_of(own_port)?;
    if words.next().is_some() { Err(Malformed) } else { Ok(Announced::Client(client)) }
}

/// How much follows the fixed part.
fn v2_length(head: &[u8]) -> Result<usize, ProxyHeaderError> {
    let &[high, low] = head.get(14..V2_HEAD).ok_or(Incomplete)? else { return Err(Incomplete) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MOST { Err(Malformed) } else { Ok(length) }
}

fn parse_v2(bytes: &[u8]) -> Result<(Announced, usize), ProxyHeaderError> {
    let &[command, transport] = bytes.get(12..14).ok_or(Incomplete)? else { return Err(Incomplete) };
    let end = V2_HEAD + v2_length(bytes)?;
    let header = bytes.get(..end).ok_or(Incomplete)?;
    let rest = &header[V2_HEAD..];
    let proxied = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(Malformed),
    };
    let (family, protocol) = (transport >> 4, transport & 0xf);
    let addresses = match family {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return Err(Malformed),
    };
    if protocol > 2 {
        return Err(Malformed);
    }
    if !proxied {
        return Ok((Announced::Itself, end));
    }
    let (addresses, extensions) = rest.split_at_checked(addresses).ok_or(Malformed)?;
    if family != 0 {
        check_extensions(header, extensions)?;
    }
    let announced = match (family, protocol, addresses) {
        (1, 1, &[a, b, c, d, _, _, _, _, high, low, _, _]) => {
            Announced::Client((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into())
        }
        (2, 1, addresses) => {
            let source: [u8; 16] = addresses.get(..16).and_then(|source| source.try_into().ok()).ok_or(Malformed)?;
            let &[high, low] = addresses.get(32..34).ok_or(Malformed)? else { return Err(Malformed) };
            Announced::Client((Ipv6Addr::from(source), u16::from_be_bytes([high, low])).into())
        }
        // This is a connection, so nothing that is announced as datagrams is true.
        (_, 2, _) => return Err(Malformed),
        _ => Announced::Itself,
    };
    Ok((announced, end))
}

/// Walks over type, length and value of each extension; the checksum is the only one that means something here.
fn check_extensions(header: &[u8], mut extensions: &[u8]) -> Result<(), ProxyHeaderError> {
    while let Some((&[kind, high, low], rest)) = extensions.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, after) = rest.split_at_checked(length).ok_or(Malformed)?;
        if kind == V2_CRC32C {
            let told: [u8; 4] = value.try_into().map_err(|_| Malformed)?;
            // It is computed with zeros in its own place.
            let start = header.len() - rest.len();
            let before = header.get(..start).ok_or(Malformed)?;
            let computed = crc32c(before.iter().chain(&[0; 4]).chain(after).copied());
            if computed != u32::from_be_bytes(told) {
                return Err(Checksum);
            }
        }
        extensions = after;
    }
    if extensions.is_empty() { Ok(()) } else { Err(Malformed) }
}

/// CRC-32C (RFC 3720, appendix B.4).
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32, byte: u8| {
        let shift = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ REVERSED_POLYNOMIAL } else { crc >> 1 };
        (0..8).fold(crc ^ u32::from(byte), shift)
    };
    !bytes.fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Announced {
        Announced::Client(text.parse().unwrap())
    }

    #[test]
    fn version_1_is_read_to_its_end() {
        let line = b"PROXY TCP4 192.0.2.1 203.0.113.2 56324 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(parse(line), Ok((client("192.0.2.1:56324"), 44)));
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
        assert_eq!(parse(line), Ok((client("[2001:db8::1]:1"), line.len())));
        let longest = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
        assert_eq!(parse(longest), Ok((Announced::Itself, longest.len())));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Ok((Announced::Itself, 15)));
    }

    #[test]
    fn version_1_is_taken_by_the_letter() {
        for line in [
            "PROXY TCP4 192.0.2.1 203.0.113.2 56324 443\n",
            "PROXY TCP4 192.0.2.1 203.0.113.2 56324\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.2 56324 443 \r\n",
            "PROXY TCP4  192.0.2.1 203.0.113.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.01 203.0.113.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.2 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.2 +5 443\r\n",
            "PROXY TCP4 192.0.2.1 203.0.113.2 65536 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 1\r\n",
            "PROXY TCP6 192.0.2.1 203.0.113.2 1 1\r\n",
            "PROXY UDP4 192.0.2.1 203.0.113.2 1 1\r\n",
            "proxy TCP4 192.0.2.1 203.0.113.2 1 1\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(Malformed), "{line:?}");
        }
        assert_eq!(parse(&[b"PROXY TCP4 ".as_slice(), &[b' '; 100]].concat()), Err(Malformed));
    }

    fn v2(command: u8, transport: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&V2_SIGNATURE[..], &[command, transport], &length, rest].concat()
    }

    const TCP4: [u8; 12] = [192, 0, 2, 1, 203, 0, 113, 2, 0xdc, 0x04, 1, 187];

    #[test]
    fn version_2_is_read_to_its_end() {
        let mut header = v2(0x21, 0x11, &[&TCP4[..], &[4, 0, 2, 9, 9]].concat());
        assert_eq!(parse(&header), Ok((client("192.0.2.1:56324"), 33)));
        header.extend(b"\x16\x03\x01");
        assert_eq!(parse(&header), Ok((client("192.0.2.1:56324"), 33)));
        let mut tcp6 = [0; 36];
        tcp6[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        tcp6[33] = 7;
        assert_eq!(parse(&v2(0x21, 0x21, &tcp6)), Ok((client("[2001:db8::1]:7"), 52)));
        assert_eq!(parse(&v2(0x20, 0x11, &TCP4)), Ok((Announced::Itself, 28)), "LOCAL");
        assert_eq!(parse(&v2(0x20, 0, &[])), Ok((Announced::Itself, 16)), "LOCAL without an address");
        assert_eq!(parse(&v2(0x21, 0, &[1, 2, 3])), Ok((Announced::Itself, 19)), "unspecified");
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Ok((Announced::Itself, 232)), "a Unix socket");
    }

    #[test]
    fn version_2_is_taken_by_the_letter() {
        for header in [
            v2(0x11, 0x11, &TCP4),
            v2(0x22, 0x11, &TCP4),
            v2(0x21, 0x41, &TCP4),
            v2(0x21, 0x13, &TCP4),
            v2(0x21, 0x12, &TCP4),
            v2(0x21, 0x11, &TCP4[..11]),
            v2(0x21, 0x21, &TCP4),
            v2(0x21, 0x11, &[&TCP4[..], &[4, 0, 9, 1]].concat()),
            v2(0x21, 0x11, &[&TCP4[..], &[4, 0]].concat()),
            v2(0x21, 0x11, &[0; 2_049]),
        ] {
            assert_eq!(parse(&header), Err(Malformed), "{header:?}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_noticed() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        let mut header = v2(0x21, 0x11, &[&TCP4[..], &[3, 0, 4, 0, 0, 0, 0, 4, 0, 1, 7]].concat());
        let checksum = crc32c(header.iter().copied()).to_be_bytes();
        header[31..35].copy_from_slice(&checksum);
        assert!(parse(&header).is_ok());
        header[16] ^= 1;
        assert_eq!(parse(&header), Err(Checksum));
    }

    #[test]
    fn every_beginning_is_incomplete_and_nothing_panics() {
        let headers = [b"PROXY TCP4 192.0.2.1 203.0.113.2 56324 443\r\n".to_vec(), v2(0x21, 0x11, &TCP4)];
        for header in headers {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Err(Incomplete), "{end}");
                for byte in 0..=255 {
                    let mut spoiled = header.clone();
                    spoiled[end] = byte;
                    let _ = parse(&spoiled);
                }
            }
        }
    }
}
