"""Certificates for tests, valid for a hundred years.

They were made with openssl: an authority (basicConstraints CA:TRUE, keyUsage keyCertSign), and two
that it has signed (subjectAltName localhost, both key identifiers: Python 3.13 asks for them).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

CA: Final = """\
-----BEGIN CERTIFICATE-----
MIIBkjCCATegAwIBAgIUPTyPZiFNbfktq1rnrtFdF+RACSgwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ZkYiB0ZXN0czAgFw0yNjExMjYxMjU2MTBaGA8yMTI2MTEw
MjEyNTYxMFowFTETMBEGA1UEAwwKa3ZkYiB0ZXN0czBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABDYpBoE+uPtQzTryxyRJCY7uo0Yu/eCfb4IF6fbdjUfxcEuLka9A
p8Ibnv84GM+z0F6yRFw8i0wGeXSAm7PtKSmjYzBhMB0GA1UdDgQWBBSCUccWQ1FX
nEveoUrelaKT73ehVjAfBgNVHSMEGDAWgBSCUccWQ1FXnEveoUrelaKT73ehVjAP
BgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIBBjAKBggqhkjOPQQDAgNJADBG
AiEA37299unSEjhbc43s/VU63uuT1RBlEpfQfVcUHNatpKsCIQD25AoydTQzGdaX
FWfUFbyt8Yl6JV4mMCwQRz5C2eYZBw==
-----END CERTIFICATE-----
"""
"""The authority that has signed the next two."""

SERVER: Final = """\
-----BEGIN CERTIFICATE-----
MIIBuDCCAV6gAwIBAgICYUswCgYIKoZIzj0EAwIwFTETMBEGA1UEAwwKa3ZkYiB0
ZXN0czAgFw0yNjExMjYxMjU2MTBaGA8yMTI2MTEwMjEyNTYxMFowFDESMBAGA1UE
AwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEF652kFw0Jvb2
+2hKaEztFnKg7Rez2MGnKFEDlQbmDDTijbAwyY0Mi2dZ0fNrwpCcsYhbzXFToMFY
GHw/GBPAVaOBnDCBmTAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwDAYDVR0T
AQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwHQYDVR0lBBYwFAYIKwYBBQUHAwEGCCsG
AQUFBwMCMB0GA1UdDgQWBBS/2YsOzKzRHtfps5eotZQhNulD8jAfBgNVHSMEGDAW
gBSCUccWQ1FXnEveoUrelaKT73ehVjAKBggqhkjOPQQDAgNIADBFAiAHxmPWVE8r
bp/YgNhiHxzdhQ4tmja2rl5prZrICZX+jgIhAKtjjiOIeXquL8Ee4ZyC5/LYnMMp
3BmthX39Qzs5KAOo
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWeEFqndJ+SnGZ9QX
UiihcDVWr0PU12TrabStQsFFdhChRANCAAQXrnaQXDQm9vb7aEpoTO0WcqDtF7PY
wacoUQOVBuYMNOKNsDDJjQyLZ1nR82vCkJyxiFvNcVOgwVgYfD8YE8BV
-----END PRIVATE KEY-----
"""
"""A certificate for localhost and 127.0.0.1, and its key."""

CLIENT: Final = """\
-----BEGIN CERTIFICATE-----
MIIBtzCCAV6gAwIBAgICBocwCgYIKoZIzj0EAwIwFTETMBEGA1UEAwwKa3ZkYiB0
ZXN0czAgFw0yNjExMjYxMjU2MTBaGA8yMTI2MTEwMjEyNTYxMFowFDESMBAGA1UE
AwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEPAdikxFCfslR
mwJSisuqniNVC9kkkVxgGLSEpVxQnhSg43mWKlu4YwHPXrQOzdTHhyfSavcqqwbG
rwwS+1icQ6OBnDCBmTAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwDAYDVR0T
AQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwHQYDVR0lBBYwFAYIKwYBBQUHAwEGCCsG
AQUFBwMCMB0GA1UdDgQWBBRqHkfH7k4ZESUz2UpQ9BBMa02a6DAfBgNVHSMEGDAW
gBSCUccWQ1FXnEveoUrelaKT73ehVjAKBggqhkjOPQQDAgNHADBEAiBHmO3+mKuf
b2slNsHqG9yQZmkMW4kUX2ydaHytLZkCfAIgFE7KefxPRkb02cnB9ERLrsdODcQX
MvKQtkvJhkthhn4=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgbLkoOugNdluIAwwP
fJWRlyxFZFuDSq3CoHkT+WJG0SehRANCAAQ8B2KTEUJ+yVGbAlKKy6qeI1UL2SSR
XGAYtISlXFCeFKDjeZYqW7hjAc9etA7N1MeHJ9Jq9yqrBsavDBL7WJxD
-----END PRIVATE KEY-----
"""
"""Another one that the authority has signed, for clients."""

OTHER: Final = """\
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUDwrY6SrvVb4t0QyyjUr4fdfF/owwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNjEyNTYxMFoYDzIxMjYxMTAy
MTI1NjEwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQIdLvRosAw0M8/KEidwPlpc4misWqoVLL3tNJbqIuabExqqLtKSvfk
N4pJyTXUbT19egtT95vHQYvuBKGghjSgo28wbTAdBgNVHQ4EFgQULezWaYV+lFVp
VcRIkcwXqAa8uEMwHwYDVR0jBBgwFoAULezWaYV+lFVpVcRIkcwXqAa8uEMwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIge4AbBEa+vuAXhKKHwamXZ9XKj7415EVCsHJ9GkqSbjkCIQDk
wsmv0xbPldI06X91Scm7QQjk+RKN3F7TYg4ej8fvdA==
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgwkgSzIjqmjSxEv1i
N7v9vwr1gsJiRlVHtyAuHKNCrgChRANCAAQIdLvRosAw0M8/KEidwPlpc4misWqo
VLL3tNJbqIuabExqqLtKSvfkN4pJyTXUbT19egtT95vHQYvuBKGghjSg
-----END PRIVATE KEY-----
"""
"""One for localhost that has signed itself: nobody knows it."""


def write_certificates(folder: Path) -> None:
    """Put all of them into a folder, as ca.pem, server.pem, client.pem and other.pem."""
    for name, text in (("ca", CA), ("server", SERVER), ("client", CLIENT), ("other", OTHER)):
        (folder / f"{name}.pem").write_text(text)


def client_context(folder: Path, certificate: str | None = None) -> ssl.SSLContext:
    """Return what a client needs that trusts the authority, and shows this certificate."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if certificate:
        context.load_cert_chain(folder / f"{certificate}.pem")
    return context
