"""Signed bytes: the proof of a link key and SSHSIG (protocol/README.md, sections 3 and 6)."""
import base64
import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def string(data):
    return struct.pack(">I", len(data)) + data


def signed_data(namespace, message, hash_name="sha512"):
    digest = hashlib.new(hash_name, message).digest()
    return (
        b"SSHSIG" + string(namespace.encode()) + string(b"") + string(hash_name.encode()) + string(digest)
    )


def link_proof(agent_nonce, controller_nonce, exported, hello):
    return signed_data(
        "bedplate-link", agent_nonce + controller_nonce + exported + hashlib.sha256(hello).digest()
    )


def read_string(data, at):
    (length,) = struct.unpack_from(">I", data, at)
    return data[at + 4 : at + 4 + length], at + 4 + length


def verify_ed25519(armored, signer, namespace, message):
    """Raises unless the armored signature is by the Ed25519 key of the line `signer`, over `message`."""
    lines = armored.strip().split("\n")
    assert lines[0] == "-----BEGIN SSH SIGNATURE-----" and lines[-1] == "-----END SSH SIGNATURE-----"
    blob = base64.b64decode("".join(lines[1:-1]), validate=True)
    assert blob[:10] == b"SSHSIG" + struct.pack(">I", 1)
    key, at = read_string(blob, 10)
    said, at = read_string(blob, at)
    _reserved, at = read_string(blob, at)
    hash_name, at = read_string(blob, at)
    proof, at = read_string(blob, at)
    assert at == len(blob) and said == namespace.encode()
    assert key == base64.b64decode(signer.split(" ")[1])
    kind, start = read_string(key, 0)
    point, _ = read_string(key, start)
    algorithm, start = read_string(proof, 0)
    value, end = read_string(proof, start)
    assert kind == algorithm == b"ssh-ed25519" and end == len(proof)
    data = signed_data(namespace, message, hash_name.decode())
    Ed25519PublicKey.from_public_bytes(point).verify(value, data)
