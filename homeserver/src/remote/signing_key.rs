//! Decides which key this server signs with: read from Synapse's file format, made at the first start.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD_NO_PAD},
};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int, OwnedServerName, ServerName, signatures::Ed25519KeyPair};

use super::config::RemoteConfig;
use crate::rules::signatures::{key_pair_from_seed, sign_object};

/// Reads what other programs wrote, whose last digit may hold bits that mean nothing.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// How long others may rely on the published key before they ask again: one day.
const PUBLISHED_FOR_MS: u64 = 24 * 60 * 60 * 1000;

/// This server's name and the key that proves it. Clones share the key.
#[derive(Clone)]
pub struct SigningKey {
    shared: Arc<Shared>,
}

struct Shared {
    server_name: OwnedServerName,
    pair: Arc<Ed25519KeyPair>,
    /// Key id, public key, last use in milliseconds.
    old_keys: Vec<(String, String, u64)>,
}

/// Why the signing key cannot be used. The operator has to mend it.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error("cannot read or write the signing key {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} holds no signing key: expected a line `ed25519 VERSION SEED`, the seed being 32 bytes in base64", path.display())]
    Format { path: PathBuf },
}

impl SigningKey {
    /// Reads the key from `path`, or makes one there (readable by its owner only) when there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, made or understood.
    pub fn open(path: &Path, server_name: OwnedServerName, config: &RemoteConfig) -> Result<Self, SigningKeyError> {
        let at = |source| SigningKeyError::File { path: path.to_owned(), source };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path).map_err(at)?;
                fs::read_to_string(path).map_err(at)?
            }
            Err(error) => return Err(at(error)),
        };
        let pair = parse(&text).ok_or_else(|| SigningKeyError::Format { path: path.to_owned() })?;
        let old_keys =
            config.old_signing_keys.iter().map(|(id, old)| (id.clone(), old.key.clone(), old.expired_ts)).collect();
        Ok(Self { shared: Arc::new(Shared { server_name, pair: Arc::new(pair), old_keys }) })
    }

    /// The name of this server.
    pub fn server_name(&self) -> &ServerName {
        &self.shared.server_name
    }

    /// The key pair, for signing events.
    pub fn pair(&self) -> &Ed25519KeyPair {
        &self.shared.pair
    }

    /// The same key pair, shared.
    pub fn shared_pair(&self) -> Arc<Ed25519KeyPair> {
        self.shared.pair.clone()
    }

    /// The id of the key, such as `ed25519:a_AbCd`.
    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.shared.pair.version())
    }

    /// The public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.shared.pair.public_key()
    }

    /// Adds this server's signature to an object.
    ///
    /// # Errors
    /// When the object holds a `signatures` that is no object.
    pub fn sign(&self, object: &mut CanonicalJsonObject) -> Result<(), ruma::signatures::JsonError> {
        sign_object(object, self.pair(), self.server_name())
    }

    /// The signed answer to `GET /_matrix/key/v2/server`.
    pub fn published(&self, now_ms: u64) -> CanonicalJsonObject {
        let key = |public: String| CanonicalJsonObject::from([("key".to_owned(), CanonicalJsonValue::String(public))]);
        let verify_keys = CanonicalJsonObject::from([(
            self.key_id(),
            CanonicalJsonValue::Object(key(STANDARD_NO_PAD.encode(self.public_key()))),
        )]);
        let old = self.shared.old_keys.iter().map(|(id, public, expired_ts)| {
            let mut old = key(public.clone());
            old.insert("expired_ts".to_owned(), integer(*expired_ts));
            (id.clone(), CanonicalJsonValue::Object(old))
        });
        let mut document = CanonicalJsonObject::from([
            ("server_name".to_owned(), self.server_name().as_str().into()),
            ("valid_until_ts".to_owned(), integer(now_ms.saturating_add(PUBLISHED_FOR_MS))),
            ("verify_keys".to_owned(), CanonicalJsonValue::Object(verify_keys)),
            ("old_verify_keys".to_owned(), CanonicalJsonValue::Object(old.collect())),
        ]);
        self.sign(&mut document).expect("the document was just made without signatures");
        document
    }
}

fn integer(ms: u64) -> CanonicalJsonValue {
    let value = i64::try_from(ms).ok().and_then(|ms| Int::try_from(ms).ok());
    CanonicalJsonValue::Integer(value.unwrap_or(Int::MAX))
}

/// The first key of the file; Synapse signs with that one too.
fn parse(text: &str) -> Option<Ed25519KeyPair> {
    let mut words = text.lines().find(|line| !line.trim().is_empty())?.split_ascii_whitespace();
    let (algorithm, version, seed) = (words.next()?, words.next()?, words.next()?);
    let known_version = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if algorithm != "ed25519" || !known_version || words.next().is_some() {
        return None;
    }
    let seed: [u8; 32] = LENIENT.decode(seed).ok()?.try_into().ok()?;
    key_pair_from_seed(&seed, version).ok()
}

/// Writes a new key beside `path` and links it there, so that of two shards that start at once one wins and nobody
/// ever reads half a file.
fn make(path: &Path) -> io::Result<()> {
    const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let letter = |byte: u8| char::from(LETTERS[usize::from(byte) % LETTERS.len()]);
    let version: String = rand::random::<[u8; 4]>().into_iter().map(letter).collect();
    let seed = STANDARD_NO_PAD.encode(rand::random::<[u8; 32]>());

    let beside = path.with_extension(format!("new-{:016x}", rand::random::<u64>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = writeln!(file, "ed25519 a_{version} {seed}").and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&beside, path));
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ruma::server_name;

    use super::*;

    fn open(path: &Path) -> Result<SigningKey, SigningKeyError> {
        SigningKey::open(path, server_name!("example.org").to_owned(), &RemoteConfig::default())
    }

    #[test]
    fn the_key_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let first = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = open(&path).unwrap();
        assert_eq!(first.key_id(), second.key_id());
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_of_synapse_stays_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        // The seed of the specification's test vectors (appendices, "Cryptographic Test Vectors").
        fs::write(&path, "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n").unwrap();
        let key = open(&path).unwrap();
        assert_eq!(key.key_id(), "ed25519:1");
        assert_eq!(STANDARD_NO_PAD.encode(key.public_key()), "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI");
        let mut object = CanonicalJsonObject::new();
        sign_object(&mut object, key.pair(), server_name!("domain")).unwrap();
        let signature = "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ";
        assert!(serde_json::to_string(&object).unwrap().contains(signature));
    }

    #[test]
    fn nonsense_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        for text in
            ["", "ed25519", "rsa a YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", "ed25519 a short", "ed25519 a:b x"]
        {
            fs::write(&path, text).unwrap();
            assert!(matches!(open(&path), Err(SigningKeyError::Format { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
