"""TLS over the raw socket's bytes, so that the kernel's stamps of the socket stay in use."""

from __future__ import annotations

import asyncio
import socket
import ssl

_READ_BYTES = 65536


def client_context(cacert: str | None = None, insecure: bool = False) -> ssl.SSLContext:
    """Verifies by default, against the system's authorities or `cacert`; offers HTTP/1.1 only."""
    context = ssl.create_default_context(cafile=cacert)
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class TlsLayer:
    """Turns ciphertext into plaintext and back through memory BIOs; owns no socket."""

    __slots__ = ("_incoming", "_outgoing", "_ssl", "closed")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.closed = False

    async def handshake(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Raises ssl.SSLError (verification included) or ConnectionError."""
        while True:
            try:
                self._ssl.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush(loop, sock)
                data = await loop.sock_recv(sock, _READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server closed the connection during the TLS handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                await self._flush(loop, sock)  # the alert tells the server why
                raise
        await self._flush(loop, sock)

    async def _flush(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        if self._outgoing.pending:
            await loop.sock_sendall(sock, self._outgoing.read())

    def encrypt(self, data: bytes) -> bytes:
        self._ssl.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """All plaintext that these bytes complete; sets `closed` at the peer's close_notify. Raises ssl.SSLError."""
        self._incoming.write(data)
        pieces: list[bytes] = []
        while True:
            try:
                piece = self._ssl.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                self.closed = True
                break
            if not piece:
                self.closed = True
                break
            pieces.append(piece)
        return b"".join(pieces)
