"""A small web for the download benchmark: pictures of web-like sizes behind nginx on loopback, plain and TLS."""

import contextlib
import datetime
import io
import ipaddress
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import certifi
import cv2
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image
from sklearn.datasets import load_sample_images

PLAIN_PORT, TLS_PORT = 18080, 18443
SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_CONFIG = """
worker_processes 1;
{user}
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 4096; }}
http {{
  log_format times '$msec';
  access_log {root}/access.log times buffer=64k flush=1s;
  sendfile on; keepalive_requests 100000; default_type image/jpeg;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{ listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{tls} ssl backlog=4096;
    ssl_certificate {root}/server.pem; ssl_certificate_key {root}/server.key; root {root}/site; }}
}}
"""


def make_site(folder: Path, kind: str, num_bodies: int, seed: int = 0) -> list[str]:
    """Write `num_bodies` different pictures and return their paths.

    `web`: about 640 x 480 in the median, a tenth with a longer side above 2048 px; 86 % JPEG, 8 % PNG, 6 % WebP. `small`:
    JPEGs with a shorter side of 256 px.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    photos = [np.ascontiguousarray(photo[..., ::-1]) for photo in load_sample_images().images]
    paths = []
    for number in range(num_bodies):
        width, height = _size(rng) if kind == "web" else (int(rng.integers(256, 456)), 256)
        draw = rng.random() if kind == "web" and width * height < 1_500_000 else 0.0
        suffix = "jpg" if draw < 0.86 else "png" if draw < 0.94 else "webp"
        path = folder / f"{kind}{number}.{suffix}"
        _write(path, _picture(rng, photos[number % 2], width, height), int(rng.integers(75, 93)))
        paths.append(path.name)
    return paths


def _size(rng: np.random.Generator) -> tuple[int, int]:
    if rng.random() < 0.1:
        width = int(rng.integers(2049, 4097))
    else:
        width = int(np.clip(600 * np.exp(rng.normal(0, 0.45)), 120, 2048))
    width, height = width, max(64, round(width * float(rng.choice([0.75, 0.75, 0.667, 1.0, 0.5625]))))
    return (width, height) if rng.random() < 0.75 else (height, width)


def _picture(rng: np.random.Generator, photo: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a random part of a photograph at a size, with a camera's grain."""
    top, left = int(rng.integers(0, 100)), int(rng.integers(0, 150))
    part = photo[top : top + 320, left : left + 480]
    grown = cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(grown + rng.normal(0, 2, (height, width, 1)).astype(np.int16), 0, 255).astype(np.uint8)


def _write(path: Path, pixels: np.ndarray, quality: int) -> None:
    out = io.BytesIO()
    picture = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    name = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[path.suffix[1:]]
    picture.save(out, name, **({} if name == "PNG" else {"quality": quality}))
    path.write_bytes(out.getvalue())


@contextlib.contextmanager
def serving(root: Path) -> Iterator[None]:
    """Serve `root`/site over HTTP and HTTPS until the end of the block."""
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        raise SystemExit("bench-download needs nginx (apt install nginx-light)")
    make_certificates(root)
    config = root / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_CONFIG.format(root=root, plain=PLAIN_PORT, tls=TLS_PORT, user=user))
    server = subprocess.Popen(
        [nginx, "-c", str(config), "-g", "daemon off;"], cwd=root, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        if server.poll() is not None:
            raise SystemExit(f"nginx did not start: {(root / 'nginx.log').read_text()[-300:]}")
        yield
    finally:
        server.terminate()
        server.wait(10)


def make_certificates(root: Path) -> Path:
    """Write a CA, a server certificate for 127.0.0.1 and the system's bundle with that CA; return the bundle."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server")}

    def certificate(name: str, extension: x509.ExtensionType) -> x509.Certificate:
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark CA")])
        subject = (
            issuer if name == "ca" else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        )
        builder = x509.CertificateBuilder(
            issuer, subject, keys[name].public_key(), x509.random_serial_number()
        )
        builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=2))
        return builder.add_extension(extension, critical=name == "ca").sign(keys["ca"], hashes.SHA256())

    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    pem = serialization.Encoding.PEM
    authority = certificate("ca", x509.BasicConstraints(ca=True, path_length=None)).public_bytes(pem)
    (root / "server.pem").write_bytes(certificate("server", names).public_bytes(pem))
    (root / "server.key").write_bytes(
        keys["server"].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    system = SYSTEM_BUNDLE if SYSTEM_BUNDLE.exists() else Path(certifi.where())
    bundle = root / "bundle.pem"
    bundle.write_bytes(system.read_bytes() + b"\n" + authority)
    return bundle
