#!/usr/bin/env python3
"""Tries the cases of digests, signatures, the key tree, messages, frames, envelopes, items, exports and homes.

    pip install -r requirements.txt && python3 check.py

It is written from spec/ and README.md alone, to see whether they say enough.
"""

import sys
from hmac import compare_digest
from pathlib import Path

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV


class Refused(Exception):
    """How a case is refused, by a name from the table of README.md."""


def must(holds, otherwise):
    if not holds:
        raise ValueError(otherwise)


# spec/primitives.md


def delimited(label, *parts):
    return b"".join(len(part).to_bytes(8, "little") + part for part in (label.encode(), *parts))


def digest(label, *parts):
    return blake3(delimited(label, *parts)).digest()


def bulk(label, data):
    return blake3(data, derive_key_context=label).digest()


P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER_Y = [bytes.fromhex(y) for y in (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)]


def check_point(point):
    y = point[:31] + bytes([point[31] & 0x7F])
    if int.from_bytes(y, "little") >= P:
        raise Refused("not canonical")
    if y in SMALL_ORDER_Y:
        raise Refused("small order")


def check_signature(key, signed, signature):
    """Steps 3 and 4 are left to OpenSSL, which keeps to them."""
    try:
        check_point(key)
        check_point(signature[:32])
        must(int.from_bytes(signature[32:], "little") < L, "S")
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
    except (Refused, InvalidSignature, ValueError):
        raise Refused("signature") from None


def check_signed_again(given, signed, signature):
    if "signing-seed" in given:
        key = Ed25519PrivateKey.from_private_bytes(given.bytes("signing-seed"))
        must(key.sign(signed) == signature, "the seed gives another signature")


# spec/key-tree.md

DEPTH = 48
END = 2**DEPTH


def child(key, right):
    pair = blake3(b"sealcast.v1 tree children", key=key).digest(length=64)
    return pair[32:] if right else pair[:32]


def cover(start, end):
    """The nodes of an interval, each its depth and index."""
    nodes = []
    while start < end:
        h = max(h for h in range(DEPTH + 1) if start % 2**h == 0 and start + 2**h <= end)
        nodes.append((DEPTH - h, start >> h))
        start += 2**h
    return nodes


def held(given):
    """The keys that a case hands out, by node."""
    if "root" in given:
        return {(0, 0): given.bytes("root")}
    start, end, keys = given.number("from"), given.number("until"), given.bytes("keys")
    if not 0 <= start < end <= END:
        raise Refused("empty interval")
    nodes = cover(start, end)
    if len(keys) != 32 * len(nodes):
        raise Refused("key length")
    return {node: keys[32 * at:32 * at + 32] for at, node in enumerate(nodes)}


def node_key(keys, depth, index, otherwise):
    """Walks down from whichever node that is held is above."""
    for up in range(depth + 1):
        key = keys.get((depth - up, index >> up))
        if key is not None:
            for bit in reversed(range(up)):
                key = child(key, index >> bit & 1)
            return key
    raise Refused(otherwise)


def message_key(leaf, stream, topic, header):
    over = delimited("sealcast.v1 message key", stream, topic, header)
    key = blake3(over, key=leaf).digest(length=56)
    return key[:32], key[32:]


def seal(key, stream, topic, header, plaintext):
    associated = delimited("sealcast.v1 message", stream, topic, header)
    return AESGCMSIV(key).encrypt(bytes(12), plaintext, associated)


def unseal(key, stream, topic, header, sealed):
    associated = delimited("sealcast.v1 message", stream, topic, header)
    try:
        return AESGCMSIV(key).decrypt(bytes(12), sealed, associated)
    except InvalidTag:
        raise Refused("not authentic") from None


# spec/envelope.md

PLAINTEXT_MAX = 16_842_752
RECORDS_MAX = 65_535


def parse_header(envelope):
    if len(envelope) < 176:
        raise Refused("malformed")
    for at, good, otherwise in ((0, [1], "version"), (1, [1], "suite"), (2, range(8), "flags")):
        if envelope[at] not in good:
            raise Refused("unknown " + otherwise)
    position = int.from_bytes(envelope[20:28], "big")
    if position >= END:
        raise Refused("out of range")
    seq = int.from_bytes(envelope[52:56], "big")
    fields = [("flags", envelope[2]), ("content", envelope[3]), ("session", envelope[4:20])]
    fields += [("position", position), ("device", envelope[28:44]), ("instance", envelope[44:52])]
    return position, fields + [("seq", seq), ("prev", envelope[56:72])]


