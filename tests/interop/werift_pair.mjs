// Two werift peers that may only use the relay exchange messages over a data
// channel.
//
// werift_pair.mjs DRIVER udp|tcp|tls ADDRESS PORT USER PASSWORD; prints
// `received N/M`. DRIVER is the package.json of the folder that has werift.
// NODE_EXTRA_CA_CERTS names what to trust over TLS.

import { createRequire } from 'node:module';

const MESSAGES = 20;
const BYTES = 500;
const MILLISECONDS_TO_CONNECT = 15_000;
const MILLISECONDS_PER_MESSAGE = 5_000;

const [driver, transport, address, port, username, credential] = process.argv.slice(2);
const { RTCPeerConnection } = createRequire(driver)('werift');

async function main() {
  const [a, b] = [createPeer(), createPeer()];
  const channel = a.createDataChannel('messages');
  const echoing = new Promise((resolve) => b.onDataChannel.subscribe(resolve)).then(echo);
  await within(MILLISECONDS_TO_CONNECT, 'connect', connect(a, b, channel));
  await within(MILLISECONDS_PER_MESSAGE, 'open the other end', echoing);
  const received = await exchange(channel);
  for (const peer of [a, b]) {
    const kinds = candidateKinds(peer);
    if (kinds.length === 0 || kinds.some((kind) => kind !== 'relay')) throw new Error(`candidates: ${kinds}`);
  }
  console.log(`received ${received}/${MESSAGES}`);
  return received === MESSAGES ? 0 : 1;
}

function createPeer() {
  const host = address.includes(':') ? `[${address}]` : address;
  const scheme = transport === 'tls' ? 'turns' : 'turn';
  const urls = `${scheme}:${host}:${port}?transport=${transport === 'udp' ? 'udp' : 'tcp'}`;
  return new RTCPeerConnection({ iceServers: [{ urls, username, credential }], iceTransportPolicy: 'relay' });
}

async function connect(a, b, channel) {
  const opened = new Promise((resolve) => {
    channel.stateChanged.subscribe((state) => state === 'open' && resolve());
  });
  await a.setLocalDescription(await a.createOffer());
  await b.setRemoteDescription(a.localDescription);
  await b.setLocalDescription(await b.createAnswer());
  await a.setRemoteDescription(b.localDescription);
  await opened;
}

function echo(channel) {
  channel.onMessage.subscribe((message) => channel.send(message));
}

// Counts the messages that went there and came back intact.
async function exchange(channel) {
  let received = 0;
  for (let index = 0; index < MESSAGES; index++) {
    const message = Buffer.alloc(BYTES, index);
    const back = new Promise((resolve) => channel.onMessage.once(resolve));
    channel.send(message);
    received += Buffer.compare(await within(MILLISECONDS_PER_MESSAGE, `message ${index}`, back), message) === 0;
  }
  return received;
}

function candidateKinds(peer) {
  return [...peer.localDescription.sdp.matchAll(/a=candidate:.* typ (\w+)/g)].map(([, kind]) => kind);
}

function within(milliseconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not in time: ${what}`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

main().then(
  (code) => process.exit(code),
  (error) => {
    console.log(error.stack);
    process.exit(1);
  },
);
