"""One connection to a controller: TLS 1.3 with the pinned CA, WebSocket, whole messages (protocol/README.md, section 1).

Python's own ssl module cannot export keying material, so TLS is pyOpenSSL's and the WebSocket that of `websockets`
without its input and output.
"""
import hashlib
import select
import socket
import ssl
import time
import urllib.parse

from OpenSSL import SSL, crypto
from cryptography import x509
from websockets.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from frames import FRAME_BYTES_MAX, decode, encode

SERVER_NAME = "controller.bedplate.internal"
SUBPROTOCOL = "bedplate.v1"
EXPORTER = (b"EXPORTER-Channel-Binding", 32)


class Closed(Exception):
    """The connection has ended; `code` is the WebSocket's close code, or 1006."""

    def __init__(self, code, reason):
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def pin_ca(controller, join_token):
    """Fetches the CA from a server that nobody trusts yet; believed only if its SHA-256 is the join token's."""
    prefix, _id, _secret, pin = join_token.split(".")
    if prefix != "bedplate-join":
        raise ValueError("not a join token")
    address = urllib.parse.urlsplit(controller)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address.hostname, address.port), timeout=10) as plain:
        with context.wrap_socket(plain) as tls:
            tls.sendall(f"GET /v1/ca HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := tls.recv(65536):
                answer += piece
                if len(answer) > 65536:
                    raise ValueError("the answer to /v1/ca is too large")
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise ValueError(f"/v1/ca answered {head!r}")
    certificate = ssl.PEM_cert_to_DER_cert(body.decode())
    if hashlib.sha256(certificate).hexdigest() != pin:
        raise ValueError("controller.untrusted: the CA is not the join token's")
    return body.decode()


class Link:
    def __init__(self, controller, ca_pem, server_name=SERVER_NAME):
        address = urllib.parse.urlsplit(controller)
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.get_cert_store().add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, ca_pem.encode()))
        context.set_verify(SSL.VERIFY_PEER, lambda _link, _certificate, _error, _depth, ok: bool(ok))
        self._plain = socket.create_connection((address.hostname, address.port), timeout=10)
        self._plain.setblocking(False)
        self._tls = SSL.Connection(context, self._plain)
        self._tls.set_tlsext_host_name(server_name.encode())
        self._tls.set_connect_state()
        self._io(self._tls.do_handshake, 10)
        names = self._tls.get_peer_certificate().to_cryptography().extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        if server_name not in names.value.get_values_for_type(x509.DNSName):
            raise ValueError("controller.untrusted: the certificate has another name")
        self.exported = self._tls.export_keying_material(*EXPORTER)
        self._messages = []
        self._fragments = []
        self._socket = ClientConnection(
            parse_uri(f"wss://{address.netloc}/v1/link"), subprotocols=[SUBPROTOCOL], max_size=FRAME_BYTES_MAX
        )
        self._socket.send_request(self._socket.connect())
        self._flush()
        while self._socket.state.name == "CONNECTING":
            self._receive(10)
        if self._socket.subprotocol != SUBPROTOCOL:
            raise ValueError("the server chose another subprotocol")

    def send(self, message):
        return self.send_bytes(encode(message))

    def send_bytes(self, data):
        self._socket.send_binary(data)
        self._flush()
        return data

    def receive(self, seconds):
        """The next message; None when there is none in time. Raises Closed."""
        until = time.monotonic() + seconds
        while not self._messages:
            left = until - time.monotonic()
            if left <= 0:
                return None
            try:
                self._receive(left)
            except TimeoutError:
                return None
        return self._messages.pop(0)

    def close(self, code, reason):
        """Says goodbye and waits for the other end's."""
        self._socket.send_close(code, reason)
        self._flush()
        try:
            while True:
                self._receive(5)
        except (Closed, TimeoutError):
            self.cut()

    def cut(self):
        """Ends the connection without a word, as a power cut does."""
        self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._plain.close()

    def _receive(self, seconds):
        try:
            data = self._io(lambda: self._tls.recv(65536), seconds)
        except (SSL.ZeroReturnError, SSL.SysCallError, ConnectionError):
            data = b""
        if data:
            self._socket.receive_data(data)
        else:
            self._socket.receive_eof()
        self._flush(ended=not data)
        for event in self._socket.events_received():
            if isinstance(event, Frame):
                self._frame(event)
        if self._socket.handshake_exc is not None:
            raise self._socket.handshake_exc
        if not data:
            received = self._socket.close_rcvd
            raise Closed(received.code if received else 1006, received.reason if received else "")

    def _frame(self, frame):
        if frame.opcode not in (Opcode.BINARY, Opcode.CONT):
            return
        self._fragments.append(frame.data)
        if frame.fin:
            self._messages.append(decode(b"".join(self._fragments)))
            self._fragments = []

    def _flush(self, ended=False):
        for data in self._socket.data_to_send():
            while data and not ended:
                view = data
                data = data[self._io(lambda: self._tls.send(view), 10) :]

    def _io(self, call, seconds):
        until = time.monotonic() + seconds
        while True:
            try:
                return call()
            except SSL.WantReadError:
                wait = select.select([self._plain], [], [], max(0, until - time.monotonic()))
            except SSL.WantWriteError:
                wait = select.select([], [self._plain], [], max(0, until - time.monotonic()))
            if not any(wait):
                raise TimeoutError("the controller does not answer")
