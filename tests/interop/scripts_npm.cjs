// Packages of npm that send Lua scripts: node scripts_npm.cjs TEST PORT
// Says "all is well", or "missing: PACKAGE" where a package is not installed. It is no .mjs file
// because only require() looks in NODE_PATH.
'use strict';
const assert = require('assert');

const [test, port] = process.argv.slice(2);
const HOUR = 3600;

const calls = (times, call) => Array.from({ length: times }, (_, n) => call(n));
const repeat = (times, call) => Promise.all(calls(times, call));
const range = (number, low, high) => assert(low <= number && number <= high, `${number}`);

function ioredis(options = {}) {
  const Redis = require('ioredis');
  return new Redis(Number(port), '127.0.0.1', { maxRetriesPerRequest: 1, ...options });
}

function nodeRedis(options = {}) {
  const { createClient } = require('redis');
  return createClient({ url: `redis://127.0.0.1:${port}`, ...options }).connect();
}

// Add to a counter in two steps, from which only the lock keeps others.
async function countUnder(clients, acquire, release) {
  let inside = 0;
  await repeat(clients.length, async (number) => {
    for (let round = 0; round < 5; round++) {
      const lock = await acquire(number);
      assert.strictEqual((inside += 1), 1);
      const count = Number(await clients[number].get('counter'));
      await clients[number].set('counter', count + 1);
      inside -= 1;
      await release(lock);
    }
  });
  assert.strictEqual(await clients[0].get('counter'), String(clients.length * 5));
}

