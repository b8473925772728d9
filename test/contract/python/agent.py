"""An agent in Python, written from protocol/README.md alone: joins, proves itself, takes commands, tells what came of them.

Prints one line of JSON for each thing that happens, for the test that runs it.
"""
import argparse
import hashlib
import json
import os
import sys
import time

from frames import encode
from link import Closed, Link, pin_ca
from proofs import link_proof
from state import State


def now():
    return int(time.time() * 1000)


def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


class Agent:
    def __init__(self, options):
        self.options = options
        self.state = State(options.state)
        self.sent = 0
        self.batches = 0
        if self.state["ca"] is None:
            self.state.update(ca=pin_ca(options.controller, options.join))
        self.previous = None

    def connect(self):
        link = Link(self.options.controller, self.state["ca"])
        nonce = os.urandom(32)
        hello = {
            "t": "hello",
            "versions": {"min": 1, "max": 1},
            "agentVersion": "python",
            "linkKey": self.state.link_key,
            "nonce": nonce,
            "instance": self.state["instance"],
            "bootId": "a-boot",
            "hostname": "python-host",
        }
        if self.previous is not None:
            hello["previousSession"] = self.previous
        frame = link.send(hello)
        challenge = self.expect(link, "challenge")
        proof = link_proof(nonce, challenge["nonce"], link.exported, frame)
        auth = {"t": "auth", "signature": self.state.key.sign(proof)}
        if not self.state["joined"]:
            auth |= {"joinToken": self.options.join, "name": self.options.name}
        link.send(auth)
        welcome = self.expect(link, "welcome")
        assert welcome["host"] == hashlib.sha256(self.state.link_key).hexdigest()
        self.previous = welcome["session"]
        self.state.update(joined=True)
        self.state.resume(welcome["records"])
        fingerprint = welcome["host"][:16].upper()
        say(
            "welcome",
            host=welcome["host"],
            fingerprint="-".join(fingerprint[k : k + 4] for k in range(0, 16, 4)),
            name=welcome["name"],
            records=welcome["records"],
            samples=welcome["samples"],
        )
        return link, welcome

    @staticmethod
    def expect(link, kind):
        message = link.receive(10)
        if message is None or message["t"] != kind:
            raise SystemExit(f"{kind} was due, this came: {message}")
        return message

    def session(self, link, welcome):
        """Until all results that are wanted are acknowledged, or the connection is cut on purpose."""
        sent_to = welcome["records"]
        beat_at = 0.0
        samples = welcome["samples"]
        link.send(DICTIONARY)
        for data in BATCHES:
            samples += 1
            link.send({**data, "seq": samples, "at": now()})
        while True:
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + welcome["heartbeatMs"] / 1000
                link.send(self.heartbeat())
            for record in self.state["records"]:
                if record["seq"] <= sent_to:
                    continue
                link.send({"t": "record", **record})
                say("sent", seq=record["seq"], type=record["body"]["type"])
                sent_to = record["seq"]
                self.sent += 1
                if self.sent == self.options.cut_after:
                    link.cut()
                    say("cut")
                    return False
            message = link.receive(0.2)
            if message is not None:
                self.take(message)
            done = [each for each in self.state["operations"].values() if each["ended"]]
            if len(done) >= self.options.results and not self.state["records"]:
                link.send({"t": "goaway", "reason": "the test is over"})
                link.close(4000, "bye")
                return True

    def heartbeat(self):
        return {
            "t": "heartbeat",
            "at": now(),
            "operations": [
                {"id": name, "state": "running"}
                for name, operation in self.state["operations"].items()
                if not operation["ended"]
            ],
            "outbox": {"records": len(self.state["records"]), "recordBytes": 0, "sampleBytes": 0},
        }

    def take(self, message):
        match message["t"]:
            case "offer":
                self.offered(message)
            case "ack":
                self.state.resume(message["records"])
            case "cancel" | "heartbeat":
                pass
            case "goaway":
                say("goaway", reason=message["reason"])
            case other:
                say("ignored", type=other)

    def offered(self, offer):
        document = json.loads(offer["document"].decode("utf8"))
        command = document["id"]
        digest = hashlib.sha256(offer["document"]).hexdigest()
        known = self.state["operations"].get(command)
        say("offer", command=command, known=known is not None, generation=offer["generation"])
        if known is not None:
            assert known["digest"] == digest, "the same id with other content"
            return
        self.state["operations"][command] = {"digest": digest, "ended": False, "runs": 0}
        self.state.add(now(), {"type": "received", "command": command})
        if document["kind"] != "agent.ping" or document["host"] != self.host():
            error = {"code": "command.unknown-kind", "message": f"{document['kind']} is not known here."}
            self.state["operations"][command]["ended"] = True
            self.state.add(now(), {"type": "refused", "command": command, "error": error})
            return
        started = now()
        self.state["operations"][command]["runs"] += 1
        say("ran", command=command, runs=self.state["operations"][command]["runs"])
        output = {
            **{"at": now(), "uptimeSeconds": time.monotonic()},
            **{"eventLoopDelayP99Ms": 0.5, "residentBytes": 1 << 24},
        }
        result = {"outcome": "succeeded", "startedAt": started, "endedAt": now(), "output": output}
        self.state["operations"][command]["ended"] = True
        self.state.add(
            now(),
            {"type": "accepted", "command": command},
            {"type": "running", "command": command, "run": 1},
            {"type": "result", "command": command, "result": result},
        )

    def host(self):
        return hashlib.sha256(self.state.link_key).hexdigest()


