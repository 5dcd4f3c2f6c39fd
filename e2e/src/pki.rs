//! Certificates and kubeconfigs. One authority signs everything; keys are P-256, which is much
//! cheaper than RSA for an emulated processor.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::network::{API_SERVICE, HOST};

/// How the API server knows the cluster's administrator.
pub const ADMINISTRATOR: &str = "admin";

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate itself.
    #[error("make the certificate {name}: {source}")]
    Make {
        /// Its name.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Its holder answers as one of these names and addresses.
    Server,
    /// Its holder calls.
    Client,
}

/// The lab's certificates: `NAME.crt`, `NAME.key`, `NAME.kubeconfig` in one folder.
#[derive(Debug, Clone)]
pub struct Pki {
    folder: PathBuf,
}

impl Pki {
    /// The certificates in `folder`, made if they are not there.
    ///
    /// # Errors
    /// When one cannot be made or written.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let pki = Self { folder: folder.to_owned() };
        fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
        if !pki.path("ca.crt").exists() {
            pki.make_authority()?;
        }
        if !pki.path("sa.pub").exists() {
            let key = key_pair("sa")?;
            pki.write("sa.key", &key.serialize_pem())?;
            pki.write("sa.pub", &key.public_key_pem())?;
        }
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "127.0.0.1",
            HOST,
            API_SERVICE,
        ];
        pki.certificate("apiserver", "kube-apiserver", None, Usage::Server, &names)?;
        pki.certificate(
            "kubelet-client",
            "kube-apiserver-kubelet-client",
            Some("system:masters"),
            Usage::Client,
            &[],
        )?;
        pki.certificate("front-proxy", "front-proxy", None, Usage::Client, &[])?;
        pki.account("admin", ADMINISTRATOR, Some("system:masters"))?;
        pki.account("controller-manager", "system:kube-controller-manager", None)?;
        pki.account("scheduler", "system:kube-scheduler", None)?;
        pki.account("kube-proxy", "system:kube-proxy", None)?;
        Ok(pki)
    }

    /// The certificates of a node: kubelet as a client (`NODE.kubeconfig`) and as a server
    /// (`NODE-server.crt`).
    ///
    /// # Errors
    /// When one cannot be made or written.
    pub fn node(&self, name: &str, address: &str) -> Result<(), Error> {
        let user = format!("system:node:{name}");
        self.account(name, &user, Some("system:nodes"))?;
        let server = format!("{name}-server");
        self.certificate(&server, &user, Some("system:nodes"), Usage::Server, &[name, address])
    }

    /// A file of the folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// A client certificate and the kubeconfig that holds it.
    fn account(&self, name: &str, user: &str, group: Option<&str>) -> Result<(), Error> {
        self.certificate(name, user, group, Usage::Client, &[])?;
        let file = format!("{name}.kubeconfig");
        if self.path(&file).exists() {
            return Ok(());
        }
        let inline = |file: &str| Ok::<_, Error>(STANDARD.encode(self.read(file)?));
        let (authority, certificate, key) =
            (inline("ca.crt")?, inline(&format!("{name}.crt"))?, inline(&format!("{name}.key"))?);
        self.write(
            &file,
            &format!(
                "apiVersion: v1\n\
                 kind: Config\n\
                 clusters:\n\
                 - name: lab\n\
                 \x20 cluster:\n\
                 \x20   server: https://{HOST}:6443\n\
                 \x20   certificate-authority-data: {authority}\n\
                 users:\n\
                 - name: {name}\n\
                 \x20 user:\n\
                 \x20   client-certificate-data: {certificate}\n\
                 \x20   client-key-data: {key}\n\
                 contexts:\n\
                 - name: lab\n\
                 \x20 context: {{cluster: lab, user: {name}}}\n\
                 current-context: lab\n"
            ),
        )
    }

    fn certificate(
        &self,
        name: &str,
        common_name: &str,
        organization: Option<&str>,
        usage: Usage,
        names: &[&str],
    ) -> Result<(), Error> {
        let file = format!("{name}.crt");
        if self.path(&file).exists() {
            return Ok(());
        }
        let make = |source| Error::Make { name: name.to_owned(), source };
        let authority = KeyPair::from_pem(&self.read("ca.key")?).map_err(make)?;
        let issuer = Issuer::new(authority_params().map_err(make)?, authority);
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).map_err(make)?;
        validity(&mut params);
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = key_pair(name)?;
        let certificate = params.signed_by(&key, &issuer).map_err(make)?;
        self.write(&format!("{name}.key"), &key.serialize_pem())?;
        self.write(&file, &certificate.pem())
    }

    fn make_authority(&self) -> Result<(), Error> {
        let make = |source| Error::Make { name: "ca".to_owned(), source };
        let key = key_pair("ca")?;
        let certificate = authority_params().and_then(|params| params.self_signed(&key)).map_err(make)?;
        self.write("ca.key", &key.serialize_pem())?;
        self.write("ca.crt", &certificate.pem())
    }

    fn read(&self, file: &str) -> Result<String, Error> {
        let path = self.path(file);
        fs::read_to_string(&path).map_err(|source| Error::File { path, source })
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.path(file);
        let mut open = fs::File::options();
        open.create(true).truncate(true).write(true).mode(0o600);
        open.open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(|source| Error::File { path, source })
    }
}

/// What is said about the authority; with its key this is all that signing needs.
fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    validity(&mut params);
    params.distinguished_name.push(DnType::CommonName, "invivo-lab");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn key_pair(name: &str) -> Result<KeyPair, Error> {
    KeyPair::generate().map_err(|source| Error::Make { name: name.to_owned(), source })
}

/// From the year before to ten years on: guests' clocks may be a little behind.
fn validity(params: &mut CertificateParams) {
    let year = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year());
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + 10, 1, 1);
}
