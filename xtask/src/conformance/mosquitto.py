#!/usr/bin/env python3
"""Stands where scripts expect mosquitto, and starts it behind a proxy.

Each listener of its configuration without TLS is moved to another port, and a proxy listens in its place. Signals are
passed on. CONFORMANCE_SEALCAST is the program of the proxy, or empty where there is to be none; CONFORMANCE_HOME its home,
and CONFORMANCE_RULES what its config file says besides."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

SEALCAST = os.environ["CONFORMANCE_SEALCAST"]
HOME = os.environ["CONFORMANCE_HOME"]
RULES = os.environ["CONFORMANCE_RULES"]
BROKER = "/usr/sbin/mosquitto"
ENDS_WITH_PARENT = 1
WITHIN = 5


def free_port():
    with socket.socket() as of:
        of.bind(("127.0.0.1", 0))
        return of.getsockname()[1]


class Ports(dict):
    """Where each listener was moved to."""

    def __missing__(self, port):
        self[port] = free_port()
        return self[port]


def moved(text, ports):
    """A configuration with its listeners moved, but for those with TLS."""
    sections = re.split(r"(?m)^(?=(?:port|listener) )", text)
    return "".join(section if re.search(r"(?m)^(?:certfile|psk_hint)", section) else move(section, ports) for section in sections)


def move(section, ports):
    said = re.match(r"(port|listener) (\d+)(.*)", section)
    if not said:
        return section
    word, port, rest = said.groups()
    # All addresses of this machine are one here.
    host = " 127.0.0.1" if word == "listener" else ""
    end = section[said.end():]
    return f"{word} {ports[int(port)]}{host or rest}{end}"


def answers(port):
    with socket.socket() as of:
        return of.connect_ex(("127.0.0.1", port)) == 0


def ends_with_parent(how):
    ctypes.CDLL(None).prctl(ENDS_WITH_PARENT, how)


def start(command):
    return subprocess.Popen(command, preexec_fn=lambda: ends_with_parent(signal.SIGKILL))


def proxy(folder, port, upstream):
    path = os.path.join(folder, f"{port}.toml")
    with open(path, "w") as of:
        of.write(f'listen = "127.0.0.1:{port}"\nupstream = "mqtt://127.0.0.1:{upstream}"\nlog = "error"\n{RULES}')
    return start([SEALCAST, "--home", HOME, "proxy", "mqtt", path])


def main():
    words = sys.argv[1:]
    ports, folder = Ports(), tempfile.TemporaryDirectory()
    config, place = None, os.path.join(folder.name if SEALCAST else ".", "moved.conf")
    if "-c" in words:
        at = words.index("-c") + 1
        config, words[at] = words[at], place
    elif "-p" in words and SEALCAST:
        at = words.index("-p") + 1
        words[at] = str(ports[int(words[at])])

    def configure():
        if config:
            with open(config) as said, open(place, "w") as of:
                # Else it takes another user's rights, who may not read what lies beside it.
                of.write("user root\n" + (moved(said.read(), ports) if SEALCAST else said.read()))

    configure()
    if not SEALCAST:
        # Signals reach it at once.
        os.execv(BROKER, [BROKER, *words])
    broker = start([BROKER, *words])

    def tell(number, _):
        if number == signal.SIGHUP:
            configure()
        broker.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, tell)
    ends_with_parent(signal.SIGTERM)
    since = time.monotonic()
    while broker.poll() is None and not all(map(answers, ports.values())) and time.monotonic() - since < WITHIN:
        time.sleep(0.01)
    proxies = [proxy(folder.name, *ways) for ways in ports.items()]
    code = broker.wait()
    for of in proxies:
        of.kill()
        of.wait()
    folder.cleanup()
    sys.exit(code)


main()
