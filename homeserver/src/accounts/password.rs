//! Hashes and verifies passwords: Argon2id, beside the async threads, at most as many at a time as there are cores.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use tokio::sync::Semaphore;

use super::secret;

/// OWASP's parameters for Argon2id: 19 MiB, two passes, one thread.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const THREADS: u32 = 1;
const TAG_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// Blocks of one KiB that are asked for, of which only those that Argon2 fills ever take memory. From 32 MiB on, the
/// C library gives a request pages of its own and takes them back when it ends, instead of keeping them in its heaps.
const RESERVED_BLOCKS: usize = 33 * 1024;

/// Hashes passwords, at most a fixed number at a time. Clones share the limit.
#[derive(Clone)]
pub struct Passwords {
    permits: Arc<Semaphore>,
}

/// The hash could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("the stored password hash is of no kind that is known")]
    Unknown,
    #[error("hashing failed: {0}")]
    Argon2(argon2::Error),
    #[error("hashing failed: {0}")]
    Bcrypt(#[from] bcrypt::BcryptError),
    #[error("the server is shutting down")]
    Closed,
}

impl From<argon2::Error> for HashError {
    fn from(error: argon2::Error) -> Self {
        Self::Argon2(error)
    }
}

impl Passwords {
    /// Hashes at most `parallel` passwords at a time.
    pub fn new(parallel: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(parallel.max(1))) }
    }

    /// A PHC string for a new password.
    ///
    /// # Errors
    /// [`HashError::Closed`] when the server is shutting down.
    pub async fn hash(&self, password: String) -> Result<String, HashError> {
        let salt: [u8; SALT_BYTES] = rand::random();
        self.beside(move || hash_with_salt(password.as_bytes(), &salt)).await
    }

    /// Whether `password` belongs to `hash`. Without a hash the answer is no, after the same work, so that the time
    /// does not tell which users exist.
    ///
    /// # Errors
    /// [`HashError::Unknown`] for a hash of another kind, [`HashError::Closed`] when the server is shutting down.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, HashError> {
        self.beside(move || match hash {
            Some(hash) => verify_now(password.as_bytes(), &hash),
            None => hash_with_salt(password.as_bytes(), &[0; SALT_BYTES]).map(|_| false),
        })
        .await
    }

    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| HashError::Closed)?;
        let work = move || {
            // Held by the work and not by the caller: one that hangs up must not make room for another hash.
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| HashError::Closed)?
    }
}

fn hash_with_salt(password: &[u8], salt: &[u8]) -> Result<String, HashError> {
    let tag = argon2id(password, salt, MEMORY_KIB, PASSES, THREADS, TAG_BYTES)?;
    let (salt, tag) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(tag));
    Ok(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={THREADS}${salt}${tag}"))
}

fn verify_now(password: &[u8], hash: &str) -> Result<bool, HashError> {
    if hash.starts_with("$2") {
        return Ok(bcrypt::verify(password, hash)?);
    }
    let Phc { memory, passes, threads, salt, tag } = Phc::parse(hash).ok_or(HashError::Unknown)?;
    let expected = argon2id(password, &salt, memory, passes, threads, tag.len())?;
    Ok(secret::equal(&expected, &tag))
}

fn argon2id(
    password: &[u8],
    salt: &[u8],
    memory: u32,
    passes: u32,
    threads: u32,
    tag_bytes: usize,
) -> Result<Vec<u8>, HashError> {
    let params = Params::new(memory, passes, threads, Some(tag_bytes))?;
    let mut blocks = Vec::with_capacity(params.block_count().max(RESERVED_BLOCKS));
    blocks.resize(params.block_count(), Block::new());
    let mut tag = vec![0; tag_bytes];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into_with_memory(password, salt, &mut tag, &mut blocks)?;
    Ok(tag)
}

/// `$argon2id$v=19$m=19456,t=2,p=1$SALT$TAG`.
struct Phc {
    memory: u32,
    passes: u32,
    threads: u32,
    salt: Vec<u8>,
    tag: Vec<u8>,
}

impl Phc {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
        let mut costs = parts.next()?.split(',');
        let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse().ok();
        let (memory, passes, threads) = (cost("m=")?, cost("t=")?, cost("p=")?);
        let salt = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
        let tag = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
        parts.next().is_none().then_some(Self { memory, passes, threads, salt, tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn matches(password: &str, hash: &str) -> Result<bool, HashError> {
        Passwords::new(1).verify(password.to_owned(), Some(hash.to_owned())).await
    }

    #[tokio::test]
    async fn what_was_hashed_is_verified() {
        let hash = Passwords::new(1).hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(matches("correct horse", &hash).await.unwrap());
        assert!(!matches("correct horsf", &hash).await.unwrap());
        assert!(!Passwords::new(1).verify("correct horse".to_owned(), None).await.unwrap());
    }

    #[tokio::test]
    async fn hashes_of_other_programs_are_verified() {
        // Made with the reference implementation's command-line tool: `argon2 somesalt -id -t 2 -m 16 -p 1`.
        let reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(matches("password", reference).await.unwrap());
        // As Synapse keeps it.
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        assert!(bcrypt.starts_with("$2b$"));
        assert!(matches("secret", &bcrypt).await.unwrap());
        assert!(!matches("secreT", &bcrypt).await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_of_no_known_kind_is_an_error() {
        for hash in ["", "plain", "$argon2id$v=19$m=1", "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA"] {
            assert!(matches("password", hash).await.is_err(), "{hash}");
        }
    }
}
