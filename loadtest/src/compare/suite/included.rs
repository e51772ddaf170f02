//! Files of servers that suites share.

use std::{fs, path::Path};

use super::{
    Mistake, Server, check_upstreams,
    raw::{RawIncluded, RawSuite},
    servers,
};
use crate::compare::template::Names;

/// One of them, as it is read.
pub(super) struct Included {
    /// For mistakes in it.
    source: Source,
    pub(super) raw: RawIncluded,
}

/// A file, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) file: String,
    pub(super) text: String,
}

impl Included {
    /// Those that a suite names, beside it.
    ///
    /// # Errors
    /// The first mistake.
    pub(super) fn read_all(raw: &RawSuite, folder: &Path) -> Result<Vec<Self>, Mistake> {
        let read = |name: &toml::Spanned<String>| {
            let path = folder.join(name.get_ref());
            let file = path.display().to_string();
            let text = fs::read_to_string(&path)
                .map_err(|error| Mistake::new(format!("{file}: {error}"), name.span()))?;
            let source = Source { file, text };
            match toml::from_str(&source.text) {
                Ok(raw) => Ok(Self { source, raw }),
                Err(error) => Err(Mistake {
                    message: error.message().to_owned(),
                    span: error.span(),
                    source: Some(Box::new(source)),
                }),
            }
        };
        raw.include.iter().map(read).collect()
    }

    /// Its upstreams, checked.
    ///
    /// # Errors
    /// The first mistake.
    pub(super) fn upstreams(&self, names: &Names) -> Result<Vec<Server>, Mistake> {
        let checked =
            check_upstreams(&self.raw.upstream).and_then(|()| servers(&self.raw.upstream, names, &[]));
        checked.map_err(|mistake| self.own(mistake))
    }

    /// Its servers, checked.
    ///
    /// # Errors
    /// The first mistake.
    pub(super) fn servers(&self, names: &Names, upstreams: &[Server]) -> Result<Vec<Server>, Mistake> {
        servers(&self.raw.server, names, upstreams).map_err(|mistake| self.own(mistake))
    }

    /// A mistake that is in this file.
    pub(super) fn own(&self, mistake: Mistake) -> Mistake {
        Mistake { source: Some(Box::new(self.source.clone())), ..mistake }
    }
}