# Three series; a key frame with the values of the specification's example, then a delta of the first alone: 10 + 7.
DICTIONARY = {
    "t": "dictionary",
    "id": 1,
    "series": [
        {"name": "python_first", "labels": {"by": "hand"}, "type": "counter", "scale": 1},
        {"name": "python_second", "labels": {}, "type": "gauge", "scale": 0.5, "signed": True},
        {"name": "python_third", "labels": {}, "type": "counter", "scale": 1},
    ],
}
BATCHES = [
    {"t": "batch", "dictionary": 1, "intervalMs": 1000, "key": True, "data": bytes.fromhex("0714" "03" "ac02")},
    {"t": "batch", "dictionary": 1, "intervalMs": 1000, "key": False, "data": bytes.fromhex("010e")},
]


def provoke(options, how):
    """Breaks one rule of the handshake; says how the controller closes."""
    state = State(options.state)
    link = Link(options.controller, state["ca"])
    nonce = os.urandom(32)
    hello = {
        "t": "hello",
        "versions": {"min": 7, "max": 9} if how == "version" else {"min": 1, "max": 1},
        **{"agentVersion": "python", "linkKey": state.link_key, "nonce": nonce},
        **{"instance": state["instance"], "bootId": "a-boot", "hostname": "python-host"},
    }
    try:
        if how == "extension":
            link.send_bytes(bytes.fromhex("81a174d4725f"))
        if how == "large":
            link.send_bytes(encode({"t": "hello", "padding": b"\0" * 65536}))
        frame = link.send(hello)
        challenge = link.receive(10)
        if challenge is not None and challenge["t"] == "challenge":
            # Another connection's keying material, or another key's signature.
            exported = os.urandom(32) if how == "exporter" else link.exported
            proof = link_proof(nonce, challenge["nonce"], exported, frame)
            if how == "stranger":
                frame = link.send_bytes(encode({"t": "auth", "signature": os.urandom(64)}))
            elif how != "silence":
                link.send({"t": "auth", "signature": state.key.sign(proof)})
        while True:
            message = link.receive(10)
            if message is None:
                break
            say("message", type=message["t"], reason=message.get("reason"))
    except Closed as closed:
        say("closed", how=how, code=closed.code, reason=closed.reason)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--controller", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--join")
    parser.add_argument("--name", default="python")
    parser.add_argument("--results", type=int, default=1, help="ends when so many results are acknowledged")
    parser.add_argument("--cut-after", type=int, default=0, help="cuts the first connection after so many records")
    parser.add_argument("--provoke", help="breaks one rule of the handshake and says what happens")
    options = parser.parse_args()
    if options.provoke:
        return provoke(options, options.provoke)
    agent = Agent(options)
    while True:
        link, welcome = agent.connect()
        if agent.session(link, welcome):
            break
        time.sleep(0.3)
    return say("done", runs={name: each["runs"] for name, each in agent.state["operations"].items()})


if __name__ == "__main__":
    sys.exit(main())
