"""MQTT clients under load, to the letter of the standard: `clients.py publish|subscribe PORT NAME`.

There are some of both versions of MQTT, with QoS 1 and 2. Whatever happens they connect again with their sessions, and send
again what the standard says, no more and no less. They share nothing with what is tested; libraries were tried, and send
again more than that. What happens is told line by line; a flow is a version and a QoS, and its messages have numbers:

    sent FLOW NUMBER        about to be published
    acked FLOW NUMBER       its handshake is at its end
    got FLOW NUMBER QOS     received
    ready                   all subscribed, or all published that there was
    again FLOW              connected again, with its session; a subscriber says its version alone
    session lost            the broker has it not any more

On standard input publishers are told `go`; `rest`, upon which they publish nothing more and are ready once all is
acknowledged; and `more`, upon which they do the same with one message more of each flow."""

import select
import socket
import struct
import sys
import threading
import time

ROLE, PORT, NAME = sys.argv[1], int(sys.argv[2]), sys.argv[3]
SECRET = "furnace at 871 degrees"
CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = range(1, 10)
PINGREQ = 12
# Messages of a flow that are published together, and the time between.
WINDOW, PAUSE = 10, 0.05
# Between two tries to connect, and two pings; how long a broker may be silent.
RETRY, PING, SILENCE = 0.02, 2, 10
saying = threading.Lock()


def say(text):
    with saying:
        print(text, flush=True)


class Gone(Exception):
    """There is no connection any more, or none yet."""


def text(of):
    of = of.encode()
    return struct.pack("!H", len(of)) + of


def packet(kind, flags, body):
    length, rest = b"", len(body)
    while True:
        rest, low = divmod(rest, 128)
        length += bytes([low | (128 if rest else 0)])
        if not rest:
            return bytes([kind << 4 | flags]) + length + body


class Line:
    """A connection, as packets."""

    def __init__(self, version, client_id):
        self.heard = self.spoken = time.monotonic()
        try:
            self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=SILENCE)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.bytes = b""
            five = struct.pack("!BBIBH", 8, 0x11, 3600, 0x21, WINDOW) if version == 5 else b""
            level = 5 if version == 5 else 4
            head = text("MQTT") + struct.pack("!BBH", level, 0, 60)
            self.send(packet(CONNECT, 0, head + five + text(client_id)))
            kind, _, body = self.receive(SILENCE)
            if kind != CONNACK or body[1] != 0:
                raise Gone
        except OSError as error:
            raise Gone from error
        self.has_session = body[0] == 1

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Gone from error
        self.spoken = time.monotonic()

    def receive(self, within):
        """The next packet, or nothing if none comes in time."""
        until = time.monotonic() + within
        while (whole := self.next()) is None:
            if not select.select([self.socket], [], [], max(0, until - time.monotonic()))[0]:
                return self.silent()
            try:
                some = self.socket.recv(1 << 16)
            except OSError as error:
                raise Gone from error
            if not some:
                raise Gone
            self.bytes += some
        self.heard = time.monotonic()
        return whole

    def next(self):
        length = 0
        for at in range(1, min(5, len(self.bytes))):
            length |= (self.bytes[at] & 127) << 7 * (at - 1)
            if self.bytes[at] < 128:
                end = at + 1 + length
                if len(self.bytes) < end:
                    return None
                first, body = self.bytes[0], self.bytes[at + 1:end]
                self.bytes = self.bytes[end:]
                return first >> 4, first & 15, body
        return None

    def silent(self):
        now = time.monotonic()
        if now - self.heard > SILENCE:
            raise Gone
        if now - max(self.heard, self.spoken) > PING:
            self.send(packet(PINGREQ, 0, b""))
        return None, 0, b""


class Client:
    """A session, which outlives its connections."""

    def __init__(self, version, name, role):
        self.version, self.name, self.is_known = version, name, False
        self.client_id = f"{NAME}-{role}-{name}"

    def connect(self):
        while True:
            try:
                line = Line(self.version, self.client_id)
                break
            except Gone:
                time.sleep(RETRY)
        if self.is_known:
            say(f"again {self.name}" if line.has_session else "session lost")
        self.is_known = True
        return line

    def serve(self):
        while True:
            line = self.connect()
            try:
                self.begin(line)
                while True:
                    self.step(line)
            except Gone:
                line.socket.close()


def number_and_reason(body):
    return struct.unpack("!H", body[:2])[0], body[2] if len(body) > 2 else 0


