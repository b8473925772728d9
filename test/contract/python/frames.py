"""Frames: one message as MessagePack bytes, scanned before any value is built (protocol/README.md, section 2)."""
import msgpack

FRAME_BYTES_MAX = 1 << 20
DEPTH_MAX = 16
KEY_BYTES_MAX = 256


class Refused(Exception):
    """A frame or message that must not be taken; `code` is one of the specification's."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def encode(message):
    return msgpack.packb(message, use_bin_type=True)


def decode(data, bytes_max=FRAME_BYTES_MAX):
    if len(data) > bytes_max:
        raise Refused("frame.too-large")
    end = scan(data, 0, 0)
    if end != len(data):
        raise Refused("frame.malformed")
    return msgpack.unpackb(data, raw=False, strict_map_key=True)


def scan(data, at, depth):
    """The offset after the value at `at`."""
    first = byte(data, at)
    if first <= 0x7F or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
        return at + 1
    if first <= 0x8F:
        return scan_map(data, at + 1, first & 0x0F, depth)
    if first <= 0x9F:
        return scan_array(data, at + 1, first & 0x0F, depth)
    if first <= 0xBF:
        return bytes_of(data, at + 1, first & 0x1F)
    if first in (0xC4, 0xC5, 0xC6):
        return sized(data, at, 1 << (first - 0xC4), bytes_of)
    if first in (0xD9, 0xDA, 0xDB):
        return sized(data, at, 1 << (first - 0xD9), bytes_of)
    if first in SCALARS:
        if at + 1 + SCALARS[first] > len(data):
            raise Refused("frame.malformed")
        return at + 1 + SCALARS[first]
    if first in (0xDC, 0xDD):
        return sized(data, at, 2 << (first - 0xDC), lambda d, a, n: scan_array(d, a, n, depth))
    if first in (0xDE, 0xDF):
        return sized(data, at, 2 << (first - 0xDE), lambda d, a, n: scan_map(d, a, n, depth))
    raise Refused("frame.malformed" if first == 0xC1 else "frame.extension")


SCALARS = {
    **{0xCA: 4, 0xCB: 8},
    **{0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8},
    **{0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8},
}


def byte(data, at):
    if at >= len(data):
        raise Refused("frame.malformed")
    return data[at]


def sized(data, at, width, then):
    if at + 1 + width > len(data):
        raise Refused("frame.malformed")
    return then(data, at + 1 + width, int.from_bytes(data[at + 1 : at + 1 + width], "big"))


def bytes_of(data, at, length):
    if at + length > len(data):
        raise Refused("frame.too-large")
    return at + length


def enter(data, at, values, depth):
    if depth >= DEPTH_MAX:
        raise Refused("frame.too-deep")
    if values > len(data) - at:
        raise Refused("frame.too-large")


def scan_array(data, at, count, depth):
    enter(data, at, count, depth)
    for _ in range(count):
        at = scan(data, at, depth + 1)
    return at


def scan_map(data, at, count, depth):
    enter(data, at, 2 * count, depth)
    keys = set()
    for _ in range(count):
        first = byte(data, at)
        end = scan(data, at, depth + 1)
        if not (0xA0 <= first <= 0xBF or first in (0xD9, 0xDA, 0xDB)):
            raise Refused("frame.bad-key")
        header = 1 if first <= 0xBF else 1 + (1 << (first - 0xD9))
        key = bytes(data[at + header : end])
        if len(key) > KEY_BYTES_MAX or key == b"__proto__" or key in keys:
            raise Refused("frame.bad-key")
        keys.add(key)
        at = scan(data, end, depth + 1)
    return at
