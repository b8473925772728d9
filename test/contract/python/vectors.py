"""Runs the vectors that protocol/README.md prints: whoever reads that page can check an implementation by them."""
import json
import re
import sys

from frames import Refused, decode, encode
from proofs import link_proof, verify_ed25519



def block(text, name):
    return re.search(rf"```{name}\n([^`]*)```", text).group(1).strip()


def verdict(data):
    try:
        message = decode(data)
    except Refused as refused:
        return refused.code
    kind = message.get("t") if isinstance(message, dict) else None
    # Optional messages are added over time: what is no string is no message in any version.
    return "message" if isinstance(kind, str) else "message.unknown"


def main():
    with open(sys.argv[1], encoding="utf8") as file:
        text = file.read()
    counts = {"messages": 0, "refused": 0}
    lines = [line.split(" ") for line in block(text, "vectors").split("\n")]
    for expected, *rest in lines:
        data = bytes.fromhex("".join(rest))
        got = verdict(data)
        if expected in ("agent", "controller"):
            assert got == "message", f"{expected} {data.hex()}: {got}"
            assert decode(encode(decode(data))) == decode(data)
            counts["messages"] += 1
        elif expected.startswith("frame."):
            assert got == expected, f"{data.hex()}: {got}, not {expected}"
            counts["refused"] += 1
    hello = bytes.fromhex(lines[0][1])
    proof = link_proof(b"\2" * 32, b"\3" * 32, b"\4" * 32, hello)
    assert proof.hex() == block(text, "proof"), "the proof's bytes"
    verify_ed25519(block(text, "signature"), block(text, "signer"), "bedplate-command", b"erase")
    print(json.dumps(counts))


main()
