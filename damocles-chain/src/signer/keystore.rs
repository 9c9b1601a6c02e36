//! Keys as files, in Lotus' directory form.

use super::{KeyKind, PrivateKey, SignRequest, Signer, SignerError, SignerErrorKind};
use crate::lotus_json::{from_core, to_core};
use async_trait::async_trait;
use damocles_core::Address;
use data_encoding::BASE32_NOPAD;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use fvm_shared::crypto::signature::Signature;
use std::{
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

const WALLET: &str = "wallet-";
/// No key file is longer.
const MAX_FILE: u64 = 4096;

/// A directory of keys in plain text: `<dir>/<base32 of "wallet-" and the address>`, each Lotus' JSON, mode 0600.
#[derive(Clone, Debug)]
pub struct Keystore {
    dir: PathBuf,
}

impl Keystore {
    /// Opens the directory; makes it, for the owner only, if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, SignerError> {
        let dir = dir.into();
        if !dir.is_dir() {
            let made = fs_err::create_dir_all(&dir)
                .and_then(|()| fs_err::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)));
            made.map_err(|e| io_error("open keystore", &dir, e))?;
        }
        Ok(Self { dir })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Refuses a network that is not for development: whoever reads the disk has the keys.
    ///
    /// # Errors
    ///
    /// [`SignerErrorKind::Unsuitable`].
    pub fn refuse_on(network: &str) -> Result<(), SignerError> {
        if ["devnet", "2k", "localnet"].iter().any(|prefix| network.starts_with(prefix)) {
            return Ok(());
        }
        Err(SignerError::new(SignerErrorKind::Unsuitable, "use keystore")
            .with("network", network)
            .hint_with("the keystore directory holds keys in plain text; use it on a devnet only"))
    }

    /// The addresses of all keys, sorted.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<Address>, SignerError> {
        let mut found = Vec::new();
        let failed = |e| io_error("list keys", &self.dir, e);
        for entry in fs_err::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let decoded = BASE32_NOPAD.decode(name.as_encoded_bytes()).ok().and_then(|b| String::from_utf8(b).ok());
            let address =
                decoded.as_deref().and_then(|n| n.strip_prefix(WALLET)).and_then(|a| a.parse::<Address>().ok());
            found.extend(address.and_then(|a| from_core(&a).ok()).map(|a| to_core(&a)));
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn create(&self, kind: KeyKind) -> Result<Address, SignerError> {
        self.put(&PrivateKey::generate(kind))
    }

    /// Takes a key in Lotus' form: the hex of `wallet export`, or the JSON that it is the hex of.
    ///
    /// # Errors
    ///
    /// It is no key, the key is there already, or the file cannot be written.
    pub fn import(&self, text: &str) -> Result<Address, SignerError> {
        self.put(&PrivateKey::from_lotus_text(text)?)
    }

    /// The hex of Lotus' `wallet export`.
    ///
    /// # Errors
    ///
    /// The key is not there or cannot be read.
    pub fn export(&self, address: &Address) -> Result<Zeroizing<String>, SignerError> {
        Ok(Zeroizing::new(hex::encode(self.get(address)?.to_lotus().as_slice())))
    }

    fn put(&self, key: &PrivateKey) -> Result<Address, SignerError> {
        let address = to_core(&key.address());
        if self.find(&address).is_some() {
            return Err(SignerError::new(SignerErrorKind::Exists, "write key").with("address", &address));
        }
        let path = self.dir.join(file_name(address.as_str()));
        let partial = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut options = fs_err::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            // What an interrupted write left behind may have another mode.
            if partial.exists() {
                fs_err::remove_file(&partial)?;
            }
            let mut file = options.open(&partial)?;
            file.write_all(&key.to_lotus())?;
            file.sync_all()?;
            fs_err::rename(&partial, &path)?;
            fs_err::File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| io_error("write key", &path, e))?;
        Ok(address)
    }

    /// The file of a key: Lotus names it by the address as its network writes it.
    fn find(&self, address: &Address) -> Option<PathBuf> {
        let rest = address.as_str().get(1..)?;
        ["t", "f"].iter().map(|prefix| self.dir.join(file_name(&format!("{prefix}{rest}")))).find(|p| p.exists())
    }

    pub(crate) fn get(&self, address: &Address) -> Result<PrivateKey, SignerError> {
        let missing = || {
            SignerError::new(SignerErrorKind::NoKey, "read key")
                .with("address", address)
                .with("keystore", self.dir.display())
        };
        let path = self.find(address).ok_or_else(missing)?;
        let failed = |e| io_error("read key", &path, e);
        let about = fs_err::metadata(&path).map_err(failed)?;
        let mode = about.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SignerError::new(SignerErrorKind::Exposed, "read key")
                .with("path", path.display())
                .with("mode", format_args!("{mode:o}"))
                .hint_with(format!("run `chmod 600 {}`", path.display())));
        }
        if about.len() > MAX_FILE {
            return Err(SignerError::new(SignerErrorKind::Malformed, "read key").with("path", path.display()));
        }
        let json = Zeroizing::new(fs_err::read(&path).map_err(failed)?);
        let key = PrivateKey::from_lotus(&json).map_err(|e| e.with("path", path.display()))?;
        if from_core(address).ok() != Some(key.address()) {
            return Err(SignerError::new(SignerErrorKind::Malformed, "read key")
                .with("path", path.display())
                .with("address", address)
                .with("what", "the key of another address"));
        }
        Ok(key)
    }
}

