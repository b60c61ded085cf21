// Node-RED, told what to do line by line: `with_nodered.js VERSION FOLDER`. An answer is a line too; player.rs says which.
//
// Each person is a flow: an `mqtt out` that is handed what to publish, an `mqtt in` whose messages go to a function, and a
// `complete` and a `catch` that tell what became of what either was handed.
'use strict';

const RED = require('node-red');
const readline = require('node:readline');

const WITHIN = 240_000;
const FIVE = process.argv[2] === '5';
// What a message may carry, as it is called here and there.
const CARRIED = {
  type: 'contentType',
  answer_to: 'responseTopic',
  expiry: 'messageExpiryInterval',
  alias: 'topicAlias',
};
const people = {};
const flows = {};
let count = 0;

function within(what, promise) {
  const late = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`${what} never happens`)), WITHIN).unref();
  });
  return Promise.race([promise, late]);
}

function started() {
  return new Promise((resolve) => { RED.events.once('flows:started', resolve); });
}

// One flow, with what came out of it.
class Person {
  constructor() {
    this.name = `person-${count += 1}`;
    this.messages = [];
    this.waiting = null;
    this.done = new Map();
    this.orders = 0;
  }

  async deploy() {
    const id = (of) => `${this.name}-${of}`;
    const tells = (event) => `global.get('tell')('${this.name}', '${event}', msg);`;
    const node = (name, type, more) => ({ id: id(name), type, wires: [], ...more });
    const nodes = [
      node('out', 'mqtt out', { broker: id('broker') }),
      node('in', 'mqtt in', { broker: id('broker'), inputs: 1, datatype: 'utf8', wires: [[id('received')]] }),
      node('received', 'function', { func: tells('received'), outputs: 0 }),
      node('complete', 'complete', { scope: [id('in'), id('out')], wires: [[id('completed')]] }),
      node('completed', 'function', { func: tells('completed'), outputs: 0 }),
      node('catch', 'catch', { scope: [id('in'), id('out')], wires: [[id('caught')]] }),
      node('caught', 'function', { func: tells('caught'), outputs: 0 }),
    ];
    const broker = { id: id('broker'), type: 'mqtt-broker', broker: '127.0.0.1', autoConnect: false,
      protocolVersion: FIVE ? 5 : 4, autoUnsubscribe: false };
    flows[this.name] = this;
    const runs = started();
    await RED.runtime.flows.addFlow({ flow: { label: this.name, nodes, configs: [broker] } });
    await runs;
  }

  // Of the library below.
  get client() {
    return RED.nodes.getNode(`${this.name}-broker`).client;
  }

  tell(event, msg) {
    if (event === 'received') {
      this.messages.push(msg);
      if (this.waiting) this.waiting();
    } else {
      const [resolve, reject] = this.done.get(msg.order);
      if (event === 'completed') resolve(msg);
      else reject(new Error(msg.error.message));
    }
  }

  // Hands a message to `in` or `out`, and waits until that is done with it.
  does(node, msg) {
    return new Promise((resolve, reject) => {
      const order = this.orders += 1;
      this.done.set(order, [resolve, reject]);
      RED.nodes.getNode(`${this.name}-${node}`).receive({ ...msg, order });
    });
  }

  async some(wanted) {
    while (this.messages.length < wanted) {
      await new Promise((resolve) => { this.waiting = resolve; });
    }
    return this.messages.splice(0, wanted);
  }
}

async function connect(order) {
  // A flow that keeps its session asks for its topics again when it is back; others begin anew.
  let person = order.clean ? undefined : people[order.who];
  if (!person?.keeps) {
    person = new Person();
    person.keeps = !order.clean;
    await person.deploy();
    people[order.who] = person;
  }
  const broker = { port: order.port, clientid: order.id, cleansession: order.clean,
    sessionExpiry: order.expiry ?? 0, will: order.will ?? {} };
  await person.does('in', { action: 'connect', broker });
  return {};
}

async function subscribe(order, person) {
  const granted = new Promise((resolve) => {
    person.client.on('packetreceive', (packet) => {
      if (packet.cmd === 'suback') resolve(packet.granted[0]);
    });
  });
  const topic = { topic: order.filter, qos: order.qos, nl: order.no_local ?? false };
  await person.does('in', { action: 'subscribe', topic });
  return { granted: await granted };
}

async function publish(order, person) {
  const { topic, payload, qos, retain } = order;
  const msg = { topic, payload, qos, retain: retain ?? false };
  for (const [name, value] of Object.entries(order.properties ?? {})) {
    if (name === 'user') msg.userProperties = Object.fromEntries(value);
    else if (name === 'correlation') msg.correlationData = Buffer.from(value);
    else if (name === 'format') msg.payloadFormatIndicator = value === 1;
    else msg[CARRIED[name]] = value;
  }
  await person.does('out', msg);
  return { reason: 0 };
}

async function receive(order, person) {
  return { messages: (await person.some(order.count)).map(told) };
}

function told(msg) {
  const properties = {};
  for (const [name, called] of Object.entries(CARRIED)) {
    if (name !== 'alias' && msg[called] !== undefined) properties[name] = msg[called];
  }
  if (msg.payloadFormatIndicator !== undefined) properties.format = Number(msg.payloadFormatIndicator);
  if (msg.correlationData) properties.correlation = msg.correlationData.toString();
  if (msg.userProperties) properties.user = Object.entries(msg.userProperties);
  const { topic, payload, qos, retain } = msg;
  return { topic, payload, qos, retain, properties };
}

async function leave(_order, person) {
  await person.does('in', { action: 'disconnect' });
  return {};
}

async function vanish(_order, person) {
  person.client.stream.destroy();
  return {};
}

const DO = { subscribe, publish, receive, leave, vanish };

async function main() {
  RED.init({
    userDir: process.argv[3],
    flowFile: 'flows.json',
    credentialSecret: false,
    httpAdminRoot: false,
    httpNodeRoot: false,
    // Whoever vanishes stays away.
    mqttReconnectTime: 2 * WITHIN,
    functionGlobalContext: { tell: (name, event, msg) => flows[name].tell(event, msg) },
    logging: { console: { level: 'off' } },
    telemetry: { enabled: false, updateNotification: false },
    externalModules: { autoInstall: false, palette: { allowInstall: false } },
  });
  const runs = started();
  await RED.start();
  await runs;
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