def split_proof(envelope):
    """Ciphertext with tag, and the proof with flag bit 2."""
    rest = envelope[96:-64]
    if not envelope[2] & 4:
        return rest, None
    place, depth = rest[-2:]
    at = len(rest) - 2 - 32 * depth
    if not 1 <= depth <= 8 or place >> depth or at < 16:
        raise Refused("malformed")
    path = [rest[at + 32 * level:at + 32 * (level + 1)] for level in range(depth)]
    return rest[:at], (place, path)


def batch_root(own, proof):
    place, path = proof
    for level, beside in enumerate(path):
        pair = (beside, own) if place >> level & 1 else (own, beside)
        own = digest("sealcast.v1 envelope pair", *pair)
    return own


def take(data, at, length):
    if length > len(data) - at:
        raise Refused("malformed")
    return data[at:at + length], at + length


def take_number(data, at):
    number = 0
    for shift in range(0, 70, 7):
        (byte,), at = take(data, at, 1)
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >= 2**64 or (byte == 0 and shift > 0):
                break
            return number, at
    raise Refused("malformed")


def frame_records(frame, position):
    records, last, at = [], None, 0
    while at < len(frame) or not records:
        zigzag, at = take_number(frame, at)
        count, at = take_number(frame, at)
        time = position + (zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2)
        if not 0 <= time < END or count == 0 or len(records) + count > RECORDS_MAX:
            raise Refused("out of range")
        if time == last:
            raise Refused("malformed")
        for _ in range(count):
            length, at = take_number(frame, at)
            payload, at = take(frame, at, length)
            records.append((time, payload))
        last = time
    return records


# spec/encoding.md


def take_head(data, at):
    (first,), at = take(data, at, 1)
    major, number = first >> 5, first & 31
    if number >= 24:
        length = 1 << number - 24
        raw, at = take(data, at, length if length <= 8 else len(data) + 1)
        number = int.from_bytes(raw, "big")
        if number < (24 if length == 1 else 2 ** (4 * length)):
            raise Refused("malformed")
    return major, number, at


def take_item(data, at=0):
    """A number, bytes, a text or a list; there is nothing else."""
    major, number, at = take_head(data, at)
    if major == 0:
        return number, at
    if major in (2, 3):
        raw, at = take(data, at, number)
        return (raw if major == 2 else raw.decode()), at
    items = []
    if major != 4:
        raise Refused("malformed")
    for _ in range(number):
        item, at = take_item(data, at)
        items.append(item)
    return items, at


def fields(item, *shape):
    """The items of a list, each of a type, or so many bytes."""
    def fits(field, of):
        return isinstance(field, bytes) and len(field) == of if isinstance(of, int) else isinstance(field, of)
    if not isinstance(item, list) or len(item) != len(shape) or not all(map(fits, item, shape)):
        raise Refused("malformed")
    return item


# spec/export.md


def ascending(items, most, strictly=True):
    pairs = zip(items, items[1:])
    return len(items) <= most and all(a < b or (a == b and not strictly) for a, b in pairs)


def in_range(holds):
    if not holds:
        raise Refused("out of range")


def exported_covers(covers, commitment):
    lines, order = [], []
    for item in covers:
        interval, keys = fields(item, list, bytes)
        start, end = fields(interval, int, int)
        in_range(start < end <= END and len(keys) == 32 * len(cover(start, end)))
        if (start, end) == (0, END) and digest("sealcast.v1 tree root commitment", keys) != commitment:
            raise Refused("another root")
        order.append((start, end))
        lines.append(("cover", "%d %d %s" % (start, end, keys.hex())))
    in_range(order and ascending(order, 4096, strictly=False))
    return lines