#[async_trait]
impl Signer for Keystore {
    async fn addresses(&self) -> Result<Vec<Address>, SignerError> {
        self.list()
    }

    async fn sign(&self, address: &Address, request: &SignRequest) -> Result<Signature, SignerError> {
        Ok(self.get(address)?.sign(&request.to_sign()))
    }

    fn suits(&self, network: &str) -> Result<(), SignerError> {
        Self::refuse_on(network)
    }
}

fn file_name(address: &str) -> String {
    BASE32_NOPAD.encode(format!("{WALLET}{address}").as_bytes())
}

fn io_error(op: &'static str, path: &Path, source: io::Error) -> SignerError {
    SignerError::new(SignerErrorKind::Io, op).with("path", path.display()).because(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signer::{Purpose, verify};

    #[tokio::test]
    async fn keys_are_made_listed_moved_and_used() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keystore::open(dir.path().join("keystore")).unwrap();
        let owner = keys.create(KeyKind::Secp256k1).unwrap();
        let worker = keys.create(KeyKind::Bls).unwrap();
        assert!(owner.as_str().starts_with("t1") && worker.as_str().starts_with("t3"));
        assert_eq!(keys.list().unwrap(), [owner.clone(), worker.clone()]);

        let other = Keystore::open(dir.path().join("other")).unwrap();
        assert_eq!(other.import(&keys.export(&owner).unwrap()).unwrap(), owner);
        assert_eq!(other.import(&keys.export(&owner).unwrap()).unwrap_err().kind(), SignerErrorKind::Exists);
        let request = SignRequest::bytes(Purpose::UNKNOWN, *b"bytes");
        let signature = other.sign(&owner, &request).await.unwrap();
        assert!(verify(&from_core(&owner).unwrap(), &signature, b"bytes"));
        assert_eq!(other.sign(&worker, &request).await.unwrap_err().kind(), SignerErrorKind::NoKey);
    }

    #[test]
    fn files_are_lotus_and_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keystore::open(dir.path()).unwrap();
        let address = keys.create(KeyKind::Bls).unwrap();
        let path = keys.find(&address).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(BASE32_NOPAD.decode(name.as_bytes()).unwrap(), format!("wallet-{address}").into_bytes());
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let json: serde_json::Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        assert_eq!(json["Type"], "bls");

        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = keys.get(&address).unwrap_err();
        assert_eq!(error.kind(), SignerErrorKind::Exposed);
        assert!(error.hint().unwrap().contains("chmod 600"));
    }

    #[test]
    fn the_key_of_another_address_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keystore::open(dir.path()).unwrap();
        let (a, b) = (keys.create(KeyKind::Bls).unwrap(), keys.create(KeyKind::Bls).unwrap());
        fs_err::copy(keys.find(&a).unwrap(), keys.find(&b).unwrap()).unwrap();
        assert_eq!(keys.get(&b).unwrap_err().kind(), SignerErrorKind::Malformed);
        fs_err::write(keys.find(&a).unwrap(), b"{").unwrap();
        assert_eq!(keys.get(&a).unwrap_err().kind(), SignerErrorKind::Malformed);
    }

    #[test]
    fn plain_text_is_for_devnets() {
        for devnet in ["devnet-2k", "devnet-fake-1", "2k", "localnet-abc"] {
            assert!(Keystore::refuse_on(devnet).is_ok(), "{devnet}");
        }
        for public in ["mainnet", "testnetnet", "calibrationnet", "", "my-devnet"] {
            assert_eq!(Keystore::refuse_on(public).unwrap_err().kind(), SignerErrorKind::Unsuitable, "{public}");
        }
    }
}
