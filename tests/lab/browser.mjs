// One side of a call: a browser and the page in it, both in the network
// namespace that this runs in.
//
// The first line of standard input says which browser:
//   { id, driver: the package.json of the folder that has puppeteer-core,
//     browser: "chromium" or "firefox", directory: where it may write,
//     trusted: the folder of an NSS database with the authorities to trust,
//     iceServers }
// and is answered with the browser's version. Each further line is
// { id, method, argument } of `call` below. An answer is { id, value } or
// { id, error }. The browser ends when the input does.

import { cpSync, mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

async function main() {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const job = JSON.parse((await lines.next()).value);
  const opening = open(job);
  answer(job.id, opening.then(({ browser }) => browser.version()));
  for await (const line of lines) {
    const { id, method, argument = null } = JSON.parse(line);
    answer(
      id,
      opening.then(({ page }) => page.evaluate((name, given) => call[name](given), method, argument)),
    );
  }
  await opening.then(({ browser }) => browser.close());
}

// Whoever asked must not wait for an answer that cannot come.
async function answer(id, work) {
  try {
    const value = (await work) ?? null;
    console.log(JSON.stringify({ id, value }));
  } catch (error) {
    console.log(JSON.stringify({ id, error: error.message }));
  }
}

async function open(job) {
  const browser = await launch(job);
  return { browser, page: await openPage(browser, job.iceServers) };
}

function launch({ driver, browser, directory, trusted }) {
  const puppeteer = createRequire(driver)('puppeteer-core');
  const profile = mkdtempSync(`${directory}/profile-`);
  const common = { headless: true, timeout: 30_000, userDataDir: profile };
  if (browser === 'firefox') {
    // Firefox trusts what is in its profile, Chromium what is in $HOME.
    if (trusted) cpSync(trusted, profile, { recursive: true });
    return puppeteer.launch({
      ...common,
      browser: 'firefox',
      executablePath: '/usr/bin/firefox-esr',
      extraPrefsFirefox: {
        'media.navigator.streams.fake': true,
        'media.navigator.permission.disabled': true,
      },
    });
  }
  return puppeteer.launch({
    ...common,
    browser: 'chrome',
    executablePath: '/usr/bin/chromium',
    pipe: true,
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
}

async function openPage(browser, iceServers) {
  // A camera wants a secure origin, which this machine itself is.
  const server = createServer((_, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>call</title>');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.evaluate(installCaller, iceServers);
  return page;
}

// Runs in the page: defines `call`, this side of the conversation.
async function installCaller(iceServers) {
  const started = performance.now();
  const elapsed = () => Math.round(performance.now() - started);
  const log = [];
  const note = (...words) => log.push(`${elapsed()} ms: ${words.join(' ')}`);

  const connection = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' });
  let describedAt = null;
  let connectedAfter = null;
  let candidates = 0;
  let failed;
  const failure = new Promise((_, reject) => (failed = () => reject(new Error('the connection failed'))));
  failure.catch(() => {}); // it matters to those who wait for something else
  const gathered = new Promise((resolve) => {
    connection.onicegatheringstatechange = () => {
      note('gathering', connection.iceGatheringState);
      if (connection.iceGatheringState === 'complete') resolve();
    };
  });
  connection.oniceconnectionstatechange = () => note('ice', connection.iceConnectionState);
  connection.onicecandidateerror = (event) => note('error', event.errorCode, event.errorText, event.url);
  connection.onconnectionstatechange = () => {
    note('connection', connection.connectionState);
    if (connection.connectionState === 'connected') connectedAfter ??= elapsed() - describedAt;
    if (connection.connectionState === 'failed') failed();
  };
  connection.onicecandidate = ({ candidate }) => {
    if (!candidate?.candidate) return;
    candidates += 1;
    note('local', candidate.candidate);
  };
  connection.ontrack = ({ track }) => {
    const video = document.createElement('video');
    video.muted = video.autoplay = true;
    video.srcObject = new MediaStream([track]);
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
    // Chromium names the pair in the transport, Firefox marks it.
    const transport = entries.find((entry) => entry.type === 'transport');
    const pair =
      all.get(transport?.selectedCandidatePairId) ??
      entries.find((entry) => entry.type === 'candidate-pair' && entry.selected);
    const video = entries.find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
    return {
      local: all.get(pair?.localCandidateId),
      remote: all.get(pair?.remoteCandidateId),
      frames: video?.framesDecoded ?? 0,
    };
  }

  // Descriptions go over to the other side whole, with all candidates.
  async function describe() {
    describedAt = elapsed();
    await connection.setLocalDescription();
    await Promise.race([gathered, failure]);
    return connection.localDescription.toJSON();
  }

  window.call = {
    offer: describe,
    async answer(offer) {
      await this.accept(offer);
      return describe();
    },
    async accept(description) {
      await connection.setRemoteDescription(description);
    },
    async untilDecoded(count) {
      while ((await stats()).frames < count) {
        await Promise.race([new Promise((resolve) => setTimeout(resolve, 50)), failure]);
      }
    },
    async report() {
      const { local, remote, frames } = await stats();
      return {
        state: connection.connectionState,
        local: local?.candidateType ?? null,
        remote: remote?.candidateType ?? null,
        relayProtocol: local?.relayProtocol ?? null,
        candidates,
        frames,
        connectedAfter,
        log,
      };
    },
  };
}

main().then(
  () => process.exit(0),
  () => process.exit(1), // each line has been told why
);