def exported_keys(body):
    stream, owner, name, sessions = fields(body, 32, 32, str, list)
    lines, order = [("content", "keys"), ("stream", stream), ("owner", owner), ("name", name)], []
    for item in sessions:
        session, device, lane, commitment, covers = fields(item, 16, 16, 32, 32, list)
        in_range(session == digest("sealcast.v1 session id", stream, lane, commitment)[:16])
        order.append((session, device))
        of = (session, device, lane, commitment)
        lines.append(("session", " ".join(part.hex() for part in of)))
        lines += exported_covers(covers, commitment)
    in_range(order and ascending(order, 65_536) and sum(kind == "cover" for kind, _ in lines) <= 131_072)
    return lines


def exported_home(body):
    time, records = fields(body, int, list)
    records = [fields(record, int, bytes, bytes) for record in records]
    in_range(ascending([record[:2] for record in records], 4_194_304))
    lines = ["%d %s %s" % (space, key.hex(), value.hex()) for space, key, value in records]
    return [("content", "home"), ("time", time)] + [("record", line.strip()) for line in lines]


# spec/home.md, section "How far a topic was read"


def big(number):
    return number.to_bytes(8, "big")


def known_user(user, gives, regained, devices, readable):
    """A user's part of `known`."""
    flags = bytes([gives, regained])
    spans = b"".join(big(start) + big(end) for start, end in sorted(readable))
    return user + flags + big(len(devices)) + b"".join(sorted(devices)) + big(len(readable)) + spans


# The areas of README.md: what is given goes in, the lines below `expect` come out.


def try_digest(given):
    said = [given.text("label"), *given.each("part")]
    return [("delimited", delimited(*said)), ("digest", digest(*said))]


def try_bulk_digest(given):
    return [("digest", bulk(given.text("label"), given.bytes("bytes")))]


def try_signature(given):
    key, signature = given.bytes("public-key"), given.bytes("signature")
    signed = digest(given.text("label"), *given.each("part"))
    check_point(key)
    check_signature(key, signed, signature)
    check_signed_again(given, signed, signature)
    return [("digest", signed)]


def try_tree(given):
    root = given.bytes("root")
    if "depth" not in given:
        return [("commitment", digest("sealcast.v1 tree root commitment", root))]
    depth, index = given.number("depth"), given.number("index")
    return [("key", node_key({(0, 0): root}, depth, index, "outside"))]


def try_cover(given):
    if "root" in given:
        keys, nodes = held(given), cover(given.number("from"), given.number("until"))
        out = b"".join(node_key(keys, *node, "outside") for node in nodes)
        return [("node", "%d %d" % node) for node in nodes] + [("keys", out)]
    keys = held(given)
    nodes = cover(given.number("narrow-from"), given.number("narrow-until"))
    return [("narrow-keys", b"".join(node_key(keys, *node, "outside") for node in nodes))]


def try_message(given):
    leaf = node_key(held(given), DEPTH, given.number("position"), "outside")
    context = [given.bytes(name) for name in ("stream", "topic", "header")]
    key, commitment = message_key(leaf, *context)
    if "sealed" in given:
        return [("plaintext", unseal(key, *context, given.bytes("sealed")))]
    plaintext = given.bytes("plaintext")
    return [("commitment", commitment), ("sealed", seal(key, *context, plaintext))]


def try_frame(given):
    records = frame_records(given.bytes("plaintext"), given.number("position"))
    return [("record", ("%d %s" % (time, payload.hex())).strip()) for time, payload in records]


def try_envelope(given):
    stream, topic, envelope = (given.bytes(name) for name in ("stream", "topic", "envelope"))
    key, keys = given.bytes("public-key"), held(given)
    position, fields = parse_header(envelope)
    header, commitment = envelope[:72], envelope[72:96]
    (sealed, proof), signature = split_proof(envelope), envelope[-64:]
    if len(sealed) > PLAINTEXT_MAX + 16:
        raise Refused("too long")
    content = bulk("sealcast.v1 envelope ciphertext", sealed)
    own = digest("sealcast.v1 envelope digest", stream, topic, header, commitment, content)
    signed = batch_root(own, proof) if proof else own
    check_signature(key, signed, signature)
    leaf = node_key(keys, DEPTH, position, "no key")
    encryption_key, expected = message_key(leaf, stream, topic, header)
    if not compare_digest(expected, commitment):
        raise Refused("not authentic")
    plaintext = unseal(encryption_key, stream, topic, header, sealed)
    must(seal(encryption_key, stream, topic, header, plaintext) == sealed, "sealed otherwise")
    check_signed_again(given, signed, signature)
    return fields + [("hash", own[:16]), ("plaintext", plaintext)]


