//! Secrets are compared, bounded, and not shown.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

fn secret(text: &str) -> Secret {
    Secret::parse(text).unwrap_or_else(|mistake| panic!("{mistake:?}"))
}

#[test]
fn a_secret_is_itself_alone() {
    let own = secret("0123456789abcdef");
    assert!(own.is(b"0123456789abcdef"));
    for other in ["", "0", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", "1123456789abcdef"] {
        assert!(!own.is(other.as_bytes()), "{other}");
    }
    assert!(!own.is(&[0xff; 16]) && !Secret::unread("/a").is(b"/a") && !Secret::unread("/a").is(b""));
    assert_eq!(format!("{own:?}"), "Secret(..)");
    assert_eq!(format!("{:?}", Secret::unread("/a")), "Secret(/a)");
}

#[test]
fn a_secret_has_16_to_512_printable_bytes() {
    for text in ["x".repeat(16), "x".repeat(512), "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~".to_owned()] {
        assert!(secret(&text).is(text.as_bytes()));
    }
    for text in
        ["", &"x".repeat(15), &"x".repeat(513), "0123456789 abcdef", "0123456789abcdef\n", "ääääääääääääääää"]
    {
        let mistake = Secret::parse(text).unwrap_err();
        assert!(mistake.suggestion.is_none() && !mistake.message.contains("0123"), "{mistake:?}");
    }
}

#[test]
fn a_file_holds_one_and_may_be_exposed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let name = path.to_str().unwrap();
    let told = |name: &str| Secret::read(name).unwrap_err().message;
    assert_eq!(told(name), "the key file does not exist");
    assert_eq!(told(folder.path().to_str().unwrap()), "the key file is not a regular file");
    assert_eq!(told("/dev/zero"), "the key file is not a regular file");
    for (content, why) in [
        (&b""[..], "a key has at least 16 bytes, and this has 0"),
        (b"  short\n", "a key has at least 16 bytes, and this has 5"),
        (
            b"0123456789abcdef\nname = x\n",
            "a key is printable ASCII without spaces: it is sent in a field of a request",
        ),
        (&[b'x'; 5000], "a key has at most 512 bytes"),
        (&[0xff; 20], "it is not text"),
    ] {
        fs::write(&path, content).unwrap();
        assert_eq!(told(name), format!("the key file holds no key: {why}"));
    }
    fs::write(&path, "\t0123456789abcdef \r\n").unwrap();
    for (mode, open) in [
        (0o600, false),
        (0o400, false),
        (0o640, false),
        (0o644, true),
        (0o660, true),
        (0o602, true),
        (0o604, true),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (secret, exposure) = Secret::read(name).unwrap();
        assert!(secret.is(b"0123456789abcdef"));
        assert_eq!(exposure, if open { Exposure::Open(mode) } else { Exposure::Private }, "{mode:o}");
    }
}
