"""A client of RabbitMQ that is no bus: `with_pika.py look|attack|sow PORT PREFIX QUEUE...`."""

import os
import struct
import sys

import pika

NONE, NOBODY = 2**64 - 1, bytes(16)
GARBAGE = [b"hello?", b"", b"\xff" * 200_000]
ITEMS = [b"garbage", b"", b"S" * 300_000]


def publish(channel, queue, body):
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), True)


def everything(connection, queue):
    """All that a stream queue holds: stream offset and bytes, up to a marker of our own."""
    marker = os.urandom(16)
    channel = connection.channel()
    channel.confirm_delivery()
    publish(channel, queue, marker)
    channel.basic_qos(prefetch_count=100)
    held = []
    begin = {"x-stream-offset": "first"}
    for method, properties, body in channel.consume(queue, arguments=begin):
        channel.basic_ack(method.delivery_tag)
        if body == marker:
            break
        held.append((properties.headers["x-stream-offset"], body))
    channel.close()
    return held


def header(body):
    """Of an append: prev, behind, first, count, left and id (spec/bus-amqp.md, section 3)."""
    is_append = body[:5] in (b"SCA\x01\x01", b"SCA\x01\x02") and len(body) >= 67
    return struct.unpack_from(">Q16sQIQ16s", body, 5) if is_append else None


def payloads(body):
    """Those that lie in an append itself."""
    if body[:5] != b"SCA\x01\x01" or not (of := header(body)):
        return []
    (name,) = struct.unpack_from(">H", body, 65)
    table = 67 + name
    at, found = table + 4 * of[3], []
    for length in struct.unpack_from(f">{of[3]}I", body, table):
        found.append(body[at : at + length])
        at += length
    return found


def appended(held, topic, items):
    """An append like those of everybody who may write there, behind the last that belongs."""
    last, behind, end, left = NONE, NOBODY, 0, 0
    for at, body in held:
        of = header(body)
        if of and (of[1], of[2]) == (behind, end) and of[4] >= left:
            last, behind, end, left = at, of[5], of[2] + of[3], of[4]
    name = topic.encode()
    fields = struct.pack(">Q16sQIQ", last, behind, end, len(items), left) + os.urandom(16)
    lengths = struct.pack(f">{len(items)}I", *map(len, items))
    named = struct.pack(">H", len(name)) + name
    return b"SCA\x01\x01" + fields + named + lengths + b"".join(items)


def sent(topic, payload):
    """What everybody who may write there sends on an ephemeral topic."""
    name = topic.encode()
    return b"SCA\x01\x04" + struct.pack(">H", len(name)) + name + payload


def attack(connection, prefix, queue):
    """Garbage, what is too large, what was there before, and that in another order.

    Prints how many items of garbage and of what was there are behind the last item of the log now."""
    held = everything(connection, queue)
    topic = queue.removeprefix(f"{prefix}.log.")
    items = [item for _, body in held for item in payloads(body)]
    items = items[::-1][:8] + ITEMS
    garbage = sum(item in ITEMS for item in items)
    print(queue, garbage, len(items) - garbage)
    channel = connection.channel()
    channel.confirm_delivery()
    publish(channel, queue, appended(held, topic, items))
    for _, body in held[:-5:-1]:
        publish(channel, queue, body)
    for garbage in GARBAGE:
        publish(channel, queue, garbage)
        for key in (topic, topic.replace("/data", "/ask")):
            for body in (garbage, sent(key, garbage[:50_000])):
                channel.basic_publish(f"{prefix}.now", key, body)
    channel.close()


def sow(connection, prefix, queue):
    """Garbage as the first items of a log that nobody has written to."""
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "stream"})
    channel.confirm_delivery()
    publish(channel, queue, appended([], queue.removeprefix(f"{prefix}.log."), ITEMS))
    channel.close()


def main(what, port, prefix, *queues):
    parameters = pika.ConnectionParameters("127.0.0.1", int(port))
    connection = pika.BlockingConnection(parameters)
    for queue in queues:
        if what == "attack":
            attack(connection, prefix, queue)
        elif what == "sow":
            sow(connection, prefix, queue)
        else:
            for _, body in everything(connection, queue):
                print(queue, body.hex())
    connection.close()


main(*sys.argv[1:])
