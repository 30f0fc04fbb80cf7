// One video call between two browsers, each in its own network namespace.
//
// Reads a job from standard input:
//   { seconds, frames, sides: { a: { namespace, ...what browser.mjs takes }, b } }
// and prints one line of JSON:
//   { ok, error, sides: { a: { version, state, local, remote, relayProtocol,
//     candidates, frames, connectedAfter, log }, b: { ... } } }
// The call succeeds when both sides have decoded `frames` video frames, and
// only relayed candidates are used; with 0 frames both sides only gather their
// candidates. Times are in milliseconds.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

const SECONDS_TO_REPORT = 5;
const SECONDS_TO_CLOSE = 5;

const job = JSON.parse(await text(process.stdin));
const deadline = Date.now() + job.seconds * 1000;

async function main() {
  const callers = Object.entries(job.sides).map(([name, side]) => new Caller(name, side));
  const result = { ok: false, error: null, sides: {} };
  try {
    const held = job.frames > 0 ? placeCall(...callers) : gather(...callers);
    await within(deadline - Date.now(), held);
    result.ok = true;
  } catch (error) {
    result.error = error.message;
  }
  for (const caller of callers) {
    const report = within(SECONDS_TO_REPORT * 1000, caller.ask('report')).catch((error) => ({ log: [error.message] }));
    result.sides[caller.name] = { version: caller.version, ...(await report) };
  }
  const closed = Promise.all(callers.map((caller) => caller.close()));
  await within(SECONDS_TO_CLOSE * 1000, closed).catch(() => {});
  console.log(JSON.stringify(result));
  process.exit(result.ok ? 0 : 1);
}

async function placeCall(a, b) {
  await Promise.all([a.open(), b.open()]);
  await a.ask('accept', await b.ask('answer', await a.ask('offer')));
  await Promise.all([a, b].map((caller) => caller.ask('untilDecoded', job.frames)));
}

async function gather(a, b) {
  await Promise.all([a.open(), b.open()]);
  await Promise.all([a.ask('offer'), b.ask('offer')]);
}

// A browser in a namespace, by way of its own driver there.
class Caller {
  constructor(name, { namespace, ...browser }) {
    this.name = name;
    this.browser = browser;
    this.version = null;
    this.exchanges = 0;
    const driver = fileURLToPath(new URL('browser.mjs', import.meta.url));
    this.process = spawn('ip', ['netns', 'exec', namespace, process.execPath, driver], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, HOME: browser.directory, TMPDIR: browser.directory },
    });
    this.process.stdin.on('error', () => {}); // it has ended, which `ended` tells
    this.waiting = new Map();
    createInterface({ input: this.process.stdout }).on('line', (line) => this.answer(JSON.parse(line)));
    this.ended = new Promise((resolve) => this.process.on('close', resolve)).then(() => {
      for (const { reject } of this.waiting.values()) reject(this.error('its driver ended'));
    });
  }

  async open() {
    this.version = await this.exchange(this.browser);
  }

  ask(method, argument) {
    return this.exchange({ method, argument });
  }

  exchange(line) {
    const id = this.exchanges++;
    this.process.stdin.write(`${JSON.stringify({ id, ...line })}\n`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  answer({ id, value, error }) {
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(this.error(error));
    else resolve(value);
  }

  error(message) {
    return new Error(`side ${this.name}, ${this.browser.browser}: ${message}`);
  }

  async close() {
    this.process.stdin.end();
    await this.ended;
  }
}

function within(milliseconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('not in time')), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

await main();
