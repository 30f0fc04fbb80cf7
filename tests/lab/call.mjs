// One video call between two browsers, each in its own network namespace.
//
// Reads a job from standard input:
//   { driver: the package.json of the folder that has playwright-core,
//     directory: where the browsers may write, seconds, frames,
//     sides: { a: { namespace, iceServers }, b: { ... } } }
// and prints one line of JSON:
//   { ok, error, sides: { a: { state, local, remote, relayProtocol, frames,
//     connectedAfter, log }, b: { ... } } }
// The call succeeds when both sides have decoded `frames` video frames, and
// only relayed candidates are used. Times are in milliseconds.

import { createRequire } from 'node:module';
import { mkdtempSync } from 'node:fs';
import { text } from 'node:stream/consumers';

const job = JSON.parse(await text(process.stdin));
const { chromium } = createRequire(job.driver)('playwright-core');

const deadline = Date.now() + job.seconds * 1000;
const browsers = [];

async function main() {
  const result = { ok: false, error: null, sides: {} };
  let callers = {};
  try {
    const [a, b] = await Promise.all([openCaller(job.sides.a), openCaller(job.sides.b)]);
    callers = { a, b };
    await beforeDeadline('both sides decode video', placeCall(a, b));
    result.ok = true;
  } catch (error) {
    result.error = error.message;
  }
  for (const [side, page] of Object.entries(callers)) {
    result.sides[side] = await page.evaluate(() => call.report()).catch((error) => ({ log: [error.message] }));
  }
  await Promise.all(browsers.map((browser) => browser.close()));
  console.log(JSON.stringify(result));
  process.exit(result.ok ? 0 : 1);
}

async function openCaller({ namespace, iceServers }) {
  const browser = await chromium.launchPersistentContext(mkdtempSync(`${job.directory}/profile-`), {
    executablePath: new URL('chromium-in-namespace', import.meta.url).pathname,
    headless: true,
    timeout: 30_000,
    env: { ...process.env, LAB_NAMESPACE: namespace, HOME: job.directory, TMPDIR: job.directory },
    args: [
      '--no-sandbox', // refuses to run as root, which the namespaces need
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
      '--use-fake-device-for-media-stream',
      '--use-fake-ui-for-media-stream',
    ],
  });
  browsers.push(browser);
  const page = browser.pages()[0] ?? (await browser.newPage());
  // A page that no server serves, on https: a camera wants a secure origin.
  await page.route('**/*', (route) =>
    route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>call</title>' }),
  );
  await page.goto('https://call.test/');
  await page.evaluate(installCaller, iceServers);
  return page;
}

async function placeCall(a, b) {
  await Promise.all([forwardCandidates(a, b), forwardCandidates(b, a)]);
  const offer = await a.evaluate(() => call.offer());
  const answer = await b.evaluate((description) => call.answer(description), offer);
  await a.evaluate((description) => call.accept(description), answer);
  await Promise.all([a, b].map((page) => page.evaluate((count) => call.untilDecoded(count), job.frames)));
}

async function forwardCandidates(from, to) {
  await from.exposeFunction('sendCandidate', (candidate) =>
    to.evaluate((received) => call.addCandidate(received), candidate),
  );
}

function beforeDeadline(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not in time: ${what}`)), deadline - Date.now());
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Runs in the page: defines `call`, this side of the conversation.
async function installCaller(iceServers) {
  const started = performance.now();
  const elapsed = () => Math.round(performance.now() - started);
  const log = [];
  const note = (...words) => log.push(`${elapsed()} ms: ${words.join(' ')}`);

  const connection = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' });
  let connectedAfter = null;
  let described; // resolves once candidates of the other side may be added
  const isDescribed = new Promise((resolve) => (described = resolve));

  connection.onicegatheringstatechange = () => note('gathering', connection.iceGatheringState);
  connection.oniceconnectionstatechange = () => note('ice', connection.iceConnectionState);
  connection.onicecandidateerror = (event) => note('error', event.errorCode, event.errorText, event.url);
  connection.onconnectionstatechange = () => {
    note('connection', connection.connectionState);
    if (connection.connectionState === 'connected') connectedAfter ??= elapsed();
  };
  connection.onicecandidate = ({ candidate }) => {
    if (!candidate) return;
    note('local', candidate.candidate);
    window.sendCandidate(candidate.toJSON());
  };
  connection.ontrack = ({ streams }) => {
    const video = document.createElement('video');
    video.muted = video.autoplay = true;
    video.srcObject = streams[0];
    document.body.append(video);
  };
  const camera = await navigator.mediaDevices.getUserMedia({
    video: { width: 320, height: 240, frameRate: 30 },
    audio: true,
  });
  camera.getTracks().forEach((track) => connection.addTrack(track, camera));

  async function stats() {
    const all = await connection.getStats();
    const entries = [...all.values()];
    const transport = entries.find((entry) => entry.type === 'transport');
    const pair = all.get(transport?.selectedCandidatePairId);
    const video = entries.find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
    return {
      local: all.get(pair?.localCandidateId),
      remote: all.get(pair?.remoteCandidateId),
      frames: video?.framesDecoded ?? 0,
    };
  }

  window.call = {
    async offer() {
      await connection.setLocalDescription();
      return connection.localDescription.toJSON();
    },
    async answer(offer) {
      await this.accept(offer);
      await connection.setLocalDescription();
      return connection.localDescription.toJSON();
    },
    async accept(description) {
      await connection.setRemoteDescription(description);
      described();
    },
    async addCandidate(candidate) {
      await isDescribed;
      note('remote', candidate.candidate);
      await connection.addIceCandidate(candidate);
    },
    async untilDecoded(count) {
      while ((await stats()).frames < count) {
        if (connection.connectionState === 'failed') throw new Error('the connection failed');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    async report() {
      const { local, remote, frames } = await stats();
      return {
        state: connection.connectionState,
        local: local?.candidateType ?? null,
        remote: remote?.candidateType ?? null,
        relayProtocol: local?.relayProtocol ?? null,
        frames,
        connectedAfter,
        log,
      };
    },
  };
}

await main();
