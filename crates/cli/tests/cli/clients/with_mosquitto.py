"""mosquitto_pub and mosquitto_sub, told what to do line by line: `with_mosquitto.py VERSION`. An answer is a line too;
player.rs says which."""

import json
import queue
import re
import signal
import subprocess
import sys
import threading

WITHIN = 240
FIVE = sys.argv[1] == "5"
VERSION = ["-V", "mqttv5" if FIVE else "mqttv311", "-h", "127.0.0.1"]
# What a message may carry, as it is called here and there.
CARRIED = {
    "type": "content-type",
    "answer_to": "response-topic",
    "format": "payload-format-indicator",
    "expiry": "message-expiry-interval",
    "correlation": "correlation-data",
    "alias": "topic-alias",
}


class Person:
    """What a connection is to be like. It is made for each message, and when something is subscribed to."""

    def __init__(self, order):
        self.order = order
        self.program = None

    def listens(self, filter, qos):
        order = self.order
        command = ["stdbuf", "-oL", "mosquitto_sub", "-d", "-p", str(order["port"]), *VERSION]
        command += ["-i", order["id"], "-t", filter, "-q", str(qos), "-F", "%j"]
        if not order["clean"]:
            command.append("-c")
        if FIVE and "expiry" in order:
            command += ["-x", str(order["expiry"])]
        if "receive_maximum" in order:
            command += ["-D", "connect", "receive-maximum", str(order["receive_maximum"])]
        will = order.get("will")
        if will:
            command += ["--will-topic", will["topic"], "--will-payload", will["payload"]]
            command += ["--will-qos", str(will["qos"])]
        self.granted, self.messages = queue.Queue(), queue.Queue()
        self.program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.program.stdout:
            granted = re.match(rb"Subscribed \(mid: \d+\): (\d+)", line)
            if granted:
                self.granted.put(int(granted[1]))
            elif line.startswith(b"{"):
                self.messages.put(json.loads(line, object_pairs_hook=pairs))


def pairs(found):
    """A user property may be there more than once."""
    return {"pairs": found, **dict(found)}


# What was subscribed to in a session that outlives its connection.
sessions = {}


def connect(order):
    people[order["who"]] = person = Person(order)
    kept = sessions.pop(order["id"], None)
    if kept and not order["clean"]:
        person.listens(*kept)
        person.granted.get(timeout=WITHIN)
    return {"present": None}


def subscribe(order, person):
    if order.get("no_local"):
        return {"lacks": True}
    person.listens(order["filter"], order["qos"])
    if not person.order["clean"]:
        sessions[person.order["id"]] = (order["filter"], order["qos"])
    granted = person.granted.get(timeout=WITHIN)
    return {"error": f"{granted}"} if granted > 2 else {"granted": granted}


def publish(order, person):
    command = ["mosquitto_pub", "-d", "-p", str(person.order["port"]), *VERSION]
    command += ["-t", order["topic"], "-q", str(order["qos"])]
    if order.get("retain"):
        command.append("-r")
    for name, value in order.get("properties", {}).items():
        if name == "user":
            for key, of in value:
                command += ["-D", "publish", "user-property", key, of]
        else:
            command += ["-D", "publish", CARRIED[name], str(value)]
    if order.get("times"):
        command += ["--repeat", str(order["times"]), "-m", order["payload"]]
    else:
        command.append("-s" if order["payload"] else "-n")
    done = subprocess.run(
        command, input=order["payload"].encode(), capture_output=True, timeout=WITHIN, check=False)
    reason = re.search(rb"received PUB(?:ACK|REC|COMP) \(Mid: \d+, RC:(\d+)\)", done.stdout)
    refused = b"failed: Not authorized" in done.stderr
    if done.returncode != 0 and not refused:
        return {"error": done.stderr.decode()}
    return {"reason": 135 if refused else int(reason[1]) if reason else 0}


def receive(order, person):
    messages = [person.messages.get(timeout=WITHIN) for _ in range(order["count"])]
    return {"messages": [told(message) for message in messages]}


def told(message):
    theirs = message.get("properties", {})
    carried = {name: theirs[of] for name, of in CARRIED.items() if of in theirs and name != "alias"}
    if "user-properties" in theirs:
        carried["user"] = [list(pair) for pair in theirs["user-properties"]["pairs"]]
    return {
        "topic": message["topic"],
        "payload": message["payload"] or "",
        "qos": message["qos"],
        "retain": bool(message["retain"]),
        "properties": carried,
    }


def leave(_order, person):
    ends(person, signal.SIGTERM)
    return {}


def vanish(_order, person):
    ends(person, signal.SIGKILL)
    return {}


def ends(person, how):
    if person.program:
        person.program.send_signal(how)
        person.program.wait(timeout=WITHIN)


people = {}
DO = {"subscribe": subscribe, "publish": publish, "receive": receive, "leave": leave, "vanish": vanish}
for line in sys.stdin:
    order = json.loads(line)
    try:
        if order["do"] == "connect":
            answer = connect(order)
        else:
            answer = DO[order["do"]](order, people[order["who"]])
    except Exception as error:  # Whoever waits for an answer is told why there is none.
        answer = {"error": f"{order['do']}: {error!r}"}
    print(json.dumps(answer), flush=True)
for person in people.values():
    ends(person, signal.SIGKILL)
