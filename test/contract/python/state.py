"""What an agent keeps on disk: its key, its instance, the pinned CA, operations and records not yet acknowledged."""
import base64
import json
import os
import uuid

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


class State:
    def __init__(self, directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._file = os.path.join(directory, "state.json")
        try:
            with open(self._file, encoding="utf8") as file:
                self._kept = json.load(file)
        except FileNotFoundError:
            key = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            self._kept = {
                "key": base64.b64encode(key).decode(),
                "instance": str(uuid.uuid4()),
                "ca": None,
                "joined": False,
                "lastSeq": 0,
                "records": [],
                "operations": {},
            }
            self.save()
        self.key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(self._kept["key"]))
        self.link_key = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __getitem__(self, name):
        return self._kept[name]

    def update(self, **members):
        self._kept.update(members)
        self.save()

    def save(self):
        """Whole or not at all, and on the disk when it returns."""
        with open(f"{self._file}.new", "w", encoding="utf8") as file:
            json.dump(self._kept, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{self._file}.new", self._file)
        directory = os.open(os.path.dirname(self._file), os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def resume(self, stored):
        """The controller has stored records up to `stored`: forget those, number new ones above it."""
        self.update(
            records=[record for record in self["records"] if record["seq"] > stored],
            lastSeq=max(stored, self["lastSeq"]),
        )

    def add(self, at, *bodies):
        """Queues records, in one write."""
        records = list(self["records"])
        for body in bodies:
            self._kept["lastSeq"] += 1
            records.append({"seq": self["lastSeq"], "at": at, "body": body})
        self.update(records=records)
