// Packages of npm with their own calls: node frameworks_npm.cjs TEST PORT SETTING
// SETTING is the expression that makes the client. Says "all is well", or fails. It is no .mjs
// file because only require() looks in NODE_PATH.
'use strict';
const assert = require('assert');

const [test, port, setting] = process.argv.slice(2);
const client = eval(setting);

const range = (number, low, high) => assert(low <= number && number <= high, `${number}`);

// Call a method that takes a callback.
const call = (name, ...words) => new Promise((resolve, reject) => {
  client[name](...words, (error, reply) => (error ? reject(error) : resolve(reply)));
});

const nodeRedis = {
  async strings() {
    await client.connect();
    assert.strictEqual(await client.set('k', 'grüß'), 'OK');
    assert.deepStrictEqual([await client.get('k'), await client.get('missing')], ['grüß', null]);
    assert.strictEqual(await client.set('k', 'w', { condition: 'NX' }), null);
    await client.mSet({ a: '1', b: '2' });
    assert.deepStrictEqual(await client.mGet(['a', 'missing', 'b']), ['1', null, '2']);
    const found = [];
    for await (const keys of client.scanIterator({ MATCH: '[ab]' })) found.push(...keys);
    assert.deepStrictEqual(found.sort(), ['a', 'b']);
    assert.strictEqual(await client.del(['a', 'b', 'c']), 2);
  },

  async expiry() {
    await client.connect();
    await client.set('k', 'v', { expiration: { type: 'EX', value: 1000 } });
    range(await client.ttl('k'), 940, 1000);
    assert.strictEqual(Number(await client.persist('k')), 1);
    assert.strictEqual(await client.ttl('k'), -1);
    assert.strictEqual(await client.ttl('missing'), -2);
  },

  async counters() {
    await client.connect();
    assert.deepStrictEqual(
      [await client.incr('n'), await client.incrBy('n', 9), await client.decr('n')], [1, 10, 9]);
    await client.set('word', 'x');
    await assert.rejects(client.incr('word'), /value is not an integer or out of range/);
  },

  async transactions() {
    await client.connect();
    assert.deepStrictEqual(await client.multi().set('n', 1).incr('n').get('n').exec(),
      ['OK', 2, '2']);
    const other = await client.duplicate().connect();
    await client.watch('n');
    await other.set('n', 5);
    const { WatchError } = require('redis');
    await assert.rejects(client.multi().incr('n').exec(), WatchError);
    assert.strictEqual(await client.get('n'), '5');
  },

  async pubsub() {
    await client.connect();
    const subscriber = await client.duplicate().connect();
    const received = new Promise((resolve) => {
      const messages = [];
      const listener = (message, channel) => {
        messages.push([channel, message]);
        if (messages.length === 2) resolve(messages);
      };
      subscriber.subscribe('news', listener)
        .then(() => subscriber.pSubscribe('n*', listener))
        .then(() => client.publish('news', 'hello'));
    });
    assert.deepStrictEqual(await received, [['news', 'hello'], ['news', 'hello']]);
    await subscriber.unsubscribe();
    await subscriber.pUnsubscribe();
    assert.strictEqual(await subscriber.get('missing'), null);
  },
};

