//! Signatures for the kernel's own check, and a kernel that trusts whoever made them.

use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A key made for the occasion, which no kernel knows.
pub(crate) struct Signer {
    folder: TempDir,
    certificate: Vec<u8>,
}

impl Signer {
    /// One whose certificate has that many bytes.
    fn with_length(length: usize) -> Result<Self, Box<dyn Error>> {
        let signer = Self { folder: tempfile::tempdir()?, certificate: Vec::new() };
        run(Command::new("openssl")
            .args(["genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
            .arg(signer.path("key.pem")))?;
        // A comment makes it longer, each letter by one.
        let some = 300;
        let more = length.checked_sub(signer.certify(some)?.len()).ok_or("no room for a certificate")?;
        let certificate = signer.certify(some + more)?;
        if certificate.len() != length {
            return Err(format!("a certificate of {} bytes and not {length}", certificate.len()).into());
        }
        Ok(Self { certificate, ..signer })
    }

    /// One whose certificate takes the place of the kernel's own in this image.
    pub(crate) fn for_kernel(vmlinux: &[u8]) -> Result<Self, Box<dyn Error>> {
        Self::with_length(certificate(vmlinux)?.len())
    }

    /// Lets a kernel trust this signer in its builder's place.
    pub(crate) fn be_trusted(&self, vmlinux: &mut [u8]) -> Result<(), Box<dyn Error>> {
        let place = certificate(vmlinux)?;
        vmlinux[place].copy_from_slice(&self.certificate);
        Ok(())
    }

    /// Signs a module as a distribution does.
    pub(crate) fn sign(&self, tree: &Path, module: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
        let file = self.path("module.ko");
        std::fs::write(&file, module)?;
        let [key, certificate] = ["key.pem", "certificate"].map(|name| self.path(name));
        run(Command::new(tree.join("scripts/sign-file")).arg("sha256").args([&key, &certificate, &file]))?;
        Ok(std::fs::read(file)?)
    }

    fn certify(&self, comment: usize) -> Result<Vec<u8>, Box<dyn Error>> {
        let file = self.path("certificate");
        run(Command::new("openssl")
            .args(["req", "-new", "-x509", "-batch", "-sha256", "-subj", "/CN=nobody", "-outform", "DER"])
            .args(["-addext", &format!("nsComment={}", "x".repeat(comment))])
            .arg("-key")
            .arg(self.path("key.pem"))
            .arg("-out")
            .arg(&file))?;
        Ok(std::fs::read(file)?)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

/// Where the kernel has the one certificate that it trusts: that of the key which signed its modules.
fn certificate(vmlinux: &[u8]) -> Result<Range<usize>, Box<dyn Error>> {
    // A sequence (its length in two bytes) that begins with a sequence that begins with version 3.
    let is_certificate = |bytes: &[u8]| {
        matches!(bytes, [0x30, 0x82, _, _, 0x30, 0x82, _, _, 0xa0, 0x03, 0x02, 0x01, 0x02, ..])
    };
    let found: Vec<_> = vmlinux.windows(13).enumerate().filter(|(_, bytes)| is_certificate(bytes)).collect();
    let [(at, [_, _, high, low, ..])] = found.as_slice() else {
        return Err(format!("{} certificates in the kernel", found.len()).into());
    };
    Ok(*at..*at + 4 + usize::from(u16::from_be_bytes([*high, *low])))
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}
