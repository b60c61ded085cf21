"""Paho, told what to do line by line: `with_paho.py VERSION`. An answer is a line too; player.rs says which."""

import json
import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

WITHIN = 240
FIVE = sys.argv[1] == "5"
# What a message may carry, as it is called here and there.
CARRIED = {
    "type": "ContentType",
    "answer_to": "ResponseTopic",
    "format": "PayloadFormatIndicator",
    "expiry": "MessageExpiryInterval",
    "alias": "TopicAlias",
}


class Person:
    """One connection, with what came over it."""

    def __init__(self, order):
        self.connected, self.acknowledged = queue.Queue(), queue.Queue()
        self.granted, self.messages = queue.Queue(), queue.Queue()
        self.lock, self.held = threading.Lock(), [] if order.get("holds") else None
        options = {"client_id": order["id"], "protocol": mqtt.MQTTv5 if FIVE else mqtt.MQTTv311}
        if not FIVE:
            options["clean_session"] = order["clean"]
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **options)
        client.on_connect = lambda _c, _u, flags, code, _p: self.connected.put((flags, code))
        client.on_publish = lambda _c, _u, mid, code, _p: self.acknowledged.put((mid, code))
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self.granted.put(codes)
        client.on_message = lambda _c, _u, message: self.arrived(message)
        # What is not held is acknowledged by the library itself.
        client.manual_ack_set(self.held is not None)
        will = order.get("will")
        if will:
            client.will_set(will["topic"], will["payload"], will["qos"])
        self.client = client
        more = {}
        if FIVE:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = order.get("expiry", 0)
            if "receive_maximum" in order:
                properties.ReceiveMaximum = order["receive_maximum"]
            more = {"clean_start": order["clean"], "properties": properties}
        client.connect("127.0.0.1", order["port"], **more)
        client.loop_start()

    def arrived(self, message):
        with self.lock:
            if self.held is not None:
                self.held.append((message.mid, message.qos))
            else:
                self.client.ack(message.mid, message.qos)
        self.messages.put(message)


def connect(order):
    person = Person(order)
    people[order["who"]] = person
    flags, code = person.connected.get(timeout=WITHIN)
    if code.is_failure:
        return {"error": str(code)}
    return {"present": flags.session_present}


def subscribe(order, person):
    if FIVE:
        options = SubscribeOptions(qos=order["qos"], noLocal=order.get("no_local", False))
        person.client.subscribe(order["filter"], options=options)
    else:
        person.client.subscribe(order["filter"], order["qos"])
    (code,) = person.granted.get(timeout=WITHIN)
    return {"error": str(code)} if code.is_failure else {"granted": code.value}


def publish(order, person):
    properties = None
    carried = order.get("properties", {})
    if carried:
        properties = Properties(PacketTypes.PUBLISH)
        for name, value in carried.items():
            if name == "user":
                properties.UserProperty = [tuple(pair) for pair in value]
            elif name == "correlation":
                properties.CorrelationData = value.encode()
            else:
                setattr(properties, CARRIED[name], value)
    retain = order.get("retain", False)
    sent = person.client.publish(order["topic"], order["payload"], order["qos"], retain, properties)
    while True:
        mid, code = person.acknowledged.get(timeout=WITHIN)
        if mid == sent.mid:
            return {"reason": code.value}


def receive(order, person):
    messages = [person.messages.get(timeout=WITHIN) for _ in range(order["count"])]
    return {"messages": [told(message) for message in messages]}


def told(message):
    carried = {}
    if FIVE:
        for name, theirs in CARRIED.items():
            if name != "alias" and hasattr(message.properties, theirs):
                carried[name] = getattr(message.properties, theirs)
        if hasattr(message.properties, "UserProperty"):
            carried["user"] = [list(pair) for pair in message.properties.UserProperty]
        if hasattr(message.properties, "CorrelationData"):
            carried["correlation"] = message.properties.CorrelationData.decode()
    return {
        "topic": message.topic,
        "payload": message.payload.decode(),
        "qos": message.qos,
        "retain": message.retain,
        "properties": carried,
    }


def release(_order, person):
    """What is held is acknowledged, and what comes from now on is at once."""
    with person.lock:
        for mid, qos in person.held:
            person.client.ack(mid, qos)
        person.held = None
    return {}


def leave(_order, person):
    person.client.disconnect()
    person.client.loop_stop()
    return {}


def vanish(_order, person):
    person.client.loop_stop()
    person.client.socket().close()
    return {}


people = {}
DO = {"subscribe": subscribe, "publish": publish, "receive": receive, "release": release,
      "leave": leave, "vanish": vanish}
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
