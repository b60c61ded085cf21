// MQTT.js, told what to do line by line: `with_mqttjs.js VERSION mqtt|ws`. An answer is a line too; player.rs says
// which.
'use strict';

const mqtt = require('mqtt');
const readline = require('node:readline');

const WITHIN = 240_000;
const FIVE = process.argv[2] === '5';
const SCHEME = process.argv[3];
// What a message may carry, as it is called here and there.
const CARRIED = {
  type: 'contentType',
  answer_to: 'responseTopic',
  expiry: 'messageExpiryInterval',
  alias: 'topicAlias',
};
const people = {};

function within(what, promise) {
  const late = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`${what} never happens`)), WITHIN).unref();
  });
  return Promise.race([promise, late]);
}

// One connection, with what came over it.
class Person {
  constructor(order) {
    this.messages = [];
    this.waiting = null;
    const properties = FIVE ? { sessionExpiryInterval: order.expiry ?? 0 } : {};
    if (order.receive_maximum) properties.receiveMaximum = order.receive_maximum;
    this.client = mqtt.connect(`${SCHEME}://127.0.0.1:${order.port}`, {
      clientId: order.id,
      clean: order.clean,
      protocolVersion: FIVE ? 5 : 4,
      properties,
      will: order.will && { ...order.will, retain: false },
      reconnectPeriod: 0,
      connectTimeout: WITHIN,
    });
    this.client.on('message', (_topic, _payload, packet) => {
      this.messages.push(packet);
      if (this.waiting) this.waiting();
    });
  }

  async some(count) {
    while (this.messages.length < count) {
      await new Promise((resolve) => { this.waiting = resolve; });
    }
    return this.messages.splice(0, count);
  }
}

async function connect(order) {
  const person = new Person(order);
  people[order.who] = person;
  const connack = await new Promise((resolve, reject) => {
    person.client.once('connect', resolve);
    person.client.once('error', reject);
    person.client.once('close', () => reject(new Error('closed')));
  });
  person.client.on('error', () => {});
  return { present: connack.sessionPresent };
}

async function subscribe(order, person) {
  const options = { qos: order.qos };
  if (FIVE) options.nl = order.no_local ?? false;
  const [granted] = await person.client.subscribeAsync(order.filter, options);
  return { granted: granted.qos };
}

async function publish(order, person) {
  const properties = {};
  for (const [name, value] of Object.entries(order.properties ?? {})) {
    if (name === 'user') {
      properties.userProperties = {};
      for (const [key, of] of value) (properties.userProperties[key] ??= []).push(of);
    } else if (name === 'correlation') properties.correlationData = Buffer.from(value);
    else if (name === 'format') properties.payloadFormatIndicator = value === 1;
    else properties[CARRIED[name]] = value;
  }
  const options = { qos: order.qos, retain: order.retain ?? false };
  if (FIVE) options.properties = properties;
  try {
    const packet = await person.client.publishAsync(order.topic, order.payload, options);
    return { reason: packet?.reasonCode ?? 0 };
  } catch (error) {
    if (error.code > 127) return { reason: error.code };
    throw error;
  }
}

async function receive(order, person) {
  return { messages: (await person.some(order.count)).map(told) };
}

function told(packet) {
  const properties = {};
  const theirs = packet.properties ?? {};
  for (const [name, called] of Object.entries(CARRIED)) {
    if (name !== 'alias' && theirs[called] !== undefined) properties[name] = theirs[called];
  }
  if (theirs.payloadFormatIndicator !== undefined) properties.format = Number(theirs.payloadFormatIndicator);
  if (theirs.correlationData) properties.correlation = theirs.correlationData.toString();
  if (theirs.userProperties) {
    const pairs = Object.entries(theirs.userProperties);
    properties.user = pairs.flatMap(([key, of]) => [of].flat().map((one) => [key, one]));
  }
  const { topic, qos, retain } = packet;
  return { topic, payload: packet.payload.toString(), qos, retain, properties };
}

async function leave(_order, person) {
  await person.client.endAsync();
  return {};
}

async function vanish(_order, person) {
  person.client.stream.destroy();
  return {};
}

const DO = { subscribe, publish, receive, leave, vanish };

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    const act = order.do === 'connect' ? connect : DO[order.do];
    const answer = await within(order.do, act(order, people[order.who]))
      .catch((error) => ({ error: `${order.do}: ${error}` })); // Whoever waits for an answer is told.
    console.log(JSON.stringify(answer));
  }
  process.exit(0);
}

main();
