//! Dynamic updates of the DNS (RFC 2136), signed with TSIG (RFC 8945), and a look whether a server shows a record.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use hickory_proto::op::{Message, Query, ResponseCode, update_message};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm as Algorithm;
use hickory_proto::rr::{Name, RData, Record, RecordSet, RecordType, TSigner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};

use super::{BoxedError, DnsError};
use crate::acme::store::seconds;
use crate::config::{Rfc2136Config, TsigAlgorithm};

const WITHIN: Duration = Duration::from_secs(20);
/// Records live for one look.
const TTL_SECONDS: u32 = 10;
/// How far the clocks may be apart, as RFC 8945 recommends.
const FUDGE_SECONDS: u16 = 300;

/// Adds the record beside those that are there.
pub(super) async fn add(config: &Rfc2136Config, name: &str, value: &str, now: SystemTime) -> Result<(), DnsError> {
    let (record, zone) = record_in_zone(config, name, value)?;
    send(config, update_message::append(record, zone, false, false), now).await
}

/// Deletes this record and no other of the same name.
pub(super) async fn delete(config: &Rfc2136Config, name: &str, value: &str, now: SystemTime) -> Result<(), DnsError> {
    let (record, zone) = record_in_zone(config, name, value)?;
    send(config, update_message::delete_by_rdata(record, zone, false), now).await
}

/// Whether the server shows the record.
pub(super) async fn shows(server: SocketAddr, name: &str, value: &str) -> bool {
    let Ok(name) = Name::from_ascii(name) else { return false };
    let mut question = Message::query();
    question.add_query(Query::query(name, RecordType::TXT));
    let Ok(bytes) = question.to_vec() else { return false };
    let Ok(answer) = exchange(server, &bytes).await.and_then(|bytes| Ok(Message::from_vec(&bytes)?)) else {
        return false;
    };
    let is_it = |record: &Record| match &record.data {
        RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
        _ => false,
    };
    answer.answers.iter().any(is_it)
}

fn record_in_zone(config: &Rfc2136Config, name: &str, value: &str) -> Result<(RecordSet, Name), DnsError> {
    let not_in_zone = || DnsError::Zone(name.to_owned());
    let parse = |name: &str| {
        let mut name = Name::from_ascii(name).ok()?;
        name.set_fqdn(true);
        Some(name)
    };
    let (owner, zone) = parse(name).zip(parse(&config.zone)).ok_or_else(not_in_zone)?;
    if !zone.zone_of(&owner) {
        return Err(not_in_zone());
    }
    let text = RData::TXT(TXT::new(vec![value.to_owned()]));
    Ok((RecordSet::from(Record::from_rdata(owner, TTL_SECONDS, text)), zone))
}

fn signer(config: &Rfc2136Config) -> Result<TSigner, BoxedError> {
    let algorithm = match config.algorithm {
        TsigAlgorithm::HmacSha256 => Algorithm::HmacSha256,
        TsigAlgorithm::HmacSha384 => Algorithm::HmacSha384,
        TsigAlgorithm::HmacSha512 => Algorithm::HmacSha512,
    };
    let key = config.key_bytes().ok_or("it is not base64")?;
    Ok(TSigner::new(key, algorithm, Name::from_ascii(&config.key_name)?, FUDGE_SECONDS)?)
}

async fn send(config: &Rfc2136Config, mut message: Message, now: SystemTime) -> Result<(), DnsError> {
    let server = &config.server;
    let signer = signer(config).map_err(DnsError::Key)?;
    let signed = message.finalize(&signer, seconds(now)).and_then(|verifier| Ok((message.to_vec()?, verifier)));
    let (bytes, verifier) = signed.map_err(|error| DnsError::Key(error.into()))?;
    let failed = |source: BoxedError| DnsError::Exchange { server: server.clone(), source };
    let answer = exchange(server.as_str(), &bytes).await.map_err(failed)?;
    let code = Message::from_vec(&answer).map_err(|error| failed(error.into()))?.metadata.response_code;
    // A server that does not know the key cannot sign its refusal.
    if code != ResponseCode::NoError {
        return Err(DnsError::Refused { server: server.clone(), code: code.to_string() });
    }
    if let Some(mut verifier) = verifier {
        verifier.verify(&answer).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// One message there and one back over TCP, each behind its length.
async fn exchange(server: impl ToSocketAddrs, message: &[u8]) -> Result<Vec<u8>, BoxedError> {
    let exchanged = async {
        let length = u16::try_from(message.len())?;
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(WITHIN, exchanged).await.unwrap_or_else(|_| Err("it does not answer in time".into()))
}
