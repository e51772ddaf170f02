//! A gateway whose admin listener wants a token.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use tempfile::TempDir;
use tidegate_config::{Bind, Secret};
use tidegate_control::client::{Answer, Client as Asker};

use super::{
    client::Client,
    gateway::{Gateway, config_file, run_to_end},
    scene::ROUTES,
};

/// The token of [`Guarded`].
pub(crate) const TOKEN: &str = "0123456789abcdef";

/// A gateway whose admin listener speaks TCP and wants a token, and that token's file.
pub(crate) struct Guarded {
    pub(crate) gateway: Gateway,
    pub(crate) file: PathBuf,
    _folder: TempDir,
}

impl Guarded {
    pub(crate) fn start(io: &str) -> Guarded {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("token");
        fs::write(&file, format!("{TOKEN}\n")).expect("a file");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("its mode");
        let config = format!(
            "version = 1\n[[listener]]\nbind = '127.0.0.1:0'\n[admin]\nbind = '127.0.0.1:0'\ntoken_file = '{}'\n{ROUTES}",
            file.display()
        );
        Guarded { gateway: Gateway::start(&config, io), file, _folder: folder }
    }

    pub(crate) fn asker(&self, token: Option<&str>) -> Asker {
        let secret = |text: &str| {
            let file = config_file(text);
            Secret::from_file(file.path().to_str().expect("a path")).expect("it can be one")
        };
        Asker { bind: Bind::Tcp(self.gateway.admin()), token: token.map(secret) }
    }

    pub(crate) fn ask(&self, token: Option<&str>) -> Answer {
        self.asker(token).ask("GET", "/livez", None).expect("an answer")
    }

    /// The status of the answer to who presents this.
    pub(crate) fn status(&self, token: Option<&str>) -> u16 {
        self.ask(token).status
    }

    /// Runs the command line with the token that its file holds now.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let admin = self.gateway.admin().to_string();
        let file = self.file.to_str().expect("a path");
        run_to_end(&[arguments, &["--admin", &admin, "--token-file", file]].concat())
    }

    /// A connection that has asked with the token for a drain, and is about to tell what to drain.
    pub(crate) fn begin(&self) -> Client {
        let mut client = Client::connect(self.gateway.admin());
        let head = format!(
            "POST /drain HTTP/1.1\r\nHost: any.test\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        );
        client.send(head.as_bytes());
        client
    }
}