def try_item(given):
    item = given.bytes("item")
    if item[:1] != b"\x80":
        return [("topic", b""), ("envelope", item)]
    length, at = take(item, 1, 2)
    topic, at = take(item, at, int.from_bytes(length, "big"))
    try:
        text = topic.decode()
    except UnicodeDecodeError:
        raise Refused("malformed") from None
    if not 0 < len(topic) <= 1024 or any(c in "+#" or ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
        raise Refused("malformed")
    return [("topic", topic), ("envelope", item[at:])]


def try_export(given):
    plaintext = given.bytes("plaintext")
    major, version, _ = take_head(plaintext, take_head(plaintext, 0)[2])
    if major == 0 and version != 1:
        raise Refused("unknown version")
    whole, end = take_item(plaintext)
    _, content = fields(whole, int, list)
    kind, body = fields(content, int, list)
    (body,) = fields(body, list)
    if end != len(plaintext) or kind > 1:
        raise Refused("malformed")
    return (exported_keys, exported_home)[kind](body)


def try_keys_read_by(given):
    words = {name: [line.split() for line in given.texts(name)] for name in ("user", "device", "readable")}
    users = []
    for user, gives, regained in words["user"]:
        devices = [bytes.fromhex(device) for of, device in words["device"] if of == user]
        readable = [(int(start), int(end)) for of, start, end in words["readable"] if of == user]
        users.append((bytes.fromhex(user), int(gives), int(regained), devices, readable))
    users.sort(key=lambda known: (not known[1], known[0]))
    in_force = given.bytes("key-nodes") if "key-nodes" in given else bytes(32)
    known = in_force + b"".join(known_user(*user) for user in users)
    over = given.number("segments-over") >> 22 << 22
    return [("read-by", digest("sealcast.v1 keys read by", known) + big(over))]


# Files


class Given:
    """The lines above `expect`, each to be taken once."""

    def __init__(self, lines):
        self.lines = [line for line in lines if line[0] != "about"]

    def __contains__(self, name):
        return any(key == name for key, _ in self.lines)

    def text(self, name):
        at = [key for key, _ in self.lines].index(name)
        return self.lines.pop(at)[1]

    def number(self, name):
        return int(self.text(name))

    def bytes(self, name):
        return bytes.fromhex(self.text(name))

    def texts(self, name):
        found = []
        while name in self:
            found.append(self.text(name))
        return found

    def each(self, name):
        return [bytes.fromhex(text) for text in self.texts(name)]


def check(area, text):
    """Raises whatever is wrong."""
    lines = [tuple(part.strip() for part in line.split(":", 1)) for line in text.splitlines()]
    at = [key for key, _ in lines].index("expect")
    given, expect, wanted = Given(lines[:at]), lines[at][1], lines[at + 1:]
    try:
        made = globals()["try_" + area.replace("-", "_")](given)
        made = [(key, v.hex() if isinstance(v, bytes) else str(v)) for key, v in made]
        must(not given.lines, "not read: %s" % given.lines)
        came = "ok"
    except Refused as refused:
        made, came = [], str(refused)
    must((came, made) == (expect, wanted), "not %s, there came %s %s" % (expect, came, made))


AREAS = "bulk-digest cover digest envelope export frame item keys-read-by message signature tree".split()


def main():
    failed = total = 0
    for area in AREAS:
        cases = list((Path(__file__).parent / area).iterdir())
        for path in cases:
            try:
                check(area, path.read_text("utf-8"))
            except Exception as fault:
                print("%s/%s: %r" % (area, path.name, fault), file=sys.stderr)
                failed += 1
        print("%5d  %s" % (len(cases), area))
        failed += not cases
        total += len(cases)
    print("%5d  cases in Python, %d failed" % (total, failed))
    return 1 if failed or not total else 0


if __name__ == "__main__":
    sys.exit(main())
