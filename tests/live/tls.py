"""TLS in front of a server of this machine, and an authority that nobody knows who is not told of it."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)


class Authority(NamedTuple):
    """``certificate``: PEM of who signs; ``server``: PEM of key and certificate of the server."""

    certificate: Path
    server: Path


def write_authority(folder: Path, host: str, *, expired: bool = False) -> Authority:
    """Make an authority and a certificate of a host signed by it."""
    folder.mkdir()
    now = datetime.datetime.now(datetime.UTC)
    until = now - _DAY if expired else now + _DAY
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("an authority", "a server")
    ]

    def builder(index: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .issuer_name(names[0])
            .subject_name(names[index])
            .public_key(keys[index].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * _DAY)
            .not_valid_after(until if index else now + _DAY)
            .add_extension(x509.BasicConstraints(ca=not index, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[index].public_key()), False)
        )

    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    signer = builder(0).add_extension(usage, critical=True).sign(keys[0], hashes.SHA256())
    server = (
        builder(1)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(keys[0], hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    found = Authority(folder / "authority.pem", folder / "server.pem")
    found.certificate.write_bytes(signer.public_bytes(pem))
    key = keys[1].private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    found.server.write_bytes(key + server.public_bytes(pem))
    return found


@contextmanager
def tls_before(port: int, authority: Authority) -> Iterator[int]:
    """Serve what a port of this machine serves by TLS; yield the port for that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server)
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    stop, ready = asyncio.Event(), threading.Event()
    writers: set[asyncio.StreamWriter] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with suppress(OSError, ssl.SSLError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(relay(reader, there[1]), relay(there[0], writer))

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        server.close()
        for writer in writers:
            writer.transport.abort()
        if serving := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(serving, timeout=5.0)

    def work() -> None:
        loop.set_exception_handler(lambda *_: None)  # of clients that refuse the handshake
        loop.run_until_complete(run())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(10.0)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10.0)
