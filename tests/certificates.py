"""Certificates for tests, valid for a hundred years; whoever wants to can make others:

openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt > server.key
openssl req -new -key server.key -subj /CN=localhost | openssl x509 -req -CA ca.pem ...
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

CA: Final = """\
-----BEGIN CERTIFICATE-----
MIIBgTCCASegAwIBAgIUfxQfAD/DwjadrRJczz8toSsxWM8wCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ZkYiB0ZXN0czAgFw0yNjExMjYxMjE3MDdaGA8yMTI2MTEw
MjEyMTcwN1owFTETMBEGA1UEAwwKa3ZkYiB0ZXN0czBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABHGJ1LFNFki2/+7ZJCgNqRaf2CWkK5Z0Ui+yLlk2hFUG82rIrMd8
5weN/IJIUBeEJ8dDepkkOPN6kdQVmJ9Kk9SjUzBRMB0GA1UdDgQWBBQ3jaVZghZC
WuLwtdrY7rvte092hTAfBgNVHSMEGDAWgBQ3jaVZghZCWuLwtdrY7rvte092hTAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIBgaGU26Nc+I7NYX/pel
pZGGO69PO/pQcDpJs1MffSajAiEAykAOdPekaKn3Y4SSbhmzhWfEQQRSDvGFqRpe
qMJbdh8=
-----END CERTIFICATE-----
"""
"""The authority that has signed the next two."""

SERVER: Final = """\
-----BEGIN CERTIFICATE-----
MIIBgzCCASqgAwIBAgICaiEwCgYIKoZIzj0EAwIwFTETMBEGA1UEAwwKa3ZkYiB0
ZXN0czAgFw0yNjExMjYxMjE3MDdaGA8yMTI2MTEwMjEyMTcwN1owFDESMBAGA1UE
AwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbw89Ct8tZ9/1
1rvKyR+erTnilLurkKhjCn9uKeDi8xz4mEm9Tb8/VY5kSkcUnCmmaPu/0hG2g1hn
pn3QoqkD3qNpMGcwGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMAkGA1UdEwQC
MAAwHQYDVR0OBBYEFJcs3waruEUYb5QyrMByQT97g9tlMB8GA1UdIwQYMBaAFDeN
pVmCFkJa4vC12tjuu+17T3aFMAoGCCqGSM49BAMCA0cAMEQCIHk4ybWOKOG8nnwQ
uiydNi8aflc5ktwfzX6+qJsnEHV7AiBQ+pd4B+jVCk/a2CYLqmEwgcKYdFYe+Htc
0sp9njvf/Q==
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjlUJHDtSJkVkbCyk
lZXuUmTKOVf8uIgKwiaS5tJipyqhRANCAARvDz0K3y1n3/XWu8rJH56tOeKUu6uQ
qGMKf24p4OLzHPiYSb1Nvz9VjmRKRxScKaZo+7/SEbaDWGemfdCiqQPe
-----END PRIVATE KEY-----
"""
"""A certificate for localhost and 127.0.0.1, and its key."""

CLIENT: Final = """\
-----BEGIN CERTIFICATE-----
MIIBgzCCASqgAwIBAgICXY0wCgYIKoZIzj0EAwIwFTETMBEGA1UEAwwKa3ZkYiB0
ZXN0czAgFw0yNjExMjYxMjE3MDdaGA8yMTI2MTEwMjEyMTcwN1owFDESMBAGA1UE
AwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwQULCCzXQwBS
lwFCjmwO974Quh/khdV5VPh8hvyqwmhcVzXsFs2W5DekySZQwUi2insP3w8FWd9N
JxNBw12qUKNpMGcwGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMAkGA1UdEwQC
MAAwHQYDVR0OBBYEFOBTqi6U4sWuS3lmZU4sa/WGQA7QMB8GA1UdIwQYMBaAFDeN
pVmCFkJa4vC12tjuu+17T3aFMAoGCCqGSM49BAMCA0cAMEQCIHcEPtSUXplnUuR6
JBtVoX9xTfI7uWa2X9SJWFUIaDV8AiAmKc6jvs6wAzpwl/jIrj1PPgfb/FcTETq3
ewwLEsvIng==
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgTsn3ifppDLxnhz1/
gIkg5YXnV1168ckrVCsgpUhsU9+hRANCAATBBQsILNdDAFKXAUKObA73vhC6H+SF
1XlU+HyG/KrCaFxXNewWzZbkN6TJJlDBSLaKew/fDwVZ300nE0HDXapQ
-----END PRIVATE KEY-----
"""
"""Another one that the authority has signed, for clients."""

OTHER: Final = """\
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUUJ6BB1e6U7Fei3W1olF6qMpG6d0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNjEyMTcwN1oYDzIxMjYxMTAy
MTIxNzA3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARXjZQMxmTpCdphHHSKYxFpF1y0w7gt8+izxEREWsDcYe4jILjOcbpM
+nd6HQ2ipx0chQGK8n52+ByXKMqwP53uo28wbTAdBgNVHQ4EFgQUoyE7uXz5eq+r
Sq2PObt7/rzxMfUwHwYDVR0jBBgwFoAUoyE7uXz5eq+rSq2PObt7/rzxMfUwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhAJRQteMn0cjoUUyjCvYDJ3Qdw78KhkQcErZsn6DilXNiAiAO
UkYEIuiKg39ICKoba2+ZTY7XbO5i0LBYXISNcxiJpQ==
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg4TLgkgPcKOkBXa8n
8NhYj82tttq23B5QfzaVtn7d2XKhRANCAARXjZQMxmTpCdphHHSKYxFpF1y0w7gt
8+izxEREWsDcYe4jILjOcbpM+nd6HQ2ipx0chQGK8n52+ByXKMqwP53u
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
