"""Certificates for the checks, made by the `openssl` command (3.0 or later): an authority, and those that it signs."""

import base64
import hashlib
import pathlib
import subprocess

CONFIGURATION = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[issued]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = %s
"""


class Authority:
    """An authority whose files stand in `folder`; its certificate is `ca`."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca = self.folder / "ca.pem"
        self._make("ca", "authority", "DNS:unused", [])

    def issue(self, stem, names):
        """A certificate for `names` ("DNS:localhost", "IP:127.0.0.1"); its file and its key's."""
        return self._make(stem, "issued", ", ".join(names), ["-CA", self.ca, "-CAkey", self.folder / "ca.key"])

    def _make(self, stem, section, names, signer):
        configuration = self.folder / (stem + ".cnf")
        configuration.write_text(CONFIGURATION % names)
        certificate, key = self.folder / (stem + ".pem"), self.folder / (stem + ".key")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=tidegate checks " + stem, "-config", configuration, "-extensions", section]
        command += [*signer, "-keyout", key, "-out", certificate]
        made = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if made.returncode != 0:
            raise OSError("openssl made no certificate: " + " ".join(made.stderr.split())[-300:])
        # It made the key for its owner alone already where it can; the gateway warns where others may read it.
        key.chmod(0o600)
        return certificate, key


def setting(certificate, key):
    """The pair as a listener names it."""
    return 'certificate_file = "%s"\nkey_file = "%s"\n' % (certificate, key)


def pin(certificate):
    """The SHA-256 of its public key in base64, as browsers name keys (RFC 7469 §2.4)."""
    pem = subprocess.run(
        ["openssl", "x509", "-in", str(certificate), "-pubkey", "-noout"], check=True, stdin=subprocess.DEVNULL, capture_output=True
    ).stdout.decode()
    key = base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-----")))
    return base64.b64encode(hashlib.sha256(key).digest()).decode()