const ioredis = {
  async strings() {
    assert.strictEqual(await client.set('k', 'grüß'), 'OK');
    assert.deepStrictEqual([await client.get('k'), await client.get('missing')], ['grüß', null]);
    assert.strictEqual(await client.set('k', 'w', 'NX'), null);
    await client.set('binary', Buffer.from([0, 255]));
    assert.deepStrictEqual(await client.getBuffer('binary'), Buffer.from([0, 255]));
    await client.mset({ a: '1', b: '2' });
    assert.deepStrictEqual(await client.mget('a', 'missing', 'b'), ['1', null, '2']);
    const found = [];
    for await (const keys of client.scanStream({ match: '[ab]' })) found.push(...keys);
    assert.deepStrictEqual(found.sort(), ['a', 'b']);
    assert.strictEqual(await client.del('a', 'b', 'c'), 2);
  },

  async expiry() {
    await client.set('k', 'v', 'EX', 1000);
    range(await client.ttl('k'), 940, 1000);
    assert.strictEqual(await client.persist('k'), 1);
    assert.deepStrictEqual([await client.ttl('k'), await client.ttl('missing')], [-1, -2]);
  },

  async counters() {
    assert.deepStrictEqual(
      [await client.incr('n'), await client.incrby('n', 9), await client.decr('n')], [1, 10, 9]);
    await client.set('word', 'x');
    await assert.rejects(client.incr('word'), /value is not an integer or out of range/);
  },

  async transactions() {
    assert.deepStrictEqual(await client.multi().set('n', 1).incr('n').exec(),
      [[null, 'OK'], [null, 2]]);
    const other = client.duplicate();
    await client.watch('n');
    await other.set('n', 5);
    assert.strictEqual(await client.multi().incr('n').exec(), null);
    assert.strictEqual(await client.get('n'), '5');
  },

  async pubsub() {
    const subscriber = client.duplicate();
    const received = new Promise((resolve) => {
      subscriber.on('message', (channel, message) => resolve([channel, message]));
    });
    assert.strictEqual(await subscriber.subscribe('news'), 1);
    assert.strictEqual(await client.publish('news', 'hello'), 1);
    assert.deepStrictEqual(await received, ['news', 'hello']);
    await subscriber.unsubscribe();
    assert.strictEqual(await subscriber.get('missing'), null);
  },
};

async function connectRedis() {
  const express = require('express');
  const session = require('express-session');
  const { RedisStore } = require('connect-redis');
  await client.connect();
  const store = new RedisStore({ client, ttl: 1000 });
  const app = express();
  app.use(session({ store, secret: 'secret', resave: false, saveUninitialized: false }));
  app.get('/visit', (request, response) => {
    request.session.visits = (request.session.visits || 0) + 1;
    response.send(String(request.session.visits));
  });
  app.get('/leave', (request, response) => request.session.destroy(() => response.send('bye')));
  const server = await new Promise((resolve) => {
    const listening = app.listen(0, '127.0.0.1', () => resolve(listening));
  });
  const get = async (path, cookie) => {
    const headers = cookie ? { cookie } : {};
    const reply = await fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers });
    return [await reply.text(), (reply.headers.get('set-cookie') || '').split(';')[0]];
  };
  const [visits, cookie] = await get('/visit');
  assert.deepStrictEqual([visits, (await get('/visit', cookie))[0]], ['1', '2']);
  assert.strictEqual((await get('/visit'))[0], '1');
  const reply = (name) => new Promise((resolve) => store[name]((_, found) => resolve(found)));
  assert.strictEqual(await reply('length'), 2);
  assert.deepStrictEqual((await reply('all')).map((each) => each.visits).sort(), [1, 2]);
  for (const id of await reply('ids')) range(await client.ttl(`sess:${id}`), 940, 1000);
  await get('/leave', cookie);
  assert.strictEqual(await reply('length'), 1);
  await reply('clear');
  assert.strictEqual(await client.dbSize(), 0);
}

