"""A program that uses the client, for type checkers: they must see what is what, and what is wrong.

It is checked, not run. A mistake that a checker does not find makes its `type: ignore` superfluous,
which is an error, too.
"""

from __future__ import annotations

import datetime
from typing import Any, assert_type

import kvdb
from kvdb.unsafe_pickle import PICKLE


def values_are_what_the_serializer_yields() -> None:
    text = kvdb.Client("localhost", serializer=kvdb.TEXT)
    assert_type(text, kvdb.Client[str])
    assert_type(text.get("a"), str | None)
    assert_type(text.mget(["a"]), list[str | None])
    assert_type(text.get_many(["a"]), dict[str | bytes, str])
    assert_type(kvdb.Client(serializer=kvdb.BYTES).get("a"), bytes | None)
    assert_type(kvdb.Client().get_and_delete("a"), Any | None)
    assert_type(kvdb.Client(serializer=PICKLE).get("a"), Any | None)
    assert_type(kvdb.Client(serializer=kvdb.TEXT.compressed()).get("a"), str | None)


def a_client_by_a_url_has_the_types_of_its_serializer() -> None:
    assert_type(kvdb.Client.from_url("kvdb://h"), kvdb.Client[Any])
    assert_type(kvdb.Client.from_url("kvdb://h", serializer=kvdb.TEXT, db=3), kvdb.Client[str])
    assert_type(
        kvdb.AsyncClient.from_url("kvdb://h", serializer=kvdb.BYTES), kvdb.AsyncClient[bytes]
    )


async def transactions_of_asyncio_can_be_annotated(db: kvdb.AsyncClient[str]) -> None:
    async def pay(tx: kvdb.AsyncTransaction[str]) -> str | None:
        return await tx.get("account")

    assert_type(await db.transaction(pay, "account"), str | None)


def commands_return_what_they_return(db: kvdb.Client[str]) -> None:
    assert_type(db.incr("a"), int)
    assert_type(db.ttl("a"), float | None)
    assert_type(db.set("a", "b", ttl=datetime.timedelta(minutes=1), if_absent=True), bool)
    assert_type(db.keys("*"), list[str | bytes])
    assert_type(db.transaction(lambda tx: tx.get("a"), "a"), str | None)
    assert_type(db.namespace("user:").get("a"), str | None)


def a_pipeline_has_its_values_later(db: kvdb.Client[str]) -> None:
    with db.pipeline() as pipe:
        assert_type(pipe.get("a"), kvdb.Later[str | None])
        hits = pipe.incr("hits")
    assert_type(hits.value, int)


async def messages_have_the_values_of_the_serializer() -> None:
    with kvdb.Client(serializer=kvdb.TEXT).subscribe("a") as subscription:
        assert_type(next(subscription).value, str)
    async with kvdb.AsyncClient(serializer=kvdb.BYTES).subscribe("a", patterns=["b*"]) as later:
        assert_type(await later.get(), kvdb.Message[bytes] | None)
        async for message in later:
            assert_type(message, kvdb.Message[bytes])


def mistakes_are_found(db: kvdb.Client[str]) -> None:
    seconds: str = db.ttl("a")  # type: ignore[assignment]
    db.set("a")  # type: ignore[call-arg]
    db.set("a", 1, nosuch=2)  # type: ignore[call-arg]
    db.incr("a", "b")  # type: ignore[arg-type]
    with db.pipeline() as pipe:
        number: int = pipe.incr("a")  # type: ignore[assignment]
    print(seconds, number)
