// What a program in JavaScript does with Redis, once each, through node-redis with its defaults.
//
//     node node_redis.mjs HOST PORT        (beside a node_modules that holds `redis`)
//
// `scripts/clients.sh` runs it with two versions of the library, which meet the server
// differently: 6 opens with HELLO 3, speaks RESP3 and closes the socket when it is done; 4 speaks
// RESP2 and says QUIT. Both put all commands of one turn of the event loop into one write, so a
// `Promise.all` is a pipeline. Where their interfaces differ, `modern` says so.
//
// Every answer is asserted; the one line at the end says what was seen. The server must be empty
// at first and is emptied at the end.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { WatchError, createClient } from 'redis';

const [host, port] = process.argv.slice(2);
const { version } = JSON.parse(readFileSync('node_modules/redis/package.json'));
const modern = Number.parseInt(version) >= 5;
const COMMANDS = 50_000;

async function connect() {
  const client = createClient({ socket: { host, port: Number(port) } });
  // A client that finds no listener for errors throws them; this one must have none.
  client.on('error', (error) => { throw error; });
  return await client.connect();
}

const leave = (client) => modern ? client.close() : client.quit();

async function plainCommands(client) {
  assert.equal(await client.ping(), 'PONG');
  assert.equal(await client.set('greeting', 'hello'), 'OK');
  assert.equal(await client.get('greeting'), 'hello');
  assert.equal(await client.get('nobody'), null);
  assert.equal(await client.set('greeting', 'again', { NX: true }), null);
  assert.equal(await client.set('greeting', 'soon gone', { EX: 100 }), 'OK');
  const ttl = await client.ttl('greeting');
  assert.ok(0 < ttl && ttl <= 100);
  assert.equal(await client.incrBy('n', 42), 42);
  assert.equal(Number(await client.incrByFloat('n', 0.5)), 42.5);
  assert.equal(await client.mSet({ a: '1', b: 'zwei\r\n' }), 'OK');
  assert.deepEqual(await client.mGet(['a', 'x', 'b']), ['1', null, 'zwei\r\n']);
  assert.equal(await client.del(['a', 'b', 'x']), 2);
  const big = 'é'.repeat(5_000_000);
  assert.equal(await client.set('big', big), 'OK');
  assert.equal(await client.get('big'), big);
  await assert.rejects(client.hGet('n', 'field'), /WRONGTYPE/);
  await assert.rejects(client.sendCommand(['NOSUCH', 'command']), /unknown command/);
}

async function hashes(client) {
  assert.equal(await client.hSet('hash', { a: '1', b: 'two' }), 2);
  assert.equal(await client.hSet('hash', 'b', 'zwei'), 0);
  assert.deepEqual({ ...await client.hGetAll('hash') }, { a: '1', b: 'zwei' });
  assert.equal(await client.hIncrBy('hash', 'a', 9), 10);
  assert.equal(await client.hDel('hash', ['a', 'x']), 1);
  assert.equal(await client.hLen('hash'), 1);
}

async function pipelines(client) {
  const numbers = Array.from({ length: COMMANDS }, (_, n) => n + 1);
  assert.deepEqual(await Promise.all(numbers.map(() => client.incr('many'))), numbers);
  const replies = await Promise.all(numbers.map((n) => client.set(`many:${n}`, 'x'.repeat(100))));
  assert.ok(replies.every((reply) => reply === 'OK'));
}

async function transactions(client) {
  const replies = await client.multi().set('t', '1').incr('t').hSet('th', 'f', 'v').get('t').exec();
  assert.deepEqual(replies, ['OK', 2, 1, '2']);

  const other = await connect();
  await client.watch('watched');
  await other.set('watched', '10');
  await assert.rejects(client.multi().set('watched', '1').exec(), WatchError);
  await client.watch('watched');
  const old = Number(await client.get('watched'));
  assert.deepEqual(await client.multi().set('watched', String(old + 1)).exec(), ['OK']);
  assert.equal(await other.get('watched'), '11');
  await leave(other);
}

async function publishAndSubscribe(client) {
  const subscriber = await connect();
  const heard = [];
  let done;
  const all = new Promise((resolve) => { done = resolve; });
  const hear = (message, channel) => {
    heard.push(`${channel} ${message}`);
    if (heard.length === 200) done();
  };
  await subscriber.subscribe('news', hear);
  await subscriber.pSubscribe('new?', hear);
  const numbers = Array.from({ length: 100 }, (_, n) => n);
  const counts = await Promise.all(numbers.map((n) => client.publish('news', String(n))));
  assert.ok(counts.every((count) => count === 2));
  await all;
  assert.deepEqual(heard, numbers.flatMap((n) => [`news ${n}`, `news ${n}`]));
  // By name: without one, version 4 waits for a count of 0, which the pattern keeps from coming.
  await subscriber.unsubscribe('news');
  await subscriber.pUnsubscribe('new?');
  assert.equal(await client.publish('news', 'nobody listens'), 0);
  assert.equal(await subscriber.ping(), 'PONG');
  await leave(subscriber);
}

async function scans(client) {
  const names = Array.from({ length: 1000 }, (_, n) => `scan:${n}`);
  await client.mSet(names.flatMap((name) => [name, '1']));
  const keys = new Set();
  // Since version 5 an iterator gives batches, before it gave single keys.
  for await (const batch of client.scanIterator({ MATCH: 'scan:*', COUNT: 50 })) {
    for (const key of modern ? batch : [batch]) keys.add(key);
  }
  assert.deepEqual([...keys].sort(), [...names].sort());

  await client.hSet('scanned', Object.fromEntries(names.map((name) => [name, name])));
  const fields = new Set();
  for await (const batch of client.hScanIterator('scanned')) {
    for (const { field, value } of modern ? batch : [batch]) {
      assert.equal(field, value);
      fields.add(field);
    }
  }
  assert.equal(fields.size, names.length);
}

async function questions(client) {
  assert.match(await client.info(), /redis_mode:standalone/);
  assert.ok(await client.dbSize() > COMMANDS);
  assert.ok('appendonly' in await client.configGet('append*'));
  await client.clientSetName('node');
  assert.equal(await client.clientGetName(), 'node');
  assert.ok(await client.clientId() > 0);
}

const client = await connect();
assert.equal(await client.dbSize(), 0, 'the server is not empty, and this program empties it');
const checks = [
  plainCommands, hashes, pipelines, transactions, publishAndSubscribe, scans, questions,
];
try {
  for (const check of checks) await check(client);
} finally {
  await client.flushDb();
}
await leave(client);
console.log(`node-redis ${version}: commands, hashes, pipelines of ${COMMANDS.toLocaleString('en')},`
  + ' WATCH, pub/sub, scans');