async function keyv() {
  const { default: Keyv } = require('keyv');
  const [users, pages] = ['users', 'pages'].map((namespace) => {
    const { default: KeyvRedis } = require('@keyv/redis');
    const store = namespace === 'users' ? client : new KeyvRedis(`redis://127.0.0.1:${port}`);
    const made = new Keyv({ store, namespace, throwOnErrors: true });
    made.on('error', (error) => { throw error; });
    return made;
  });
  assert.strictEqual(await users.set('k', { name: 'Ada', tags: ['ü'] }, 1_000_000), true);
  assert.deepStrictEqual(await users.get('k'), { name: 'Ada', tags: ['ü'] });
  assert.deepStrictEqual([await users.get('missing'), await pages.get('k')], [undefined, undefined]);
  await users.setMany([{ key: 'a', value: 1 }, { key: 'b', value: 2 }]);
  assert.deepStrictEqual(await users.getMany(['a', 'missing', 'b']), [1, undefined, 2]);
  assert.deepStrictEqual([await users.has('a'), await users.has('x')], [true, false]);
  assert.deepStrictEqual([await users.delete('a'), await users.delete('a')], [true, false]);
  await pages.set('k', 'page');
  const found = [];
  for await (const [key] of users.iterator()) found.push(key);
  assert.deepStrictEqual(found.sort(), ['b', 'k']);
  await users.clear();
  assert.deepStrictEqual([await users.get('k'), await pages.get('k')], [undefined, 'page']);
}

async function cacheManager() {
  const { createCache } = require('cache-manager');
  const cache = createCache({ stores: [client] });
  await cache.set('k', { a: 1 }, 1_000_000);
  assert.deepStrictEqual(await cache.get('k'), { a: 1 });
  range(await cache.ttl('k') - Date.now(), 940_000, 1_000_000);
  await cache.mset([{ key: 'a', value: 1 }, { key: 'b', value: 2 }]);
  assert.deepStrictEqual(await cache.mget(['a', 'b']), [1, 2]);
  await cache.del('a');
  assert.strictEqual(await cache.get('a'), undefined);
  let calls = 0;
  const wrapped = () => cache.wrap('wrapped', async () => (calls += 1), 1_000_000);
  assert.deepStrictEqual([await wrapped(), await wrapped(), calls], [1, 1, 1]);
  await cache.clear();
  assert.strictEqual(await cache.get('k'), undefined);
}

const memcached = {
  async strings() {
    assert.strictEqual(await call('set', 'k', { a: ['ü'] }, 0), true);
    assert.deepStrictEqual(await call('get', 'k'), { a: ['ü'] });
    assert.strictEqual(await call('get', 'missing'), undefined);
    await assert.rejects(call('add', 'k', 'w', 0), /not stored/);
    assert.strictEqual(await call('replace', 'k', 'v', 0), true);
    assert.strictEqual(await call('append', 'k', '!'), true);
    await call('set', 'binary', Buffer.from([0, 255]), 0);
    assert.deepStrictEqual(await call('getMulti', ['k', 'binary', 'missing']),
      { k: 'v!', binary: Buffer.from([0, 255]) });
    assert.deepStrictEqual([await call('del', 'k'), await call('del', 'k')], [true, false]);
    await call('flush');
    assert.strictEqual(await call('get', 'binary'), undefined);
  },

  async expiryAndCounters() {
    await call('set', 'n', 5, 1000);
    assert.deepStrictEqual([await call('incr', 'n', 10), await call('decr', 'n', 3)], [15, 12]);
    assert.strictEqual(await call('incr', 'missing', 1), false);
    assert.strictEqual(await call('touch', 'n', 2000), true);
    assert.strictEqual(await call('touch', 'n', -1), true);
    assert.strictEqual(await call('get', 'n'), undefined);
  },

  async compareAndSet() {
    await call('set', 'k', 'v', 0);
    const { cas, k } = await call('gets', 'k');
    assert.strictEqual(k, 'v');
    assert.strictEqual(await call('cas', 'k', 'w', cas, 0), true);
    assert.strictEqual(await call('cas', 'k', 'x', cas, 0), false);
    assert.strictEqual(await call('get', 'k'), 'w');
  },
};

const tests = { nodeRedis, ioredis, connectRedis, keyv, cacheManager, memcached };

async function main() {
  setTimeout(() => {
    console.error(`${test} did not end`);
    process.exit(1);
  }, 50_000);
  const [name, part] = test.split('.');
  await (part ? tests[name][part]() : tests[name]());
  console.log('all is well');
  process.exit(0); // there are connections still open
}

main();