const tests = {
  async redlock4() {
    const Redlock = require('redlock');
    const once = { retryCount: 0 };
    const clients = [ioredis({ db: 0 }), ioredis({ db: 1 }), ioredis({ db: 2 })];
    const redlock = new Redlock(clients, once);
    const lock = await redlock.lock(['a', 'b'], 60_000);
    await assert.rejects(redlock.lock('b', 60_000), Redlock.LockError);
    range(await clients[2].pttl('a'), 40_000, 60_000);
    await lock.extend(600_000);
    range(await clients[2].pttl('b'), 500_000, 600_000);
    await clients[0].set('a', 'x');
    await lock.unlock(); // two of three are enough
    await assert.rejects(lock.unlock(), Redlock.LockError);
    assert.strictEqual(await clients[0].get('a'), 'x');
    assert.deepStrictEqual(await Promise.all(clients.map((each) => each.dbsize())), [1, 0, 0]);
    const expired = await redlock.lock('c', 60_000);
    await repeat(3, (number) => clients[number].set('c', 'x'));
    await assert.rejects(expired.extend(1_000), Redlock.LockError);

    const many = calls(8, () => ioredis());
    const patient = { retryCount: 10_000, retryDelay: 5, retryJitter: 5 };
    const locks = many.map((client) => new Redlock([client], patient));
    await countUnder(many, (n) => locks[n].lock('lock', 60_000), (lock) => lock.unlock());
  },

  async redlock5() {
    const { default: Redlock, ExecutionError, ResourceLockedError } = require('redlock5');
    const client = ioredis();
    const redlock = new Redlock([client], { retryCount: 0 });
    const errors = [];
    redlock.on('error', (error) => errors.push(error));
    let lock = await redlock.acquire(['a', 'b'], 60_000);
    await assert.rejects(redlock.acquire(['c', 'b'], 60_000), ExecutionError);
    assert(errors.length > 0 && errors.every((each) => each instanceof ResourceLockedError));
    lock = await lock.extend(600_000);
    range(await client.pttl('b'), 500_000, 600_000);
    await client.script('FLUSH'); // it sends the whole script again
    await lock.release();
    await assert.rejects(lock.release(), ExecutionError);
    assert.strictEqual(await client.dbsize(), 0);
    const done = await redlock.using(['a'], 60_000, async () => client.exists('a'));
    assert.deepStrictEqual([done, await client.exists('a')], [1, 0]);

    const many = calls(8, () => ioredis());
    const patient = { retryCount: 10_000, retryDelay: 5, retryJitter: 5 };
    const locks = many.map((each) => new Redlock([each], patient));
    await countUnder(many, (n) => locks[n].acquire(['lock'], 60_000), (lock) => lock.release());
  },

  async rateLimitRedis() {
    const express = require('express');
    const { rateLimit } = require('express-rate-limit');
    const { RedisStore } = require('rate-limit-redis');
    const client = ioredis();
    const other = await nodeRedis();
    const senders = {
      'io:': (...words) => client.call(...words),
      'node:': (...words) => other.sendCommand(words),
    };
    for (const [prefix, sendCommand] of Object.entries(senders)) {
      const limiter = rateLimit({
        windowMs: HOUR * 1000,
        limit: 20,
        keyGenerator: () => 'everybody',
        standardHeaders: 'draft-7',
        store: new RedisStore({ sendCommand, prefix }),
      });
      const app = express();
      app.use(limiter);
      app.get('/', (request, response) => response.send('hello'));
      const server = await new Promise((resolve) => {
        const listening = app.listen(0, '127.0.0.1', () => resolve(listening));
      });
      const url = `http://127.0.0.1:${server.address().port}/`;
      const statuses = await repeat(50, async () => (await fetch(url)).status);
      assert.strictEqual(statuses.filter((status) => status === 200).length, 20);
      assert.strictEqual(statuses.filter((status) => status === 429).length, 30);
      range(await client.pttl(`${prefix}everybody`), HOUR * 1000 - 60_000, HOUR * 1000);

      await client.script('FLUSH');
      const hits = await limiter.getKey('everybody');
      assert.strictEqual(hits.totalHits, 50);
      assert(!((await limiter.getKey('nobody')).totalHits > 0));
      await client.script('FLUSH');
      const last = await fetch(url);
      assert.strictEqual(last.status, 429);
      assert.match(last.headers.get('ratelimit'), /limit=20, remaining=0, reset=3\d\d\d/);
      await limiter.resetKey('everybody');
      assert.strictEqual((await fetch(url)).status, 200);
      assert.strictEqual(await client.get(`${prefix}everybody`), '1');
    }
  },

  async rateLimiterFlexible() {
    const { RateLimiterRedis, BurstyRateLimiter } = require('rate-limiter-flexible');
    const client = ioredis({ enableOfflineQueue: false, lazyConnect: true });
    await client.connect();
    const clients = { io: client, node: await nodeRedis() };
    for (const [keyPrefix, storeClient] of Object.entries(clients)) {
      const useRedisPackage = keyPrefix === 'node';
      const options = { storeClient, useRedisPackage, keyPrefix, points: 20, duration: HOUR };
      const limiter = new RateLimiterRedis(options);
      const first = await limiter.consume('a', 2);
      assert.deepStrictEqual(
        [first.remainingPoints, first.consumedPoints, first.isFirstInDuration], [18, 2, true]);
      range(first.msBeforeNext, HOUR * 1000 - 60_000, HOUR * 1000);
      await client.script('FLUSH');
      const settled = await Promise.allSettled(calls(50, () => limiter.consume('a')));
      const refused = settled.filter((each) => each.status === 'rejected');
      assert.strictEqual(refused.length, 32);
      assert(refused.every(({ reason: r }) => r.remainingPoints === 0 && r.msBeforeNext > 0));
      assert.strictEqual((await limiter.get('a')).consumedPoints, 52);
      assert.strictEqual((await limiter.reward('a', 40)).consumedPoints, 12);
      assert.strictEqual((await limiter.penalty('a', 3)).consumedPoints, 15);
      await client.persist(`${keyPrefix}:a`); // the script sets an expiry where there is none
      assert.strictEqual((await limiter.consume('a')).consumedPoints, 16);
      range(await client.ttl(`${keyPrefix}:a`), HOUR - 60, HOUR);
      await limiter.block('a', 100);
      await assert.rejects(limiter.consume('a'), (reason) => reason.msBeforeNext <= 100_000);
      assert.strictEqual(await limiter.delete('a'), true);
      assert.strictEqual(await limiter.get('a'), null);

      const more = { ...options, keyPrefix: `${keyPrefix}-burst`, points: 5 };
      const bursts = new RateLimiterRedis(more);
      const bursty = new BurstyRateLimiter(limiter, bursts);
      const replies = await Promise.allSettled(calls(40, () => bursty.consume('b')));
      assert.strictEqual(replies.filter((each) => each.status === 'fulfilled').length, 25);
    }
  },

  // The clients' own ways to send a script, of which the packages above make use.
  async clients() {
    const client = ioredis();
    const lua = "return {KEYS[1], ARGV[1], redis.call('incrby', KEYS[1], ARGV[1])}";
    client.defineCommand('add', { numberOfKeys: 1, lua });
    assert.deepStrictEqual(await client.add('n', 5), ['n', '5', 5]);
    await client.script('FLUSH');
    assert.deepStrictEqual(await client.add('n', 5), ['n', '5', 10]);
    await client.script('FLUSH');
    const other = ioredis({ scripts: { add: { numberOfKeys: 1, lua } } }); // it asks what is there
    const piped = await other.pipeline().add('n', 1).get('n').add('n', 1).exec();
    assert.deepStrictEqual(piped, [[null, ['n', '1', 11]], [null, '11'], [null, ['n', '1', 12]]]);
    const [, queued] = await other.multi().set('n', 0).add('n', 7).exec();
    assert.deepStrictEqual(queued, [null, ['n', '7', 7]]);
    await assert.rejects(client.eval('return redis.call("incr", KEYS[1], 1)', 1, 'n'), /args/);

    const { defineScript } = require('redis');
    const add = defineScript({
      SCRIPT: lua,
      NUMBER_OF_KEYS: 1,
      parseCommand: (parser, key, number) => {
        parser.pushKey(key);
        parser.push(String(number));
      },
      transformReply: ([key, number, sum]) => `${key}:${number}:${sum}`,
    });
    for (const RESP of [2, 3]) {
      const node = await nodeRedis({ RESP, scripts: { add } });
      await node.set('n', 1);
      await node.scriptFlush();
      assert.strictEqual(await node.add('n', 2), 'n:2:3');
      assert.strictEqual(await node.add('n', 2), 'n:2:5');
      await node.scriptFlush();
      const [, sum] = await node.multi().set('n', 0).add('n', 7).exec();
      assert.strictEqual(sum, 'n:7:7');
      assert.deepStrictEqual(await node.eval('return {1, false, ARGV[1]}', { arguments: ['x'] }),
        [1, null, 'x']);
    }
  },
};

async function main() {
  setTimeout(() => {
    console.error(`${test} did not end`);
    process.exit(1);
  }, 50_000);
  try {
    await tests[test]();
    console.log('all is well');
  } catch (error) {
    const missing = error.code === 'MODULE_NOT_FOUND' && /Cannot find module '([^']+)'/.exec(error);
    if (!missing) throw error;
    console.log(`missing: ${missing[1]}`);
  }
  process.exit(0); // there are connections still open
}

main();
