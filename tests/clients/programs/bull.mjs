// What a program in JavaScript gives to others to do later, through the queue Bull with its defaults.
//
//     node bull.mjs HOST PORT        (beside a node_modules that holds `bull`)
//
// Each step of a job, from a list to a sorted set to another list, is a script: 26 of them, which cut their arguments
// out of cmsgpack and out of JSON.
//
// Every answer is asserted. The server must be empty at first and is emptied at the end.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import Queue from 'bull';

const [host, port] = process.argv.slice(2);
const { version } = JSON.parse(readFileSync('node_modules/bull/package.json'));
const JOBS = 200;

const queue = new Queue('work', { redis: { host, port: Number(port) } });
assert.equal(await queue.client.dbsize(), 0, 'the server is not empty, and this program empties it');
try {
  const seen = [];
  queue.process(5, async ({ data, attemptsMade }) => {
    seen.push(data.n);
    if (data.n === 3 && attemptsMade === 0) throw new Error('not at once');
    if (data.n === 4) throw new Error('never');
    return 2 * data.n;
  });

  // Many jobs, one that succeeds at the second attempt, one that does not, one that is due later.
  const bulk = Array.from({ length: JOBS }, (_, n) => ({ data: { n }, opts: { attempts: 2, backoff: 1 } }));
  const jobs = await queue.addBulk(bulk);
  jobs.push(await queue.add({ n: JOBS }, { delay: 100, priority: 1 }));
  for (const [n, job] of jobs.entries()) {
    if (n === 4) await assert.rejects(job.finished(), /never/);
    else assert.equal(await job.finished(), 2 * n);
  }
  assert.equal(seen.length, JOBS + 3);
  const none = { waiting: 0, active: 0, delayed: 0, paused: 0 };
  assert.deepEqual(await queue.getJobCounts(), { ...none, completed: JOBS, failed: 1 });
  assert.deepEqual((await queue.getFailed()).map(({ data }) => data.n), [4]);

  // What is paused waits. A job with the identity of another is that one.
  await queue.pause();
  const [job, same] = [await queue.add({ n: 7 }, { jobId: 'seven' }), await queue.add({}, { jobId: 'seven' })];
  assert.deepEqual([same.id, await job.getState()], ['seven', 'paused']);
  await queue.resume();
  assert.equal(await job.finished(), 14);

  assert.ok((await queue.clean(0, 'completed')).length >= JOBS);
  await queue.obliterate({ force: true });
  assert.equal((await queue.client.keys('bull:work:[^i]*')).length, 0);
} finally {
  await queue.client.flushdb();
  await queue.close();
}
console.log(`bull ${version}: ${JOBS} jobs at once, attempts, delays, priorities, pause`);