class Publisher(Client):
    def __init__(self, version, qos):
        self.flow, self.qos = f"{version}-{qos}", qos
        super().__init__(version, self.flow, "publisher")
        self.last, self.pid = 0, 0
        # What it is told, and whether it has done all that.
        self.is_going, self.extra, self.is_idle = False, 0, False
        # By packet identifier, in the order in which they were published and released.
        self.published, self.released = {}, {}

    def publish(self, pid, is_again):
        message = f"{SECRET}, {self.flow} {self.published[pid]}".encode()
        body = text(f"plant/{NAME}/{self.flow}") + struct.pack("!H", pid)
        body += b"\0" if self.version == 5 else b""
        return packet(PUBLISH, is_again << 3 | self.qos << 1, body + message)

    def begin(self, line):
        again = [self.publish(pid, True) for pid in self.published]
        again += [packet(PUBREL, 2, struct.pack("!H", pid)) for pid in self.released]
        line.send(b"".join(again))

    def step(self, line):
        is_pending, is_going, extra = bool(self.published or self.released), self.is_going, self.extra
        self.is_idle = not (is_pending or is_going or extra)
        if is_going and not is_pending:
            time.sleep(PAUSE)
            self.some(line, WINDOW)
        elif extra and not is_pending:
            self.extra = 0
            self.some(line, extra)
        kind, _, body = line.receive(0.02)
        if kind is not None:
            self.hear(line, kind, body)

    def some(self, line, count):
        new = []
        for _ in range(count):
            self.last += 1
            self.pid = self.pid % 65535 + 1
            self.published[self.pid] = self.last
            new.append(self.publish(self.pid, False))
            say(f"sent {self.flow} {self.last}")
        line.send(b"".join(new))

    def hear(self, line, kind, body):
        if kind not in (PUBACK, PUBREC, PUBCOMP):
            return
        pid, reason = number_and_reason(body)
        if reason >= 128:
            say(f"refused {self.flow} {reason}")
        if kind == PUBREC and pid in self.published:
            self.released[pid] = self.published.pop(pid)
        if kind == PUBREC:
            line.send(packet(PUBREL, 2, struct.pack("!H", pid)))
            return
        number = (self.published if kind == PUBACK else self.released).pop(pid, None)
        if number is not None:
            say(f"acked {self.flow} {number}")


class Subscriber(Client):
    def __init__(self, version, ready):
        super().__init__(version, str(version), "subscriber")
        self.ready, self.known = ready, set()

    def begin(self, line):
        if line.has_session:
            return
        self.known.clear()
        topics = [text(f"plant/{NAME}/{self.version}-{qos}") + b"\2" for qos in (1, 2)]
        five = b"\0" if self.version == 5 else b""
        line.send(packet(SUBSCRIBE, 2, struct.pack("!H", 1) + five + b"".join(topics)))

    def step(self, line):
        kind, flags, body = line.receive(1)
        if kind == SUBACK:
            self.ready.release()
        elif kind == PUBREL:
            pid, _ = number_and_reason(body)
            self.known.discard(pid)
            line.send(packet(PUBCOMP, 0, struct.pack("!H", pid)))
        elif kind == PUBLISH:
            self.got(line, flags >> 1 & 3, body)

    def got(self, line, qos, body):
        length = struct.unpack("!H", body[:2])[0]
        topic, rest = body[2:2 + length].decode(), body[2 + length:]
        pid, rest = struct.unpack("!H", rest[:2])[0], rest[2:]
        if self.version == 5:
            # They have no properties of as many bytes that it would take two to say.
            rest = rest[1 + rest[0]:]
        if qos == 1 or pid not in self.known:
            message = rest.decode(errors="replace")
            told = message.removeprefix(f"{SECRET}, ")
            is_ours = told != message and topic.endswith("/" + told.split(" ")[0])
            say(f"got {told} {qos}" if is_ours else f"got ? {topic} {message!r}")
        if qos == 2:
            self.known.add(pid)
        line.send(packet(PUBACK if qos == 1 else PUBREC, 0, struct.pack("!H", pid)))


def publish():
    publishers = [Publisher(version, qos) for version in (3, 5) for qos in (1, 2)]
    for publisher in publishers:
        threading.Thread(target=publisher.serve, daemon=True).start()
    for order in sys.stdin:
        for publisher in publishers:
            publisher.is_going, publisher.extra = order == "go\n", int(order == "more\n")
            publisher.is_idle = False
        if order != "go\n":
            while not all(publisher.is_idle for publisher in publishers):
                time.sleep(0.01)
            say("ready")


def subscribe():
    ready = threading.Semaphore(0)
    subscribers = [Subscriber(version, ready) for version in (3, 5)]
    for subscriber in subscribers:
        threading.Thread(target=subscriber.serve, daemon=True).start()
    for _ in subscribers:
        ready.acquire()
    say("ready")
    sys.stdin.read()


{"publish": publish, "subscribe": subscribe}[ROLE]()
