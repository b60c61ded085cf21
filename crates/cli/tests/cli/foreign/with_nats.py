"""A client of a NATS server that is no bus: `with_nats.py look|attack|sow PORT STREAM [TOPIC]`."""

import asyncio
import struct
import sys

import nats
from nats.js.errors import NotFoundError

GARBAGE = [b"hello?", b"", b"\xff" * 200_000]
ITEMS = [b"garbage", b"", b"S" * 300_000]


async def everything(js, name):
    """All that the stream holds: subject, sequence number and bytes."""
    state = (await js.stream_info(name)).state
    held = []
    for seq in range(state.first_seq, state.last_seq + 1):
        try:
            message = await js.get_msg(name, seq)
        except NotFoundError:
            continue
        held.append((message.subject, seq, message.data or b""))
    return held


def payloads(message):
    """Those that lie in an append itself (spec/bus-nats.md, section 3)."""
    if not message.startswith(b"SCN\x01\x00"):
        return []
    (count,) = struct.unpack_from(">I", message, 21)
    at, found = 49 + 4 * count, []
    for length in struct.unpack_from(f">{count}I", message, 49):
        found.append(message[at : at + length])
        at += length
    return found


def appended(messages, items):
    """An append like those of everybody who may write there, behind the last one."""
    last = messages[-1][1] if messages else 0
    ours = [bytes for _, _, bytes in messages if bytes.startswith(b"SCN\x01")]
    first, count, left = struct.unpack_from(">QIQ", ours[-1], 13) if ours else (0, 0, 0)
    header = struct.pack(">QQIQ", last, first + count, len(items), left)
    lengths = struct.pack(f">{len(items)}I", *map(len, items))
    return b"SCN\x01\x00" + header + b"\x07" * 16 + lengths + b"".join(items)


async def attack(client, js, name):
    """Garbage, what is too large, what was there before, and that in another order.

    Prints of each log how many items of garbage and of what was there are behind its last item now."""
    held = await everything(js, name)
    for subject in sorted({subject for subject, _, _ in held}):
        messages = [of for of in held if of[0] == subject]
        if subject.startswith(f"{name}.log."):
            items = [item for _, _, bytes in messages for item in payloads(bytes)]
            items = items[::-1][:8] + ITEMS
            await js.publish(subject, appended(messages, items))
            garbage = sum(item in ITEMS for item in items)
            print(subject, garbage, len(items) - garbage)
        for _, _, bytes in messages[:-5:-1]:
            await js.publish(subject, bytes)
        topic = subject.split(".", 2)[2]
        for garbage in GARBAGE:
            await js.publish(subject, garbage)
            for other in (f"new.{topic}", f"now.{topic}", f"now.{topic}".replace(".data", ".ask")):
                await client.publish(f"{name}.{other}", garbage)
    await client.flush()


async def sow(js, name, topic):
    """Garbage as the first items of a log that nobody has written to."""
    await js.publish(f"{name}.log.{topic.replace('/', '.')}", appended([], ITEMS))


async def main(what, port, name, topic=""):
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    js = client.jetstream()
    if what == "attack":
        await attack(client, js, name)
    elif what == "sow":
        await sow(js, name, topic)
    else:
        for subject, _, bytes in await everything(js, name):
            print(subject, bytes.hex())
    await client.close()


asyncio.run(main(*sys.argv[1:]))
