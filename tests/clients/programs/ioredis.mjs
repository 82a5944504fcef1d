// What a program in JavaScript does with Redis, once each, through ioredis with its defaults.
//
//     node ioredis.mjs HOST PORT        (beside a node_modules that holds `ioredis`)
//
// `scripts/clients.sh` runs it with two versions of the library: 6 opens with HELLO 3, 5 speaks
// RESP2. Both ask INFO before anything else and hang up if that fails, because it tells them
// whether the server is still loading (their "ready check"). Commands go out in lower case.
//
// Every answer is asserted; the one line at the end says what was seen. The server must be empty
// at first and is emptied at the end.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Redis } from 'ioredis';

const [host, port] = process.argv.slice(2);
const { version } = JSON.parse(readFileSync('node_modules/ioredis/package.json'));
const COMMANDS = 50_000;

function connect() {
  const redis = new Redis(Number(port), host);
  // By default ioredis logs errors and tries again for ever; here each one is a failure.
  redis.on('error', (error) => { throw error; });
  return redis;
}

async function plainCommands(redis) {
  assert.equal(await redis.ping(), 'PONG');
  assert.equal(await redis.set('greeting', 'hello'), 'OK');
  assert.equal(await redis.get('greeting'), 'hello');
  assert.equal(await redis.get('nobody'), null);
  assert.equal(await redis.set('greeting', 'again', 'NX'), null);
  assert.equal(await redis.set('greeting', 'soon gone', 'EX', 100), 'OK');
  const ttl = await redis.ttl('greeting');
  assert.ok(0 < ttl && ttl <= 100);
  assert.equal(await redis.incrby('n', 42), 42);
  assert.equal(Number(await redis.incrbyfloat('n', 0.5)), 42.5);
  assert.equal(await redis.mset({ a: 1, b: 'zwei\r\n' }), 'OK');
  assert.deepEqual(await redis.mget('a', 'x', 'b'), ['1', null, 'zwei\r\n']);
  assert.equal(await redis.del('a', 'b', 'x'), 2);
  const bytes = Buffer.alloc(10_000_000, Uint8Array.from({ length: 251 }, (_, n) => n));
  assert.equal(await redis.set('big', bytes), 'OK');
  assert.ok(bytes.equals(await redis.getBuffer('big')));
  await assert.rejects(redis.hget('n', 'field'), /WRONGTYPE/);
  await assert.rejects(redis.call('NOSUCH', 'command'), /unknown command/);
}

async function hashes(redis) {
  assert.equal(await redis.hset('hash', { a: 1, b: 'two' }), 2);
  assert.equal(await redis.hset('hash', 'b', 'zwei'), 0);
  assert.deepEqual(await redis.hgetall('hash'), { a: '1', b: 'zwei' });
  assert.equal(await redis.hincrby('hash', 'a', 9), 10);
  assert.equal(await redis.hdel('hash', 'a', 'x'), 1);
  assert.equal(await redis.hlen('hash'), 1);
}

async function pipelines(redis) {
  const pipeline = redis.pipeline();
  for (let n = 0; n < COMMANDS; n++) pipeline.set(`many:${n}`, 'x'.repeat(100)).incr('many');
  const replies = await pipeline.exec();
  assert.equal(replies.length, 2 * COMMANDS);
  replies.forEach((reply, n) => {
    assert.deepEqual(reply, [null, n % 2 === 0 ? 'OK' : (n + 1) / 2]);
  });
}

async function transactions(redis) {
  const replies = await redis.multi().set('t', 1).incr('t').hget('t', 'f').get('t').exec();
  assert.deepEqual(replies.map(([, reply]) => reply ?? null), ['OK', 2, null, '2']);
  assert.match(replies[2][0].message, /WRONGTYPE/);
  await assert.rejects(redis.multi().set('t', 1).call('get').exec(), /EXECABORT/);

  const other = connect();
  await redis.watch('watched');
  await other.set('watched', 10);
  assert.equal(await redis.multi().set('watched', 1).exec(), null);
  await redis.watch('watched');
  const old = Number(await redis.get('watched'));
  assert.deepEqual(await redis.multi().set('watched', old + 1).exec(), [[null, 'OK']]);
  assert.equal(await other.get('watched'), '11');
  await other.quit();
}

async function publishAndSubscribe(redis) {
  const subscriber = connect();
  const heard = [];
  let done;
  const all = new Promise((resolve) => { done = resolve; });
  const hear = (channel, message) => {
    heard.push(`${channel} ${message}`);
    if (heard.length === 200) done();
  };
  subscriber.on('message', hear);
  subscriber.on('pmessage', (pattern, channel, message) => hear(channel, message));
  assert.equal(await subscriber.subscribe('news', 'more news'), 2);
  assert.equal(await subscriber.psubscribe('new?'), 3);
  const numbers = Array.from({ length: 100 }, (_, n) => n);
  const counts = await Promise.all(numbers.map((n) => redis.publish('news', n)));
  assert.ok(counts.every((count) => count === 2));
  await all;
  assert.deepEqual(heard, numbers.flatMap((n) => [`news ${n}`, `news ${n}`]));
  // By name: without one, ioredis waits for a count of 0, which the pattern keeps from coming.
  assert.equal(await subscriber.unsubscribe('news', 'more news'), 1);
  assert.equal(await subscriber.punsubscribe(), 0);
  assert.equal(await redis.publish('news', 'nobody listens'), 0);
  assert.equal(await subscriber.set('back', 'to work'), 'OK');
  await subscriber.quit();
}

async function scans(redis) {
  const names = Array.from({ length: 1000 }, (_, n) => `scan:${n}`);
  await redis.mset(names.flatMap((name) => [name, 1]));
  const keys = new Set();
  for await (const batch of redis.scanStream({ match: 'scan:*', count: 50 })) {
    for (const key of batch) keys.add(key);
  }
  assert.deepEqual([...keys].sort(), [...names].sort());

  await redis.hset('scanned', Object.fromEntries(names.map((name) => [name, name])));
  const fields = new Map();
  for await (const batch of redis.hscanStream('scanned')) {
    for (let n = 0; n < batch.length; n += 2) fields.set(batch[n], batch[n + 1]);
  }
  assert.ok(fields.size === names.length && names.every((name) => fields.get(name) === name));
}

async function questions(redis) {
  assert.match(await redis.info(), /redis_mode:standalone/);
  assert.ok(await redis.dbsize() > COMMANDS);
  assert.equal(await redis.client('SETNAME', 'io'), 'OK');
  assert.match(await redis.client('LIST'), / name=io /);
}

const redis = connect();
assert.equal(await redis.dbsize(), 0, 'the server is not empty, and this program empties it');
const checks = [
  plainCommands, hashes, pipelines, transactions, publishAndSubscribe, scans, questions,
];
try {
  for (const check of checks) await check(redis);
} finally {
  await redis.flushdb();
}
await redis.quit();
console.log(`ioredis ${version}: commands, hashes, pipelines of ${(2 * COMMANDS).toLocaleString('en')},`
  + ' WATCH, pub/sub, scans');
