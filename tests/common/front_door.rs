//! The way to the stand-in's REST API as it is to Discord's: by the name `discord.com`, over TLS. A program is led here by
//! a proxy in its environment and trusts a certificate that was made for this, and is otherwise as people run it: with
//! the library's own rate limiter, which cannot be led to another address. The gateway's address is the stand-in's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const NAME: &str = "discord.com";

pub struct FrontDoor {
    folder: tempfile::TempDir,
    address: String,
    door: tokio::task::JoinHandle<()>,
}

impl FrontDoor {
    /// Leads to `behind`, as `http://HOST:PORT`.
    pub async fn open(behind: &str) -> FrontDoor {
        let folder = tempfile::tempdir().unwrap();
        let acceptor = certificate(folder.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let behind: Arc<str> = behind.strip_prefix("http://").unwrap().trim_end_matches('/').into();
        let door = tokio::spawn(async move {
            while let Ok((visitor, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    if let Err(error) = led(visitor, acceptor, &behind).await {
                        println!("front door: {error}");
                    }
                });
            }
        });
        FrontDoor { folder, address, door }
    }

    /// What leads a program here.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("HTTPS_PROXY", self.address.clone()), ("SSL_CERT_FILE", authority(self.folder.path()).display().to_string())]
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        self.door.abort();
    }
}

/// `CONNECT discord.com:443`, and then TLS as that name.
async fn led(mut visitor: TcpStream, acceptor: TlsAcceptor, behind: &str) -> std::io::Result<()> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(visitor.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if !head.starts_with(&format!("CONNECT {NAME}:443 ")) {
        visitor.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await?;
        return Err(std::io::Error::other(format!("nobody should want {:?}", head.lines().next())));
    }
    visitor.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let mut inside = acceptor.accept(visitor).await?;
    let mut behind = TcpStream::connect(behind).await?;
    match tokio::io::copy_bidirectional(&mut inside, &mut behind).await {
        // A program that is killed says no good-bye.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn authority(folder: &Path) -> PathBuf {
    folder.join("authority.pem")
}

/// An authority of its own, and what it says of the name.
fn certificate(folder: &Path) -> TlsAcceptor {
    let made = |arguments: &str| {
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl");
        assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    made(&format!("req -x509 {key} -keyout authority.key -out authority.pem -days 2 -subj /CN=authority"));
    made(&format!("req {key} -keyout name.key -out name.csr -subj /CN={NAME}"));
    std::fs::write(folder.join("extensions"), format!("subjectAltName=DNS:{NAME}\n")).unwrap();
    made(
        "x509 -req -in name.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out name.pem",
    );
    let chain = CertificateDer::pem_file_iter(folder.join("name.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("name.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}
